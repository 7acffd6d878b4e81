"""Forward passes that compute every shared prompt prefix once.

The requests of a chunk form a tree over their ordered demonstrations. Level by level, each distinct
prefix is run once on top of its parent's key-value cache; then every query turn is run on top of
its prefix. Segments of different length are padded on the right and masked out, and positions count
real tokens only, so for rotary positions the result equals that of the whole prompt (up to float
rounding).
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lever_plus.vlm.engine.decoder import Decoder, PrefixCache
from lever_plus.vlm.engine.length import check_lengths, positions
from lever_plus.vlm.engine.segments import Segments
from lever_plus.vlm.request import Request
from lever_plus.vlm.usage import Usage


class PrefixEngine:
    """Runs chunks of requests on one model."""

    def __init__(self, model: Any, segments: Segments, usage: Usage) -> None:
        """Keep the model and the segments; run the head that all prompts share.

        `usage` gets the tokens of every pass.

        Raises:
            ValueError: The model's layers are not those that `Decoder` runs.
        """
        self.segments = segments
        self.usage, self._lock = usage, threading.Lock()
        self._decoder = Decoder(model.get_decoder())
        self._embed, self._logits = model.get_input_embeddings(), model.get_output_embeddings()
        self._ends, self._most = _end_ids(model), positions(model)
        head = segments.head
        self._root = self._decoder.empty(head)
        if head.shape[1]:
            length = torch.tensor([head.shape[1]], device=head.device)
            row = torch.zeros(1, dtype=torch.long, device=head.device)
            with torch.inference_mode():
                self._root = self._decoder.run(self._root, row, head, length)[1]

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], max_new_tokens: int) -> list[list[int]]:
        """Return the greedily generated token ids of each request, up to the end-of-turn token."""
        generated: list[list[int]] = [[] for _ in requests]
        table, asked = self.segments.table, self.segments.asked(requests)
        for part in self._depths(requests, asked):
            rows = asked[part.requests]
            lengths = table.queries[rows]
            embeds = table.embeds[rows, : int(lengths.max())]
            states, cache = self._decoder.run(
                part.cache, part.parents, embeds, lengths, at=lengths[:, None] - 1
            )
            decoded = self._decode(states[:, 0], cache, max_new_tokens)
            for i, tokens in zip(part.requests, decoded, strict=True):
                generated[i] = tokens
        return generated

    def _decode(self, hidden: Tensor, cache: PrefixCache, max_new_tokens: int) -> list[list[int]]:
        """Decode greedily from the hidden states [n, width] that predict the first token."""
        every = torch.arange(len(hidden), device=hidden.device)
        generated: list[list[int]] = [[] for _ in every]
        going = torch.ones_like(every, dtype=torch.bool)
        for step in range(max_new_tokens):
            tokens = self._logits(hidden).argmax(-1)
            going &= ~torch.isin(tokens, self._ends)
            for row, token, goes in zip(generated, tokens.tolist(), going.tolist(), strict=True):
                if goes:
                    row.append(token)
            if step + 1 == max_new_tokens or not going.any():
                break
            embeds, ones = self._embed(tokens[:, None]), torch.ones_like(tokens)
            states, cache = self._decoder.run(cache, every, embeds, ones, at=ones[:, None] - 1)
            hidden = states[:, 0]
        return generated

    @torch.inference_mode()
    def log_likelihoods(self, requests: Sequence[Request]) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        scores: list[float] = [0.0] * len(requests)
        table, asked = self.segments.table, self.segments.asked(requests)
        for part in self._depths(requests, asked):
            rows = asked[part.requests]
            counts = table.answer_lengths[rows]
            answers = table.answers[rows, : int(counts.max())]
            # The answer follows the query's turn in the table; its last token predicts nothing.
            lengths = table.queries[rows] + counts - 1
            embeds = table.embeds[rows, : int(lengths.max())]
            steps = torch.arange(answers.shape[1], device=answers.device)
            at = (table.queries[rows, None] - 1 + steps).clamp(max=embeds.shape[1] - 1)
            states, _ = self._decoder.run(part.cache, part.parents, embeds, lengths, at)
            log_probs = self._logits(states).float().log_softmax(-1)
            picked = log_probs.gather(-1, answers[..., None]).squeeze(-1)
            sums = picked.masked_fill(steps >= counts[:, None], 0.0).sum(-1)
            for i, score in zip(part.requests, (sums / counts).tolist(), strict=True):
                scores[i] = score
        return scores

    def _depths(self, requests: Sequence[Request], asked: Tensor) -> Iterator["Depth"]:
        """Run every distinct prefix of the requests once; yield the requests of each depth.

        UserError if a prompt is longer than the model can read.

        `asked` are the rows of their queries. Prefixes are named by the rows of their ICDs: numbers
        are hashed faster than examples.
        """
        shown = self.segments.shown_before(requests)
        index: dict[tuple[int, ...], int] = {(): 0}
        cache, table = self._root, self.segments.table
        for depth in range(max(map(len, shown)) + 1):
            if depth:
                reaching = (before[:depth] for before in shown if len(before) >= depth)
                distinct = list(dict.fromkeys(reaching))
                rows = _indices([prefix[-1] for prefix in distinct], table.lengths)
                above = _indices([index[prefix[:-1]] for prefix in distinct], rows)
                lengths = table.lengths[rows]
                embeds = table.embeds[rows, : int(lengths.max())]
                self._count(run=lengths)
                cache = self._decoder.run(cache, above, embeds, lengths)[1]
                index = {prefix: row for row, prefix in enumerate(distinct)}
            at = [i for i, before in enumerate(shown) if len(before) == depth]
            if at:
                parents = _indices([index[shown[i]] for i in at], table.lengths)
                queries = table.queries[asked[at]]
                whole = queries + cache.lengths[parents]
                check_lengths([requests[i] for i in at], whole, self._most)
                self._count(run=queries, whole=whole)
                yield Depth(at, parents, cache)

    def _count(self, run: Tensor, whole: Tensor | None = None) -> None:
        """Add to the usage; chunks run in threads."""
        with self._lock:
            self.usage.tokens_run += int(run.sum())
            self.usage.tokens_whole += 0 if whole is None else int(whole.sum())


@dataclass(frozen=True, slots=True)
class Depth:
    """The requests with equally many demonstrations, and the rows of their caches."""

    requests: list[int]
    parents: Tensor
    cache: PrefixCache


def _indices(rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=like.device)


def _end_ids(model: Any) -> Tensor:
    ends = model.generation_config.eos_token_id
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return torch.tensor(ids, dtype=torch.long, device=model.device)
