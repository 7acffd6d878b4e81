"""Splits by image: what is held out, and the guard against leaks between training and test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count

import numpy as np

from lever_plus.data.examples import Example
from lever_plus.data.images import image_sha256
from lever_plus.errors import UserError


def sample(
    examples: Sequence[Example], count: int | None, rng: np.random.Generator
) -> list[Example]:
    """Draw examples at random, without repeats, in random order; None keeps all as they are.

    Raises:
        UserError: There are fewer than `count`.
    """
    if count is None:
        return list(examples)
    if count > len(examples):
        raise UserError(
            f"a sample of {count} questions was asked for, but the files have {len(examples)}: "
            "lower `sample` in data.source, or set it to null."
        )
    return [examples[i] for i in rng.choice(len(examples), size=count, replace=False)]


def hold_out(
    examples: Sequence[Example], count: int, rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Split off about `count` examples, whole images at a time.

    Returns:
        What stays, and what was held out (exactly `count`; further questions about the last image
        are in neither).

    Raises:
        UserError: Nothing would stay.
    """
    if count >= len(examples):
        raise UserError(
            f"{count} questions cannot be held out of {len(examples)}: lower data.source.dev."
        )
    by_image: dict[int, list[Example]] = {}
    for example in examples:
        by_image.setdefault(example.image_id, []).append(example)
    images, out = list(by_image), list[Example]()
    for i in rng.permutation(len(images)):
        if len(out) >= count:
            break
        out += by_image.pop(images[i])
    kept = [example for rows in by_image.values() for example in rows]
    if not kept:
        raise UserError("holding dev out by image leaves no training question: lower its size.")
    return kept, out[:count]


def with_own_images(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """Return examples whose image ids are no other example's unless they show the same picture.

    Numbers may start again in every split. What shares its number with another file of other bytes
    gets the smallest one that is free; so an id means one picture.
    """
    taken = {other.image_id: other.image for other in others}
    used = taken.keys() | {example.image_id for example in examples}
    free = (number for number in count(1) if number not in used)
    fresh: dict[int, int] = {}
    for example in examples:
        known = taken.get(example.image_id, example.image)
        if example.image_id not in fresh and known != example.image:
            same = image_sha256(known) == image_sha256(example.image)
            fresh[example.image_id] = example.image_id if same else next(free)
    return [replace(e, image_id=fresh.get(e.image_id, e.image_id)) for e in examples]


def without_images_of(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """Return the examples whose image no other example shows."""
    images = {other.image_id for other in others}
    return [example for example in examples if example.image_id not in images]


def check_leakage(splits: Mapping[str, Sequence[Example]]) -> None:
    """Refuse splits that share a question id or an image id.

    Raises:
        UserError: Two splits share ids; the first of them is named.
    """
    for first, second in combinations(splits, 2):
        for field in ("question_id", "image_id"):
            shared = {getattr(e, field) for e in splits[first]} & {
                getattr(e, field) for e in splits[second]
            }
            if shared:
                raise UserError(
                    f"{len(shared)} {field}s occur in both {first} and {second} "
                    f"(first: {min(shared)}). Split by image, so that no answer leaks."
                )
