"""What a language model is given for every token of a stretch of a prompt."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class NotSeparableError(Exception):
    """Prompts of this model are not the concatenation of their turns; the message says why."""


class Features(NamedTuple):
    """What a model gives its language model: [length, ...] for one stretch, [n, length, ...] for n.

    ids: int, of the processor; embeds: embeddings, images merged in; positions: int, a column for
    each axis, the stretch begins at 0; types: the processor's kinds of tokens, from which masks of
    image blocks are made; extra: whatever else belongs to a token, by the name that the language
    model calls it; packed: names of `extra` that the language model is given at image tokens alone,
    as a list of tensors (here they are side by side, and 0 at text), each with the name of the mask
    that says where.
    """

    ids: Tensor
    embeds: Tensor
    positions: Tensor
    types: dict[str, Tensor]
    extra: dict[str, Tensor]
    packed: dict[str, str]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Features":
        """Return these features with every tensor changed alike."""
        return Features(
            change(self.ids),
            change(self.embeds),
            change(self.positions),
            {name: change(value) for name, value in self.types.items()},
            {name: change(value) for name, value in self.extra.items()},
            self.packed,
        )

    def cut(self, start: int, stop: int) -> "Features":
        """Return the tokens from `start` to `stop` of one stretch, as a stretch of its own."""
        part = self.each(lambda values: values[start:stop].clone())
        first = part.positions.amin() if start < stop else 0
        return part._replace(positions=part.positions - first)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by a name of its own."""
        return {
            "ids": self.ids,
            "embeds": self.embeds,
            "positions": self.positions,
            **{f"types {name}": value for name, value in self.types.items()},
            **{f"extra {name}": value for name, value in self.extra.items()},
        }

    @property
    def kind(self) -> tuple[Any, ...]:
        """What stretches of one model have in common: names, types and widths."""
        widths = {name: (v.dtype, v.shape[1:]) for name, v in self.tensors().items()}
        return widths, self.packed

    @property
    def size(self) -> int:
        """Bytes."""
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
    """Return n stretches of one kind as one, [n, longest, ...], padded on the right with zeros."""
    columns = [part.tensors() for part in parts]
    stacked = {
        name: pad_sequence([column[name] for column in columns], batch_first=True)
        for name in columns[0]
    }
    return features_of(stacked, parts[0].packed)
