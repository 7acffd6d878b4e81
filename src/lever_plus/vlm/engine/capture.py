"""From what a model gives its language model, to the features of every token, and back."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lever_plus.vlm.engine.features import Features, NotSeparableError

OURS: Final = (
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids"),
    *("past_key_values", "use_cache", "cache_position"),
)
"""What a pass is given anew, so that it is not kept of a capture."""


def captured(given: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> list[Features]:
    """Return the features of n prompts, without their padding.

    Args:
        given: What the language model would be called with.
        inputs: Of the whole model, as the processor makes them.

    Raises:
        NotSeparableError: The language model is given what belongs to no token.
    """
    shape = inputs["input_ids"].shape
    rest = {k: v for k, v in given.items() if k not in OURS}
    extra = {k: v for k, v in rest.items() if _belongs_to_tokens(v, shape)}
    packed = {}
    for name, parts in rest.items():
        if isinstance(parts, list | tuple) and parts and isinstance(parts[0], Tensor):
            packed[name], extra[name] = _unpacked(name, parts, extra)
    for name, value in rest.items():
        if name not in extra and _holds_tensors(value):
            raise NotSeparableError(_no_token(name))
    positions = _positions(given.get("position_ids"), inputs["input_ids"])
    types = {k: v for k, v in inputs.items() if v.shape == shape and k not in OURS}
    ids, embeds = inputs["input_ids"], given["inputs_embeds"]
    whole = Features(ids, embeds, positions, types, extra, packed)
    return [
        whole.each(lambda values, i=i, at=at: values[i][at]).cut(0, len(at))  # type: ignore[misc]
        for i, at in enumerate(mask.nonzero()[:, 0] for mask in inputs["attention_mask"])
    ]


def as_given(features: Features) -> dict[str, Any]:
    """Return the extra features as the language model takes them."""
    extra: dict[str, Any] = dict(features.extra)
    for name, mask in features.packed.items():
        extra[name] = list(features.extra[name][features.extra[mask]].unbind(1))
    return extra


def _belongs_to_tokens(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape[:2] == shape


def _holds_tensors(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(part, Tensor) for part in parts)


def _unpacked(name: str, parts: Any, extra: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Return the mask of features [image tokens, width], and all of them a token of the prompts.

    They are [n, length, number of features, width] then, 0 where the mask is not.

    Raises:
        NotSeparableError: No mask has as many tokens.
    """
    for mask, value in extra.items():
        if value.dtype == torch.bool and all(len(part) == int(value.sum()) for part in parts):
            spread = parts[0].new_zeros(*value.shape, len(parts), parts[0].shape[-1])
            spread[value] = torch.stack(list(parts), dim=1)
            return mask, spread
    raise NotSeparableError(_no_token(name))


def _no_token(name: str) -> str:
    return f"its language model is given {name}, which belongs to no token"


def _positions(given: Tensor | None, ids: Tensor) -> Tensor:
    """Return positions [n, length, axes] from those that a language model is given, if any."""
    if given is None:
        given = torch.arange(ids.shape[1], device=ids.device)[None]
    axes = given.reshape(-1, *given.shape[-2:])
    return axes.expand(-1, len(ids), -1).movedim(0, -1)
