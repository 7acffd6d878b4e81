"""The leakage guard: no image and no question of dev or test may occur in training."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from lever_plus.data.examples import Example
from lever_plus.errors import UserError


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
