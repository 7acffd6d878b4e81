"""Stage prepare: question files -> checked examples of every split."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np

from lever_plus.config.base import Count, Section
from lever_plus.config.data import EmbeddedSource, HeldOut, VqaFilesSource, VqaSplit
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import SPLITS, Example, write_examples
from lever_plus.data.image_ids import with_image_ids
from lever_plus.data.near_duplicates import near_duplicates
from lever_plus.data.splits import check_leakage, hold_out, sample, without_images_of
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.errors import UserError
from lever_plus.house_words.maker import HUMANS, IMAGE_NAME, make_embedded
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.texts import reader_of

Splits = dict[str, list[Example]]


class Settings(Section):
    """What the stage reads of params.yaml."""

    seed: int
    source: Annotated[EmbeddedSource | VqaFilesSource, From("data.source")]
    rl_queries: Annotated[Count, From("data.rl_queries")]
    near_duplicate_bits: Annotated[int | None, From("data.near_duplicate_bits")]
    vlm: Annotated[VlmParams, From("vlm", free=True)]


def run(settings: Settings, paths: Paths) -> Outcome:
    """Read the splits, check them for leaks, and write them as examples."""
    source = settings.source
    reader = reader_of(settings.vlm)
    reader.check(())  # the instruction, before anything is read or made
    for folder in (paths.prepare, paths.images):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if isinstance(source, EmbeddedSource):
        read = _embedded(source, settings.seed, paths)
    else:
        read = _files(source, settings.seed, paths.root)
    check_leakage(read)
    reader.check(example for examples in read.values() for example in examples)
    if len(read["train"]) < settings.rl_queries:
        raise UserError(
            f"data.rl_queries is {settings.rl_queries}, but training has {len(read['train'])} "
            "questions: lower it, or raise data.source.train.sample."
        )
    splits = {split: with_image_hashes(examples) for split, examples in read.items()}
    for split, examples in splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", examples, paths.root)
    found = _report_near_duplicates(splits, settings.near_duplicate_bits, paths.prepare)
    sizes = {split: len(examples) for split, examples in splits.items()}
    write_metrics(paths.metrics / "prepare.json", {**sizes, **found})
    listed = ", ".join(f"{size} {split}" for split, size in sizes.items())
    pairs = "; ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.items())
    return Outcome(
        f"{listed} examples in {paths.prepare}, no image in two splits"
        + (f"; {pairs}" if pairs else "")
        + (f"; texts checked{reader.limits}" if reader.limits else "")
    )


def _embedded(source: EmbeddedSource, seed: int, paths: Paths) -> Splits:
    """Make the embedded data set's files, and read them back as any VQAv2 files."""
    sizes = {"train": source.train, "dev": source.dev, "test": source.test}
    make_embedded(paths.source, paths.images, sizes, source.plain_share, source.image_size, seed)
    return {
        split: read_vqa_files(
            paths.source / f"questions_{split}.json",
            paths.source / f"annotations_{split}.json",
            paths.images / split,
            IMAGE_NAME,
            answers_per_question=HUMANS,
        )
        for split in SPLITS
    }


def _files(source: VqaFilesSource, seed: int, project: Path) -> Splits:
    """Read the user's files; nothing of dev's and test's images stays in training."""
    rng = np.random.default_rng([seed, 1])
    read = {"test": _read(source, source.test, rng, project)}
    read["train"] = _read(source, source.train, None, project)
    if not isinstance(source.dev, HeldOut):
        read["dev"] = _read(source, source.dev, rng, project)
    read = with_image_ids(read)
    test, train = read["test"], read["train"]
    if isinstance(source.dev, HeldOut):
        train, dev = hold_out(without_images_of(train, test), source.dev.held_out, rng)
    else:
        dev = read["dev"]
        train = without_images_of(train, [*dev, *test])
    return {"train": sample(train, source.train.sample, rng), "dev": dev, "test": test}


def _read(
    source: VqaFilesSource, split: VqaSplit, rng: np.random.Generator | None, project: Path
) -> list[Example]:
    root = project / source.root
    examples = read_vqa_files(
        root / split.questions,
        root / split.annotations,
        root / split.images,
        split.image_name,
        answers_per_question=source.answers_per_question,
        allow_fallback=source.allow_fallback,
    )
    return examples if rng is None else sample(examples, split.sample, rng)


def _report_near_duplicates(splits: Splits, bits: int | None, folder: Path) -> dict[str, int]:
    """Write the pairs of near-duplicate images between splits; return how many there are."""
    if bits is None:
        return {}
    pairs = near_duplicates(splits, bits)
    lines = [json.dumps(pair._asdict(), sort_keys=True) + "\n" for pair in pairs]
    path = folder / "near_duplicates.jsonl"
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return {"near_duplicate_images": len(pairs)}
