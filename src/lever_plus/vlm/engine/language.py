"""The language model inside a VLM, called through the VLM's own forward pass.

A turn is captured on its way into the language model, with everything that the model gives it
beside embeddings: positions in three dimensions, kinds of tokens, features for single layers. It is
run later on top of any prefix, with the library's own cache, and without pixels. So every family
makes its masks, merges its images and caps its logits in its own way.
"""

import inspect
import threading
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lever_plus.hub.processing import on_device
from lever_plus.vlm.engine.caches import LastLayerError, Layers, Prefixes, moved_right
from lever_plus.vlm.engine.features import Features, NotSeparableError

OURS: Final = (
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids"),
    *("past_key_values", "use_cache", "cache_position"),
)
"""What a pass is given anew, so that it is not kept of a capture."""


class _CapturedError(Exception):
    """Ends a pass where the language model would begin."""


class _Call(threading.local):
    """What the pass of one thread is for; chunks run side by side on one model.

    captures: whether to stop at the language model; captured: what it would have been given;
    extra: what it is given beside what the VLM gives it; at: the positions [n, m] of its logits.
    """

    captures: bool = False
    captured: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    at: Tensor | None = None


class LanguageModel:
    """Captures what the language model of a VLM is given, and runs it on that."""

    def __init__(self, model: Any) -> None:
        """Hook into the model, until `close`; its own calls stay as they are.

        Raises:
            ValueError: Its layers keep what prefixes cannot share.
        """
        self.model, self._inner = model, model.model
        self._layers = Layers(model.get_decoder())
        self._names = frozenset(inspect.signature(self._inner.forward).parameters)
        self._call = _Call()
        self._hooks = (
            model.get_decoder().register_forward_pre_hook(self._at_start, with_kwargs=True),
            model.get_output_embeddings().register_forward_pre_hook(self._at_head),
        )

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    @property
    def window(self) -> int | None:
        """The longest window that some layer attends within; None where none does."""
        return self._layers.window

    @property
    def unpadded(self) -> bool:
        """Whether only stretches of equal length may be run together: padding enters a state."""
        return self._layers.has_states

    @property
    def root(self) -> Prefixes:
        """One empty prefix."""
        return self._layers.root(self.model.device)

    def _at_start(
        self, _module: Any, arguments: Any, options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """Stop at the language model, or add to what it is given."""
        if self._call.captures:
            self._call.captured = options
            raise _CapturedError
        return (arguments, {**options, **self._call.extra}) if self._call.extra else None

    def _at_head(self, _module: Any, arguments: tuple[Tensor]) -> tuple[Tensor] | None:
        """Leave out the positions whose logits nobody reads."""
        at = self._call.at
        return None if at is None else (_picked(arguments[0], at),)

    @torch.inference_mode()
    def capture(self, inputs: Mapping[str, Tensor]) -> list[Features]:
        """Return the features of n prompts, without their padding; may run in several threads.

        Args:
            inputs: Of the processor, padded on the right.

        Raises:
            NotSeparableError: The language model is given what belongs to no token.
        """
        inputs = on_device(self.model, inputs)
        call, shape = self._call, inputs["input_ids"].shape
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
        rest = {k: v for k, v in given.items() if k not in OURS}
        extra = {k: v for k, v in rest.items() if _belongs_to_tokens(v, shape)}
        packed = {}
        for name, parts in rest.items():
            if isinstance(parts, list | tuple) and parts and isinstance(parts[0], Tensor):
                packed[name], extra[name] = _unpacked(name, parts, extra)
        if odd := [k for k, v in rest.items() if isinstance(v, Tensor) and k not in extra]:
            raise NotSeparableError(
                f"its language model is given {odd[0]}, which belongs to no token"
            )
        positions = _positions(given.get("position_ids"), inputs["input_ids"])
        types = {k: v for k, v in inputs.items() if v.shape == shape and k not in OURS}
        ids, embeds = inputs["input_ids"], given["inputs_embeds"]
        whole = Features(ids, embeds, positions, types, extra, packed)
        lengths = inputs["attention_mask"].sum(-1).tolist()
        return [
            whole.each(lambda values, i=i: values[i]).cut(0, length)  # type: ignore[misc]
            for i, length in enumerate(lengths)
        ]

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
            rows: Int [n], the prefix of each stretch.
            features: Of n stretches, padded on the right.
            lengths: Int [n], real tokens of each stretch; equal where `unpadded`.
            at: Positions [n, m] whose logits are wanted; None for none.

        Returns:
            Logits [n, m, vocabulary] (m = 0 without `at`), and the longer prefixes.
        """
        taken = _contiguous(rows)
        real = torch.arange(features.embeds.shape[1], device=lengths.device) < lengths[:, None]
        start, before = past.after[taken], past.mask[taken]
        mask = torch.cat([before, real], dim=1)
        types = {
            # Masks of image blocks are made from the start of the prompt.
            name: torch.cat([past.types[name][taken], value], dim=1) if past.types else value
            for name, value in features.types.items()
        }
        extra = _packed(features)
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
        """Append one generated token (int [n]) to every prefix.

        Returns:
            The logits [n, vocabulary] of the tokens after it, and the longer prefixes.
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
        """Call the model, without its head where no logits are wanted."""
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


def _positions(given: Tensor | None, ids: Tensor) -> Tensor:
    """Return positions [n, length, axes] from those that a language model is given, if any."""
    if given is None:
        given = torch.arange(ids.shape[1], device=ids.device)[None]
    axes = given.reshape(-1, *given.shape[-2:])
    return axes.expand(-1, len(ids), -1).movedim(0, -1)


def _axes(positions: Tensor) -> Tensor:
    """Return positions [n, length, axes] as a model takes them: several axes come first."""
    return positions.movedim(-1, 0) if positions.shape[-1] > 1 else positions[..., 0]


def _belongs_to_tokens(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape[:2] == shape


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


def _packed(features: Features) -> dict[str, Any]:
    """Return the extra features as the language model takes them."""
    extra: dict[str, Any] = dict(features.extra)
    for name, mask in features.packed.items():
        extra[name] = list(features.extra[name][features.extra[mask]].unbind(1))
    return extra


def _contiguous(rows: Tensor) -> Tensor | slice:
    """Return rows as a slice where they are consecutive: a view instead of a copy."""
    first, count = int(rows[0]), len(rows)
    consecutive = torch.arange(first, first + count, device=rows.device)
    return slice(first, first + count) if torch.equal(rows, consecutive) else rows


def _picked(values: Tensor, at: Tensor) -> Tensor:
    """Return values [n, m, width] at positions [n, m] of values [n, length, width]."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))
