"""The decoder of Llama-like text models, run on top of key-value caches that many rows share.

It computes what `LlamaModel.forward` computes, with the model's own modules, but leaves out what
nobody reads: the last layer of a prefix yields keys and values alone, and that of a query turn only
the states at the positions that predict something. `PrefixEngine` checks at start that its results
equal the model's own, so an architecture with other layers is noticed and not used.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEEDED = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
NEEDED_OF_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Key-value caches of n prefixes.

    Attributes:
        layers: (keys, values) per layer, each [n, heads, length, head width].
        mask: Bool [n, length], True for real tokens.
        lengths: Int [n], number of real tokens.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor
    lengths: Tensor


class Decoder:
    """Runs segments of embeddings on top of cached prefixes."""

    def __init__(self, text_model: Any) -> None:
        """Keep the text model.

        Raises:
            ValueError: Its layers are not those of a Llama-like model; the message says why.
        """
        self._layers = list(getattr(text_model, "layers", []))
        if not self._layers or not hasattr(text_model, "rotary_emb"):
            raise ValueError(f"{type(text_model).__name__} has no rotary decoder layers")
        for layer in self._layers:
            owners = [(layer, NEEDED), (getattr(layer, "self_attn", None), NEEDED_OF_ATTENTION)]
            lacking = [n for owner, names in owners for n in names if not hasattr(owner, n)]
            if lacking:
                raise ValueError(f"{type(layer).__name__} has no {lacking[0]}")
        config = text_model.config
        windowed = getattr(config, "use_sliding_window", True)
        if windowed and getattr(config, "sliding_window", None):
            raise ValueError(f"{type(text_model).__name__} attends within a sliding window")
        self._norm, self._rotary = text_model.norm, text_model.rotary_emb

    def empty(self, like: Tensor) -> PrefixCache:
        """Return the cache of one empty prefix."""
        attention = self._layers[0].self_attn
        heads = attention.k_proj.out_features // attention.head_dim
        none = like.new_zeros(1, heads, 0, attention.head_dim)
        length = torch.zeros(1, dtype=torch.long, device=like.device)
        mask = torch.zeros(1, 0, dtype=torch.bool, device=like.device)
        return PrefixCache(((none, none),) * len(self._layers), mask, length)

    def run(
        self,
        past: PrefixCache,
        rows: Tensor,
        embeds: Tensor,
        lengths: Tensor,
        at: Tensor | None = None,
    ) -> tuple[Tensor, PrefixCache]:
        """Run n segments on top of the past caches of `rows`.

        Args:
            past: Caches of earlier segments.
            rows: Int [n], the past of each segment.
            embeds: Input embeddings [n, length, width], padded on the right.
            lengths: Int [n], real tokens of each segment.
            at: Positions [n, m] whose final hidden states are wanted; None for none.

        Returns:
            Normalised hidden states [n, m, width] (m = 0 without `at`), and the longer caches.
        """
        places = torch.arange(embeds.shape[1], device=embeds.device)
        taken = _contiguous(rows)
        offset, seen = past.lengths[taken], past.mask[taken]
        mask = torch.cat([seen, places < lengths[:, None]], dim=1)
        bias = _bias(seen, places, embeds.dtype)
        rotary = self._rotary(embeds, position_ids=offset[:, None] + places)
        hidden, layers = embeds, []
        for number, layer in enumerate(self._layers):
            last = number + 1 == len(self._layers)
            states = layer.input_layernorm(hidden)
            cached = _extend(layer.self_attn, states, rotary, past.layers[number], taken)
            layers.append(cached)
            if last and at is None:
                hidden = hidden[:, :0]
            elif last and at is not None:
                parts = (states, hidden, *rotary)
                states, hidden, *ends = (_pick(part, at) for part in parts)
                hidden = _block(layer, states, hidden, ends, cached, _pick(bias[:, 0], at)[:, None])
            else:
                hidden = _block(layer, states, hidden, rotary, cached, bias)
        cache = PrefixCache(tuple(layers), mask, offset + lengths)
        final: Tensor = self._norm(hidden)
        return final, cache


def _contiguous(rows: Tensor) -> Tensor | slice:
    """Return rows as a slice where they are consecutive: a view instead of a copy."""
    first, count = int(rows[0]), len(rows)
    consecutive = torch.arange(first, first + count, device=rows.device)
    return slice(first, first + count) if torch.equal(rows, consecutive) else rows


def _bias(past: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: 0 where position i may see j, else -inf.

    Shape [n, 1, length, past length + length]. Padding stands at the right of every segment, so
    that among the new tokens it is enough to look backwards.
    """
    length = len(places)
    backwards = (places[:, None] >= places).expand(len(past), length, length)
    seen = torch.cat([past[:, None].expand(-1, length, -1), backwards], dim=-1)
    bias = torch.zeros(seen.shape, dtype=dtype, device=past.device)
    return bias.masked_fill_(~seen, -torch.inf)[:, None]


def _heads(states: Tensor, width: int) -> Tensor:
    """Return [n, heads, length, width] from [n, length, heads * width]."""
    heads: Tensor = states.unflatten(-1, (-1, width)).transpose(1, 2)
    return heads


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to [n, heads, length, width] (Su et al. 2021, arXiv 2104.09864)."""
    first, second = states.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return torch.addcmul(states * cos[:, None], turned, sin[:, None])


def _extend(
    attention: Any,
    states: Tensor,
    rotary: Any,
    past: tuple[Tensor, Tensor],
    rows: Tensor | slice,
) -> tuple[Tensor, Tensor]:
    """Return the keys and values of a layer, those of the past rows included."""
    keys = _rotate(_heads(attention.k_proj(states), attention.head_dim), *rotary)
    values = _heads(attention.v_proj(states), attention.head_dim)
    return _append(past[0], rows, keys), _append(past[1], rows, values)


def _append(past: Tensor, rows: Tensor | slice, new: Tensor) -> Tensor:
    return torch.cat([past[rows], new], dim=2) if past.shape[2] else new


def _block(
    layer: Any,
    states: Tensor,
    hidden: Tensor,
    rotary: Any,
    cached: tuple[Tensor, Tensor],
    bias: Tensor,
) -> Tensor:
    """Return the hidden states after a decoder layer, from its normalised input `states`."""
    attention = layer.self_attn
    queries = _rotate(_heads(attention.q_proj(states), attention.head_dim), *rotary)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        queries,
        *cached,
        attn_mask=bias,
        scale=attention.scaling,
        enable_gqa=queries.shape[1] != cached[0].shape[1],
    )
    hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    after: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return after


def _pick(values: Tensor, at: Tensor) -> Tensor:
    """Return values [n, m, width] at positions [n, m] of values [n, length, width]."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))
