"""The files and folders of the recipe, the same as in recipes/house_words/dvc.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lever_plus.config.house_words import CLIP, RecipeParams
from lever_plus.files.checking import checked
from lever_plus.files.yaml_files import read_yaml

ADVICE: Final = "run from the project's root folder, or correct the file"


@dataclass(frozen=True)
class Places:
    """The files and folders of the recipe, in the project's folder `root`.

    The models are made outside the package and copied into it at the end (`ship`). If they were the
    output of a pipeline inside the package, DVC would run it before all stages that use them.
    """

    root: Path = Path()

    @property
    def recipe(self) -> Path:
        """The folder of the recipe, which is in git."""
        return self.root / "recipes" / "house_words"

    @property
    def params(self) -> Path:
        """The recipe's settings."""
        return self.recipe / "params.yaml"

    @property
    def table(self) -> Path:
        """The in-context table of the VLMs."""
        return self.recipe / "in_context.json"

    @property
    def clip(self) -> Path:
        """The folder of the tiny CLIP."""
        return self.model(CLIP)

    def model(self, name: str) -> Path:
        """Return the folder in which a model is saved."""
        return self.root / "artifacts" / "house_words" / name

    def log(self, name: str) -> Path:
        """Return the log of a model's training, JSON lines."""
        return self.recipe / "logs" / f"{name}.jsonl"


def read_recipe(path: Path) -> RecipeParams:
    """Read the recipe's settings; UserError if they are missing or wrong."""
    return checked(RecipeParams, read_yaml(path, ADVICE), str(path), ADVICE)
