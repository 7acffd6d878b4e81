"""Turning the inputs of a VLM's language model into features of single tokens, and back."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lever_plus.vlm.engine.features import Features, NotSeparableError

OURS: Final = (
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids"),
    *("past_key_values", "use_cache", "cache_position"),
)
"""Arguments that are made for each pass, so that they are not kept from a capture."""


def captured(given: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> list[Features]:
    """Return the features of n prompts, without their padding.

    Args:
        given: Keyword arguments that the language model would be called with.
        inputs: Inputs of the whole model, as the processor makes them.

    Raises:
        NotSeparableError: The language model gets a tensor that does not belong to single tokens.
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
    """Return the extra features in the form in which the language model takes them."""
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
    """Return features of image tokens alone as features of all tokens, and the name of their mask.

    Args:
        name: Name of the argument.
        parts: Features [image tokens, width], several of them.
        extra: Arguments with a value for every token, masks among them.

    Returns:
        The name of the mask that says where the image tokens are, and the features
        [n, length, len(parts), width], 0 outside the mask.

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
    return f"its language model gets {name}, which does not belong to single tokens"


def _positions(given: Tensor | None, ids: Tensor) -> Tensor:
    """Return positions [n, length, axes]: those that a language model gets, else 0, 1, 2, ..."""
    if given is None:
        given = torch.arange(ids.shape[1], device=ids.device)[None]
    axes = given.reshape(-1, *given.shape[-2:])
    return axes.expand(-1, len(ids), -1).movedim(0, -1)
