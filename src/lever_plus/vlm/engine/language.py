"""The language model inside a VLM, called through the VLM's own forward pass.

The inputs of the language model are captured: embeddings, and whatever else the VLM gives it, such
as three-dimensional positions, kinds of tokens, or features for single layers. Later they are run
on top of any prefix, with the library's own cache and without pixels. So the code of each model
family still makes its own masks, merges its own images and caps its own logits.
"""

import inspect
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lever_plus.hub.processing import on_device
from lever_plus.vlm.engine.caches import LastLayerError, Layers, Prefixes, moved_right
from lever_plus.vlm.engine.capture import as_given, captured
from lever_plus.vlm.engine.features import Features, NotSeparableError


class _CapturedError(Exception):
    """Ends a pass at the point where the language model would begin."""


class _Call(threading.local):
    """What the current pass of one thread is for; threads run passes on one model at once.

    captures: whether to stop at the language model; captured: the arguments that it would have got;
    extra: arguments that it gets besides those from the VLM; at: int [n, m], positions whose logits
    are wanted; length: number of tokens in a stretch whose last feed-forward part runs only at
    those positions.
    """

    captures: bool = False
    captured: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    at: Tensor | None = None
    length: int | None = None


class LanguageModel:
    """Captures the inputs of a VLM's language model, and runs it on captured inputs."""

    def __init__(self, model: Any) -> None:
        """Hook into the model until `close`; other calls of the model are not affected.

        Raises:
            ValueError: The model's layers cache something that cannot be shared.
        """
        self.model, self._inner = model, model.model
        self._layers = Layers(model.get_decoder())
        self._names = frozenset(inspect.signature(self._inner.forward).parameters)
        self._call = _Call()
        text = model.get_decoder()
        self._hooks = [
            text.register_forward_pre_hook(self._at_start, with_kwargs=True),
            model.get_output_embeddings().register_forward_pre_hook(self._at_head),
        ]
        if (last := _last_feed_forward(text)) is not None:
            self._hooks.append(last.register_forward_pre_hook(self._before_last))
            self._hooks.append(last.register_forward_hook(self._after_last))

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()

    @property
    def window(self) -> int | None:
        """The longest sliding window of any layer, in tokens; None if there is none."""
        return self._layers.window

    @property
    def unpadded(self) -> bool:
        """Whether only stretches of equal length may run together: padding would enter a state."""
        return self._layers.has_states

    @property
    def root(self) -> Prefixes:
        """One empty prefix."""
        return self._layers.root(self.model.device)

    def _at_start(
        self, _module: Any, arguments: Any, options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """Stop before the language model, or add to its arguments."""
        if self._call.captures:
            self._call.captured = options
            raise _CapturedError
        return (arguments, {**options, **self._call.extra}) if self._call.extra else None

    def _at_head(self, _module: Any, arguments: tuple[Tensor]) -> tuple[Tensor] | None:
        """Drop the positions whose logits are not wanted."""
        at = self._call.at
        return None if at is None else (_picked(arguments[0], at),)

    def _before_last(self, _module: Any, arguments: tuple[Any, ...]) -> tuple[Tensor] | None:
        """Drop the same positions in the last feed-forward part, as no other layer reads them."""
        call, at = self._call, self._call.at
        call.length = None
        if at is None or len(arguments) != 1 or arguments[0].ndim != 3:
            return None
        rows, length, _ = arguments[0].shape
        if rows != len(at) or length <= at.shape[1]:
            return None
        call.length = length
        return (_picked(arguments[0], at),)

    def _after_last(self, _module: Any, _arguments: Any, output: Any) -> Any:
        """Put the results back to their positions; mixtures of experts return several values."""
        call, at = self._call, self._call.at
        if call.length is None or at is None:
            return None
        values, *more = output if isinstance(output, tuple) else (output,)
        index = at[..., None].expand(-1, -1, values.shape[-1])
        spread = values.new_zeros(len(at), call.length, values.shape[-1]).scatter(1, index, values)
        call.length = None
        return (spread, *more) if isinstance(output, tuple) else spread

    @torch.inference_mode()
    def capture(self, inputs: Mapping[str, Tensor]) -> list[Features]:
        """Return the features of n prompts, without their padding; several threads may call it.

        Args:
            inputs: Model inputs, as the processor makes them.

        Raises:
            NotSeparableError: The language model gets a tensor that does not belong to single
                tokens.
        """
        inputs = on_device(self.model, inputs)
        call = self._call
        call.captures = True
        try:
            self._inner(**inputs)
        except _CapturedError:
            given = call.captured
        else:
            raise NotSeparableError(
                f"{type(self.model).__name__} does not call its own language model"
            )
        finally:
            call.captures, call.captured = False, {}
        return captured(given, inputs)

    @torch.inference_mode()
    def run(
        self,
        past: Prefixes,
        rows: Tensor,
        features: Features,
        lengths: Tensor,
        at: Tensor | None = None,
    ) -> tuple[Tensor, Prefixes]:
        """Run n stretches on top of the past prefixes `rows`.

        Args:
            past: Earlier prefixes.
            rows: Int [n], for each stretch the row of its prefix in `past`.
            features: Features of the n stretches, padded on the right.
            lengths: Int [n], number of tokens of each stretch without padding; all equal if
                `unpadded`.
            at: Int [n, m], positions in the stretches whose logits are wanted; None for none.

        Returns:
            Logits [n, m, vocabulary] (empty without `at`), and the n longer prefixes.
        """
        taken = _contiguous(rows)
        real = torch.arange(features.embeds.shape[1], device=lengths.device) < lengths[:, None]
        start, before = past.after[taken], past.mask[taken]
        mask = torch.cat([before, real], dim=1)
        types = {
            # The model makes the masks of images from the whole prompt, not from the stretch.
            name: torch.cat([past.types[name][taken], value], dim=1) if past.types else value
            for name, value in features.types.items()
        }
        extra = as_given(features)
        logits, layers = self._forward(
            self._layers.taken(past, taken, to_the_end=at is not None),
            at,
            extra,
            inputs_embeds=features.embeds,
            attention_mask=mask.long(),
            position_ids=_axes(features.positions + start[:, None, None]),
            **types,
            **{name: value for name, value in extra.items() if name in self._names},
        )
        last = features.positions.amax(-1).masked_fill(~real, 0).amax(-1)
        ids = torch.cat([past.ids[taken], features.ids], dim=1)
        longer = Prefixes(layers, ids, mask, past.lengths[taken] + lengths, start + last + 1, types)
        if self.window is not None and not real.all():
            longer = moved_right(longer, (~real).sum(-1))
        return logits, longer

    @torch.inference_mode()
    def step(self, past: Prefixes, tokens: Tensor, axes: int) -> tuple[Tensor, Prefixes]:
        """Append one generated token to every prefix.

        Args:
            past: n prefixes.
            tokens: Int [n], the token of each prefix.
            axes: Number of axes of the model's positions.

        Returns:
            The logits [n, vocabulary] of the token after it, and the longer prefixes.
        """
        one = torch.ones_like(tokens)[:, None]
        mask = torch.cat([past.mask, one.bool()], dim=1)
        text = torch.zeros_like(one)
        types = {name: torch.cat([v, text.to(v.dtype)], 1) for name, v in past.types.items()}
        logits, layers = self._forward(
            self._layers.taken(past, slice(None), to_the_end=True),
            text,
            {},
            input_ids=tokens[:, None],
            attention_mask=mask.long(),
            position_ids=_axes(past.after[:, None, None].expand(-1, 1, axes)),
            **types,
        )
        ids = torch.cat([past.ids, tokens[:, None]], dim=1)
        longer = Prefixes(layers, ids, mask, past.lengths + 1, past.after + 1, types)
        return logits[:, 0], longer

    def _forward(
        self, cache: Any, at: Tensor | None, extra: Mapping[str, Any], **inputs: Any
    ) -> tuple[Tensor, list[Any]]:
        """Call the model, without its output head if no logits are wanted."""
        call, logits = self._call, torch.zeros(0)
        call.extra, call.at = extra, at
        try:
            model = self._inner if at is None else self.model
            output = model(past_key_values=cache, use_cache=True, **inputs)
            logits = logits if at is None else output.logits
        except LastLayerError:
            pass
        finally:
            call.extra, call.at = {}, None
        return logits, cache.layers


def _last_feed_forward(text_model: Any) -> Any:
    """Return the feed-forward part of the last layer; None unless it has its usual name, mlp."""
    layers = getattr(text_model, "layers", None)
    return getattr(layers[-1], "mlp", None) if layers else None


def _axes(positions: Tensor) -> Tensor:
    """Turn positions [n, length, axes] into [axes, n, length], or [n, length] for one axis."""
    return positions.movedim(-1, 0) if positions.shape[-1] > 1 else positions[..., 0]


def _contiguous(rows: Tensor) -> Tensor | slice:
    """Return rows as a slice if they are consecutive, which gives a view instead of a copy."""
    first, count = int(rows[0]), len(rows)
    consecutive = torch.arange(first, first + count, device=rows.device)
    return slice(first, first + count) if torch.equal(rows, consecutive) else rows


def _picked(values: Tensor, at: Tensor) -> Tensor:
    """Return values [n, m, width] at positions [n, m] of values [n, length, width]."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))
