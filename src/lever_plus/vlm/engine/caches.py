"""Caches of prompt prefixes, for any kind of layers: their rows are taken, extended and joined.

A pass takes rows of earlier prefixes and makes longer ones. Attention layers keep every key and
value, even those outside a sliding window, which the model's own mask then hides. For layers with a
state (convolutions, linear attention) the library's own cache layers are used.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class LastLayerError(Exception):
    """Ends a pass early, once every layer has its keys and values, if only these are wanted."""


class SharedLayer(DynamicLayer):
    """Keys and values [n, heads, length, width] of a layer: earlier ones, and those of a pass."""

    def __init__(
        self,
        past: "SharedLayer | None" = None,
        rows: Tensor | slice = slice(None),
        ends_pass: bool = False,
    ) -> None:
        """Take the rows of `past` to extend; with `ends_pass`, end the pass once they are."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: Tensor | None
        self.values: Tensor | None
        self._past = None if past is None else past.kept
        self._rows, self._ends_pass = rows, ends_pass

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_options: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values [n, heads, m, width]; return all of them.

        Raises:
            LastLayerError: This was the last layer, and the pass was only for the cache.
        """
        if self._past is None:
            self.keys, self.values = key_states, value_states
        else:
            keys, values = self._past
            self.keys = torch.cat([keys[self._rows], key_states], dim=2)
            self.values = torch.cat([values[self._rows], value_states], dim=2)
            self._past = None
        if self._ends_pass:
            raise LastLayerError
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of positions kept now; before `update`, those of the past."""
        kept = self.kept or self._past
        return 0 if kept is None else int(kept[0].shape[2])

    @property
    def kept(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values, if there are any yet."""
        return None if self.keys is None or self.values is None else (self.keys, self.values)

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Keep these instead."""
        self.keys, self.values = keys, values


class Prefixes(NamedTuple):
    """The caches of n prefixes.

    layers: one cache layer per layer of the model, each with n rows; ids: int [n, slots], token
    ids; mask: bool [n, slots], True for real tokens, False for padding; lengths: int [n], number of
    tokens; after: int [n], position of the token that follows; types: kinds of tokens (text, image)
    by name, int [n, slots].
    """

    layers: list[Any]
    ids: Tensor
    mask: Tensor
    lengths: Tensor
    after: Tensor
    types: dict[str, Tensor]


class Layers:
    """The cache layers of a language model."""

    def __init__(self, text_model: Any) -> None:
        """Find out what the model's layers cache.

        Raises:
            ValueError: A layer caches something that cannot be shared; the message says what.
        """
        self._config = text_model.config
        kinds = getattr(self._config, "layer_types", None) or ()
        if "chunked_attention" in kinds:
            raise ValueError("its layers attend within chunks")
        layers = self._new()
        windows = [layer.sliding_window for layer in layers if type(layer) is _WINDOW]
        odd = [
            layer for layer in layers if not (_attends(layer) or _has_state(layer) or _empty(layer))
        ]
        if odd:
            raise ValueError(f"its layers keep what {type(odd[0]).__name__} keeps")
        self.window: int | None = max(windows, default=None)
        self.has_states = any(map(_has_state, layers))
        last = max((i for i, layer in enumerate(layers) if not _empty(layer)), default=-1)
        # If the last layer has a state, a pass runs to its end: no call tells that it is done.
        self._last = last if last >= 0 and _attends(layers[last]) else None

    def root(self, device: torch.device) -> Prefixes:
        """Return one empty prefix."""
        layers = [SharedLayer() if _attends(layer) else layer for layer in self._new()]
        none = torch.zeros(1, dtype=torch.long, device=device)
        ids = none[None, :0]
        return Prefixes(layers, ids, ids.bool(), none, none, {})

    def taken(self, past: Prefixes, rows: Tensor | slice, *, to_the_end: bool) -> Any:
        """Return a cache that extends `rows` of `past`; `past` itself does not change.

        With `to_the_end` the pass returns its results; else it ends with a `LastLayerError` once
        every layer has been extended.
        """
        cache = DynamicCache(config=self._config)
        numbers = torch.arange(len(past.mask), device=past.mask.device)[rows]
        cache.layers = [
            SharedLayer(layer, rows, not to_the_end and i == self._last)
            if isinstance(layer, SharedLayer)
            else _copied(layer, numbers)
            for i, layer in enumerate(past.layers)
        ]
        return cache

    def _new(self) -> list[Any]:
        layers: list[Any] = DynamicCache(config=self._config).layers
        if not layers:
            raise ValueError("its configuration does not say what its layers keep")
        return layers


_WINDOW = DynamicSlidingWindowLayer


def _attends(layer: Any) -> bool:
    return type(layer) in (DynamicLayer, _WINDOW)


def _has_state(layer: Any) -> bool:
    return hasattr(layer, "conv_states") and not isinstance(layer, DynamicLayer)


def _empty(layer: Any) -> bool:
    """Whether a layer caches nothing, because it reads the cache of another layer."""
    return not isinstance(layer, DynamicLayer) and not hasattr(layer, "conv_states")


def _copied(layer: Any, rows: Tensor) -> Any:
    """Return a copy of some rows of a library layer, as such layers are updated in place."""
    layer = copy.deepcopy(layer)
    if _has_state(layer):
        layer.reorder_cache(rows)
    return layer


def moved_right(prefixes: Prefixes, by: Tensor) -> Prefixes:
    """Move each row to the right by `by` slots (int [n]), its padding: now padding is on the left.

    Then tokens are as far apart in slots as in positions, which sliding windows need.
    """
    slots = torch.arange(prefixes.mask.shape[1], device=by.device) - by[:, None]
    source = slots.clamp(min=0)

    def move(values: Tensor) -> Tensor:
        return values.gather(1, source).masked_fill(slots < 0, 0)

    def move_cached(values: Tensor) -> Tensor:
        _, heads, _, width = values.shape
        return values.gather(2, source[:, None, :, None].expand(-1, heads, -1, width))

    for layer in prefixes.layers:
        if isinstance(layer, SharedLayer) and layer.kept is not None:
            keys, values = layer.kept
            layer.replace(move_cached(keys), move_cached(values))
    types = {name: move(value) for name, value in prefixes.types.items()}
    return prefixes._replace(ids=move(prefixes.ids), mask=move(prefixes.mask), types=types)


def joined(parts: Sequence[Prefixes]) -> Prefixes:
    """Return the prefixes of all parts, in order, padded on the left."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.mask.shape[1] for part in parts)

    def widened(part: Prefixes, values: Tensor) -> Tensor:
        return pad(values, (most - part.mask.shape[1], 0))

    layers = []
    for same in zip(*(part.layers for part in parts), strict=True):
        layer = same[0]
        if isinstance(layer, SharedLayer):
            kept = zip(*(other.kept for other in same), strict=True)
            layer.replace(
                *(
                    torch.cat([pad(v, (0, 0, most - v.shape[2], 0)) for v in values])
                    for values in kept
                )
            )
        elif _has_state(layer):
            layer.conv_states = _states([other.conv_states for other in same])
            layer.recurrent_states = _states([other.recurrent_states for other in same])
        layers.append(layer)
    return Prefixes(
        layers,
        torch.cat([widened(part, part.ids) for part in parts]),
        torch.cat([widened(part, part.mask) for part in parts]),
        torch.cat([part.lengths for part in parts]),
        torch.cat([part.after for part in parts]),
        {k: torch.cat([widened(part, part.types[k]) for part in parts]) for k in parts[0].types},
    )


def _states(parts: Sequence[dict[int, Tensor | None]]) -> dict[int, Tensor | None]:
    """Join the states of all parts, by number; some models have no state of a kind (None)."""
    return {
        number: None if first is None else torch.cat([part[number] for part in parts])  # type: ignore[misc]
        for number, first in parts[0].items()
    }
