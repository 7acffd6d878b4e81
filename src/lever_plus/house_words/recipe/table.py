"""Stage table of the recipe: what the VLMs that were made read from demonstrations."""

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
"""As many questions of every kind: in house words, in plain words, and half of each."""


def run(params: RecipeParams, places: Places) -> str:
    """Ask every VLM, as it was saved; write the table and return it for people."""
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
    """Make questions about scans that no model was trained on, and demonstrations."""
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
