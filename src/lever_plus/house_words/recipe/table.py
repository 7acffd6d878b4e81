"""Stage table of the recipe: the in-context table of the VLMs."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from lever_plus.config.house_words import RecipeParams
from lever_plus.data.examples import Example
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.files.writing import write_json
from lever_plus.house_words.maker import IMAGE_NAME, make_embedded, read_meanings
from lever_plus.house_words.probe import in_context_table
from lever_plus.house_words.recipe.places import Places
from lever_plus.vlm.open import open_vlm

ASKED: Final = "dev"
SHOWN: Final = "train"
SIZES: Final = {SHOWN: 1000, ASKED: 400}
PLAIN_SHARE: Final = 0.5
"""With this share all kinds of questions are equally frequent."""


def run(params: RecipeParams, places: Places) -> str:
    """Ask each saved VLM, write the table to its file, and return it as text."""
    with TemporaryDirectory() as folder:
        splits = _make(Path(folder), params)
        meanings = read_meanings(Path(folder))
        shares = {
            name: in_context_table(
                open_vlm(places.model(name), max_new_tokens=1, workers=params.threads),
                splits[ASKED],
                splits[SHOWN],
                meanings,
                params.probes,
                params.seed,
            )
            for name in params.vlms
        }
    write_json(places.table, shares)
    lines = [
        f"  {rule:<22} " + "  ".join(f"{shares[name][rule]:6.1%}" for name in shares)
        for rule in next(iter(shares.values()))
    ]
    return f"share of right answers of {', '.join(shares)}:\n" + "\n".join(lines)


def _make(folder: Path, params: RecipeParams) -> dict[str, list[Example]]:
    """Make demonstrations, and questions about scans that no model was trained on."""
    make_embedded(folder, folder / "images", SIZES, PLAIN_SHARE, params.image_size, params.seed)
    return {
        split: with_image_hashes(
            read_vqa_files(
                folder / f"questions_{split}.json",
                folder / f"annotations_{split}.json",
                folder / "images" / split,
                IMAGE_NAME,
            )
        )
        for split in SIZES
    }
