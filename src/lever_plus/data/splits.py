"""Splits by image: sampling, holding out, and the check that no split leaks into another."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from lever_plus.data.examples import Example
from lever_plus.errors import UserError

LEAKS: Final = {
    "question_id": "Give every question its own id, unique over all files",
    "image_id": "Split by image, so that no answer leaks",
}
"""What two splits must not share, and what to do if they do."""


def sample(
    examples: Sequence[Example], count: int | None, rng: np.random.Generator
) -> list[Example]:
    """Draw examples at random, without repeats, in random order; None keeps all, in their order.

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
        What stays, and exactly `count` examples that are held out. Further questions about the last
        image held out are in neither.

    Raises:
        UserError: Nothing would stay.
    """
    if count >= len(examples):
        raise UserError(
            f"{count} questions cannot be held out of {len(examples)}: lower "
            "data.source.dev.held_out."
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
        raise UserError(
            "holding dev out by image leaves no training question: lower data.source.dev.held_out."
        )
    return kept, out[:count]


def without_images_of(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """Return the examples whose image none of `others` shows."""
    images = {other.image_id for other in others}
    return [example for example in examples if example.image_id not in images]


def check_leakage(splits: Mapping[str, Sequence[Example]]) -> None:
    """Refuse splits that share a question id or an image id.

    Raises:
        UserError: Two splits share ids; the smallest one is named.
    """
    for first, second in combinations(splits, 2):
        for field, advice in LEAKS.items():
            shared = {getattr(e, field) for e in splits[first]} & {
                getattr(e, field) for e in splits[second]
            }
            if shared:
                raise UserError(
                    f"{len(shared)} {field}s occur in both {first} and {second} "
                    f"(first: {min(shared)}). {advice}."
                )
