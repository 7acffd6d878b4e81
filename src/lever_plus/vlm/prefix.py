"""Forward passes that compute every shared prompt prefix once.

The requests of a chunk form a tree over their ordered demonstrations. Level by level, each distinct
prefix is run once on top of its parent's key-value cache; then every query turn is run on top of
its prefix. Segments of different length are padded on the right and masked out, and positions count
real tokens only, so for rotary positions the result equals that of the whole prompt (up to float
rounding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lever_plus.vlm.request import Request
from lever_plus.vlm.segments import Segments, Turns


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """Key-value caches of n prefixes.

    Attributes:
        layers: (keys, values) per layer, each [n, heads, length, head width].
        mask: Int [n, length], 1 for real tokens.
        lengths: Int [n], number of real tokens.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor
    lengths: Tensor


class PrefixEngine:
    """Runs chunks of requests on one model."""

    def __init__(self, model: Any, segments: Segments) -> None:
        """Keep the model and the segments; run the head that all prompts share."""
        self._model, self._segments = model, segments
        self._language_model = model.model.language_model
        empty = PrefixCache(
            (), torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, dtype=torch.long)
        )
        head = Turns(
            torch.tensor([segments.head]), torch.tensor([len(segments.head)]), torch.empty(0)
        )
        self._head = self._forward(empty, torch.zeros(1, dtype=torch.long), head)[1]

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], max_new_tokens: int) -> list[list[int]]:
        """Return the greedily generated token ids of each request, up to the end-of-turn token."""
        generated: list[list[int]] = [[] for _ in requests]
        for part in self._depths(requests):
            rows = self._segments.rows([requests[i].query for i in part.requests])
            turns = _take(self._segments.table.queries, rows)
            states, cache = self._forward(part.cache, part.parents, turns)
            hidden = states[torch.arange(len(rows)), turns.lengths - 1]
            for i, tokens in zip(
                part.requests, self._decode(hidden, cache, max_new_tokens), strict=True
            ):
                generated[i] = tokens
        return generated

    def _decode(self, hidden: Tensor, cache: PrefixCache, max_new_tokens: int) -> list[list[int]]:
        """Decode greedily from the hidden states [n, width] that predict the first token."""
        ends, every = self._end_ids(), torch.arange(len(hidden))
        generated: list[list[int]] = [[] for _ in every]
        going = torch.ones(len(hidden), dtype=torch.bool)
        for step in range(max_new_tokens):
            tokens = self._model.lm_head(hidden).argmax(-1)
            going &= ~torch.isin(tokens, ends)
            for row, token, goes in zip(generated, tokens.tolist(), going.tolist(), strict=True):
                if goes:
                    row.append(token)
            if step + 1 == max_new_tokens or not going.any():
                break
            turns = Turns(tokens[:, None], torch.ones_like(tokens), torch.empty(0))
            states, cache = self._forward(cache, every, turns)
            hidden = states[:, -1]
        return generated

    @torch.inference_mode()
    def log_likelihoods(self, requests: Sequence[Request]) -> list[float]:
        """Return the mean log-probability of the tokens of each query's own answer."""
        scores = torch.zeros(len(requests))
        for part in self._depths(requests):
            rows = self._segments.rows([requests[i].query for i in part.requests])
            turns = _take(self._segments.table.forced, rows)
            answers = _take(self._segments.table.answers, rows)
            states, _ = self._forward(part.cache, part.parents, turns)
            row, position = (
                (torch.arange(answers.ids.shape[1]) < answers.lengths[:, None]).nonzero().T
            )
            first = turns.lengths - answers.lengths
            log_probs = self._model.lm_head(states[row, first[row] + position]).log_softmax(-1)
            picked = log_probs.gather(-1, answers.ids[row, position, None]).squeeze(-1)
            sums = torch.zeros(len(rows)).index_add(0, row, picked.float())
            scores[part.requests] = sums / answers.lengths
        return [float(score) for score in scores]

    def _depths(self, requests: Sequence[Request]) -> Iterator["Depth"]:
        """Run every distinct prefix of the requests once; yield the requests of each depth."""
        index: dict[tuple[int, ...], int] = {(): 0}
        cache, demonstrations = self._head, self._segments.table.demonstrations
        for depth in range(max(len(request.demonstrations) for request in requests) + 1):
            if depth:
                distinct = sorted(
                    {r.demonstrations[:depth] for r in requests if len(r.demonstrations) >= depth}
                )
                parents = torch.tensor([index[prefix[:-1]] for prefix in distinct])
                rows = self._segments.rows([prefix[-1] for prefix in distinct])
                _, cache = self._forward(cache, parents, _take(demonstrations, rows))
                index = {prefix: row for row, prefix in enumerate(distinct)}
            at = [i for i, request in enumerate(requests) if len(request.demonstrations) == depth]
            if at:
                parents = torch.tensor([index[requests[i].demonstrations] for i in at])
                yield Depth(at, parents, cache)

    @torch.inference_mode()
    def _forward(self, past: PrefixCache, rows: Tensor, turns: Turns) -> tuple[Tensor, PrefixCache]:
        """Run n turns on top of the past caches of `rows` [n].

        Returns:
            Hidden states [n, length, width], and the caches with the new tokens.
        """
        places = torch.arange(turns.ids.shape[1])
        mask = torch.cat([past.mask[rows], (places < turns.lengths[:, None]).long()], dim=1)
        offset = past.lengths[rows]
        cache: Any = DynamicCache()
        cache.layers = [_layer(keys[rows], values[rows]) for keys, values in past.layers]
        output = self._language_model(
            inputs_embeds=self._embed(turns),
            attention_mask=mask,
            position_ids=offset[:, None] + places,
            past_key_values=cache,
            use_cache=True,
        )
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        return output.last_hidden_state, PrefixCache(layers, mask, offset + turns.lengths)

    def _embed(self, turns: Turns) -> Tensor:
        embeds: Tensor = self._model.get_input_embeddings()(turns.ids)
        if not turns.images.numel():
            return embeds
        at_image = (turns.ids == self._model.config.image_token_id).unsqueeze(-1)
        return embeds.masked_scatter(at_image, turns.images.to(embeds.dtype))

    def _end_ids(self) -> Tensor:
        ends = self._model.generation_config.eos_token_id
        return torch.tensor(ends if isinstance(ends, list) else [ends])


@dataclass(frozen=True, slots=True)
class Depth:
    """The requests with equally many demonstrations, and the rows of their caches."""

    requests: list[int]
    parents: Tensor
    cache: PrefixCache


def _take(turns: Turns, rows: Tensor) -> Turns:
    """Return some of the turns, without the padding that none of them needs."""
    lengths = turns.lengths[rows]
    return Turns(turns.ids[rows, : int(lengths.max())], lengths, turns.images[rows])


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """Return a cache layer that holds the tensors themselves (its `update` would copy them)."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer
