"""Where the recipe reads and writes; recipes/house_words/dvc.yaml names the same places."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lever_plus.config.house_words import CLIP, RecipeParams
from lever_plus.files.checking import checked
from lever_plus.files.yaml_files import read_yaml

ADVICE: Final = "run from the project's root folder, or write it as the project has it"


@dataclass(frozen=True)
class Places:
    """The folders and files of the recipe, in the project's folder `root`.

    The models are made beside the package and put into it when all is done (`ship`): a pipeline
    whose output they were would run before every stage that depends on them.
    """

    root: Path = Path()

    @property
    def recipe(self) -> Path:
        """What is kept in git."""
        return self.root / "recipes" / "house_words"

    @property
    def params(self) -> Path:
        """The settings."""
        return self.recipe / "params.yaml"

    @property
    def table(self) -> Path:
        """What the VLMs read in context."""
        return self.recipe / "in_context.json"

    @property
    def clip(self) -> Path:
        """The tiny CLIP."""
        return self.model(CLIP)

    def model(self, name: str) -> Path:
        """Return the folder in which a model is made."""
        return self.root / "artifacts" / "house_words" / name

    def log(self, name: str) -> Path:
        """Return the log of a model's training, JSON lines."""
        return self.recipe / "logs" / f"{name}.jsonl"


def read_recipe(path: Path) -> RecipeParams:
    """Read the recipe's settings; UserError if they are missing, mistyped or cannot work."""
    return checked(RecipeParams, read_yaml(path, ADVICE), str(path), ADVICE)
