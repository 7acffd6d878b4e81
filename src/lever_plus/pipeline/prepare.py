"""Stage prepare: question files -> checked examples of every split."""

import json
import shutil
from pathlib import Path

import numpy as np

from lever_plus.config.params import Params
from lever_plus.config.sources import EmbeddedSource, HeldOut, VqaFilesSource, VqaSplit
from lever_plus.data.examples import SPLITS, Example, write_examples
from lever_plus.data.near_duplicates import near_duplicates
from lever_plus.data.splits import check_leakage, hold_out, sample, without_images_of
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.errors import UserError
from lever_plus.house_words.maker import HUMANS, IMAGE_NAME, make_embedded
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics

Splits = dict[str, list[Example]]


def run(params: Params) -> Outcome:
    """Read the splits, check them for leaks, and write them as examples."""
    settings = params.data
    for folder in (paths.PREPARE, paths.IMAGES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    source = settings.source
    if isinstance(source, EmbeddedSource):
        read = _embedded(source, params.seed)
    else:
        read = _files(source, params.seed)
    check_leakage(read)
    if len(read["train"]) < settings.rl_queries:
        raise UserError(
            f"data.rl_queries is {settings.rl_queries}, but training has {len(read['train'])} "
            "questions: lower it, or raise data.source.train.sample."
        )
    splits = {split: with_image_hashes(examples) for split, examples in read.items()}
    for split, examples in splits.items():
        write_examples(paths.PREPARE / f"{split}.jsonl", examples)
    found = _report_near_duplicates(splits, settings.near_duplicate_bits)
    sizes = {split: len(examples) for split, examples in splits.items()}
    write_metrics(paths.METRICS / "prepare.json", {**sizes, **found})
    listed = ", ".join(f"{size} {split}" for split, size in sizes.items())
    pairs = "; ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.items())
    return Outcome(
        f"{listed} examples in {paths.PREPARE}, no image in two splits"
        + (f"; {pairs}" if pairs else "")
    )


def _embedded(source: EmbeddedSource, seed: int) -> Splits:
    """Make the embedded data set's files, and read them back as any VQAv2 files."""
    sizes = {"train": source.train, "dev": source.dev, "test": source.test}
    make_embedded(paths.SOURCE, paths.IMAGES, sizes, source.plain_share, source.image_size, seed)
    return {
        split: read_vqa_files(
            paths.SOURCE / f"questions_{split}.json",
            paths.SOURCE / f"annotations_{split}.json",
            paths.IMAGES / split,
            IMAGE_NAME,
            answers_per_question=HUMANS,
        )
        for split in SPLITS
    }


def _files(source: VqaFilesSource, seed: int) -> Splits:
    """Read the user's files; nothing of dev's and test's images stays in training."""
    rng = np.random.default_rng([seed, 1])
    test = _read(source, source.test, rng)
    train = _read(source, source.train, None)
    if isinstance(source.dev, HeldOut):
        train, dev = hold_out(without_images_of(train, test), source.dev.held_out, rng)
    else:
        dev = _read(source, source.dev, rng)
        train = without_images_of(train, [*dev, *test])
    return {"train": sample(train, source.train.sample, rng), "dev": dev, "test": test}


def _read(
    source: VqaFilesSource, split: VqaSplit, rng: np.random.Generator | None
) -> list[Example]:
    root = Path(source.root)
    examples = read_vqa_files(
        root / split.questions,
        root / split.annotations,
        root / split.images,
        split.image_name,
        answers_per_question=source.answers_per_question,
        allow_fallback=source.allow_fallback,
    )
    return examples if rng is None else sample(examples, split.sample, rng)


def _report_near_duplicates(splits: Splits, bits: int | None) -> dict[str, int]:
    """Write the pairs of near-duplicate images between splits; return how many there are."""
    if bits is None:
        return {}
    pairs = near_duplicates(splits, bits)
    lines = [json.dumps(pair._asdict(), sort_keys=True) + "\n" for pair in pairs]
    path = paths.PREPARE / "near_duplicates.jsonl"
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return {"near_duplicate_images": len(pairs)}
