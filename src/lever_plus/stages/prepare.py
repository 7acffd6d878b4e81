"""Stage prepare: question files -> checked examples of every split."""

import shutil
from functools import partial

from lever_plus.data.embedded.maker import image_file, make_embedded
from lever_plus.data.examples import SPLITS, write_examples
from lever_plus.data.splits import check_leakage
from lever_plus.data.vqa_files import read_vqa_files
from lever_plus.params import Params
from lever_plus.stages import paths

ANSWERS = 10


def run(params: Params) -> str:
    """Make the embedded data set's files, read them back as any VQAv2 files, and check them."""
    settings = params.prepare
    for folder in (paths.PREPARE, paths.IMAGES):
        shutil.rmtree(folder, ignore_errors=True)
    make_embedded(
        paths.SOURCE,
        paths.IMAGES,
        sizes={"train": settings.train, "dev": settings.dev, "test": settings.test},
        plain_share=settings.plain_share,
        image_size=settings.image_size,
        seed=params.seed,
    )
    splits = {
        split: read_vqa_files(
            paths.SOURCE / f"questions_{split}.json",
            paths.SOURCE / f"annotations_{split}.json",
            partial(image_file, paths.IMAGES, split),
            ANSWERS,
        )
        for split in SPLITS
    }
    check_leakage(splits)
    for split, examples in splits.items():
        write_examples(paths.PREPARE / f"{split}.jsonl", examples)
    sizes = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items())
    return f"{sizes} examples in {paths.PREPARE}, no image in two splits"
