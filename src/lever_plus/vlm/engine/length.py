"""How long a prompt may be: beyond its trained positions a model still answers, but nonsense."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lever_plus.data.texts import named
from lever_plus.errors import UserError
from lever_plus.vlm.request import Request


class TooLongError(UserError):
    """A prompt is longer than its VLM can read."""


def positions(model: Any) -> int | None:
    """Return how many positions a model's language model has; None if its config does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def check_lengths(requests: Sequence[Request], lengths: Tensor, most: int | None) -> None:
    """Refuse prompts that are too long.

    Args:
        requests: n requests.
        lengths: Int [n], number of tokens in each prompt.
        most: Largest number of tokens in a prompt; None for no limit.

    Raises:
        TooLongError: A prompt has more.
    """
    if most is None or int(lengths.max()) <= most:
        return
    longest = int(lengths.argmax())
    shown = len(requests[longest].demonstrations)
    raise TooLongError(
        f"{named(requests[longest].query)} after {shown} demonstrations has a prompt of "
        f"{int(lengths[longest])} tokens, but the VLM was made for {most}: use fewer shots, "
        "shorter texts or smaller images."
    )
