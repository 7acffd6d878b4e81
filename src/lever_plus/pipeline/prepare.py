"""Stage prepare: question files -> checked examples of every split."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np

from lever_plus.config.base import Count, Section
from lever_plus.config.data import EmbeddedSource, HeldOut, VqaFilesSource, VqaSplit
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import SPLITS, Example, relative_image, write_examples
from lever_plus.data.image_ids import with_image_ids
from lever_plus.data.near_duplicates import near_duplicates
from lever_plus.data.splits import (
    check_leakage,
    hold_out,
    sample,
    without_images_of,
)
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.errors import UserError
from lever_plus.files.reading import found_in, own_root
from lever_plus.files.writing import replacing_folders, write_json_lines
from lever_plus.house_words.maker import HUMANS, IMAGE_NAME, make_embedded
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.texts import reader_of

Splits = dict[str, list[Example]]


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    seed: int
    source: Annotated[EmbeddedSource | VqaFilesSource, From("data.source")]
    rl_queries: Annotated[Count, From("data.rl_queries")]
    near_duplicate_bits: Annotated[int | None, From("data.near_duplicate_bits")]
    vlm: Annotated[VlmParams, From("vlm", free=True)]
    pool_size: Annotated[int, From("pool.size", free=True)]
    instructions: Annotated[list[str], From("evaluate.instructions", free=True)]


def run(settings: Settings, paths: Paths) -> Outcome:
    """Read the splits, check them for leakage, and write them as examples."""
    source, roots, left_out = settings.source, [paths.root], 0
    reader = reader_of(settings.vlm)
    reader.check(())  # checks the instruction, before any data are read or made
    reader.check_instructions(settings.instructions)
    with replacing_folders([paths.prepare, paths.images]) as (folder, images):
        made = replace(paths, moved={**paths.moved, "prepare": folder, "images": images})
        if isinstance(source, EmbeddedSource):
            read = _embedded(source, settings.seed, made)
        else:
            read, left_out = _files(source, settings.seed, paths)
            own = own_root()
            if own is not None and not Path(source.root).is_absolute():
                roots.append(own)
        check_leakage(read)
        reader.check(example for examples in read.values() for example in examples)
        _check_sizes(len(read["train"]), settings)
        splits = {split: with_image_hashes(examples) for split, examples in read.items()}
        sizes = {split: len(examples) for split, examples in splits.items()}
        bits = settings.near_duplicate_bits
        pairs = None if bits is None else near_duplicates(splits, bits)
        for split, examples in splits.items():
            placed = (replace(e, image=_placed(e.image, made, paths)) for e in examples)
            write_examples(folder / f"{split}.jsonl", placed, *roots)
        found = {}
        if pairs is not None:
            rows = [
                {
                    "first": relative_image(_placed(pair.first, made, paths), *roots),
                    "second": relative_image(_placed(pair.second, made, paths), *roots),
                    "bits": pair.bits,
                }
                for pair in pairs
            ]
            write_json_lines(folder / "near_duplicates.jsonl", rows)
            found = {"near_duplicate_images": len(pairs)}
    write_metrics(paths.metrics / "prepare.json", {**sizes, **found})
    listed = ", ".join(f"{size} {split}" for split, size in sizes.items())
    said = "; ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.items())
    return Outcome(
        f"{listed} examples in {paths.prepare}, no image in two splits"
        + (
            f"; {left_out} training questions left out, because dev or test has their images"
            if left_out
            else ""
        )
        + (f"; {said}" if said else "")
        + (f"; texts checked{reader.limits}" if reader.limits else "")
    )


def _check_sizes(train: int, settings: Settings) -> None:
    """Refuse settings that ask for more training questions than there are."""
    for name, count in (
        ("data.rl_queries", settings.rl_queries),
        ("pool.size", settings.pool_size),
    ):
        if train < count:
            raise UserError(
                f"{name} is {count}, but training has {train} questions: lower it, or raise "
                "data.source.train.sample."
            )


def _placed(image: str, made: Paths, paths: Paths) -> str:
    """Return where an image will be once the folders are in place.

    Images of the embedded data set are first made in a temporary folder.
    """
    path = Path(image)
    inside = path.is_relative_to(made.images)
    return str(paths.images / path.relative_to(made.images)) if inside else image


def _embedded(source: EmbeddedSource, seed: int, paths: Paths) -> Splits:
    """Make the files of the embedded data set, and read them like any other VQAv2 files."""
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


def _files(source: VqaFilesSource, seed: int, paths: Paths) -> tuple[Splits, int]:
    """Read the user's files; training questions about images of dev or test are left out.

    Returns:
        The splits, and how many training questions were left out.
    """
    rng = np.random.default_rng([seed, 1])
    read = {"test": _read(source, source.test, rng, paths)}
    read["train"] = _read(source, source.train, None, paths)
    if not isinstance(source.dev, HeldOut):
        read["dev"] = _read(source, source.dev, rng, paths)
    read = with_image_ids(read)
    test, train = read["test"], read["train"]
    whole = len(train)
    if isinstance(source.dev, HeldOut):
        train = without_images_of(train, test)
        left_out = whole - len(train)
        train, dev = hold_out(train, source.dev.held_out, rng)
    else:
        dev = read["dev"]
        train = without_images_of(train, [*dev, *test])
        left_out = whole - len(train)
    if not train:
        raise UserError(
            "every training question is about an image of dev or test: name other files in "
            "data.source.train."
        )
    train = sample(train, source.train.sample, rng)
    return {"train": train, "dev": dev, "test": test}, left_out


def _read(
    source: VqaFilesSource, split: VqaSplit, rng: np.random.Generator | None, paths: Paths
) -> list[Example]:
    root = Path(source.root)
    examples = read_vqa_files(
        found_in(paths.root, root / split.questions),
        found_in(paths.root, root / split.annotations),
        found_in(paths.root, root / split.images),
        split.image_name,
        answers_per_question=source.answers_per_question,
        allow_fallback=source.allow_fallback,
    )
    return examples if rng is None else sample(examples, split.sample, rng)
