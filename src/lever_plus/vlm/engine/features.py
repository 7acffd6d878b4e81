"""Features: what a VLM gives its language model for each token of a stretch of a prompt."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class NotSeparableError(Exception):
    """Prompts of this model are not the concatenation of their turns; the message says why."""


class Features(NamedTuple):
    """What a VLM gives its language model: [length, ...] for one stretch, [n, length, ...] for n.

    ids: int, token ids of the processor; embeds: embeddings [..., width], with those of images
    merged in; positions: int [..., axes], beginning at 0; types: kinds of tokens (text, image) that
    the processor returns, from which masks of images are made; extra: any other tensors with a
    value for each token, by their argument names in the language model; packed: {name in `extra`:
    name of a mask} for arguments that the language model takes for image tokens alone, as a list of
    tensors. In `extra` they are one tensor for all tokens, 0 outside the mask.
    """

    ids: Tensor
    embeds: Tensor
    positions: Tensor
    types: dict[str, Tensor]
    extra: dict[str, Tensor]
    packed: dict[str, str]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Features":
        """Return these features with the same change made to each tensor."""
        return Features(
            change(self.ids),
            change(self.embeds),
            change(self.positions),
            {name: change(value) for name, value in self.types.items()},
            {name: change(value) for name, value in self.extra.items()},
            self.packed,
        )

    def cut(self, start: int, stop: int) -> "Features":
        """Return the tokens from `start` up to `stop` of one stretch, with positions from 0."""
        part = self.each(lambda values: values[start:stop].clone())
        first = part.positions.amin() if start < stop else 0
        return part._replace(positions=part.positions - first)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by unique names."""
        return {
            "ids": self.ids,
            "embeds": self.embeds,
            "positions": self.positions,
            **{f"types {name}": value for name, value in self.types.items()},
            **{f"extra {name}": value for name, value in self.extra.items()},
        }

    @property
    def kind(self) -> tuple[Any, ...]:
        """What all stretches of one model must agree in: names, types and widths."""
        widths = {name: (v.dtype, v.shape[1:]) for name, v in self.tensors().items()}
        return widths, self.packed

    @property
    def size(self) -> int:
        """Size of all tensors in bytes."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values())


def features_of(tensors: dict[str, Tensor], packed: dict[str, str]) -> Features:
    """Return the features that have these tensors, the inverse of `Features.tensors`.

    Raises:
        KeyError: Ids, embeddings or positions are missing.
    """
    kinds: dict[str, dict[str, Tensor]] = {"types": {}, "extra": {}}
    for name, value in tensors.items():
        kind, _, inner = name.partition(" ")
        if inner:
            kinds[kind][inner] = value
    ids, embeds, positions = (tensors[name] for name in ("ids", "embeds", "positions"))
    return Features(ids, embeds, positions, **kinds, packed=packed)


def padded(parts: Sequence[Features]) -> Features:
    """Stack n stretches into [n, longest, ...], padded on the right with zeros."""
    columns = [part.tensors() for part in parts]
    stacked = {
        name: pad_sequence([column[name] for column in columns], batch_first=True)
        for name in columns[0]
    }
    return features_of(stacked, parts[0].packed)
