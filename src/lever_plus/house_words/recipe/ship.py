"""The last step of the recipe: copies the models into the package."""

import shutil
from collections.abc import Sequence

from lever_plus.config.house_words import CLIP, RecipeParams
from lever_plus.errors import UserError
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words.recipe.places import Places
from lever_plus.hub.folder import MODELS, check_folder


def run(params: RecipeParams, places: Places) -> str:
    """Copy all models into the package, or none; return a sentence that says their size.

    Raises:
        UserError: A model is missing or damaged.
    """
    names = (CLIP, *params.vlms)
    check_made(names, places)
    with replacing_folders([MODELS / name for name in names]) as folders:
        for name, folder in zip(names, folders, strict=True):
            shutil.copytree(places.model(name), folder, dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    return f"{', '.join(names)} are in {MODELS}, {size / 2**20:.1f} MB"


def check_made(names: Sequence[str], places: Places) -> None:
    """Raise UserError if a model that the recipe makes is missing or damaged."""
    for name in names:
        if not (places.model(name) / "config.json").is_file():
            raise UserError(f"{places.model(name)} is missing: run `make world`.")
        check_folder(places.model(name), weights=True)
