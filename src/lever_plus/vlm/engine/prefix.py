"""Forward passes that compute each shared prompt prefix once.

The requests of a chunk form a tree over their ordered demonstrations. Level by level, each distinct
prefix is run once on top of its parent's cache; then each query turn is run on top of its prefix.
Segments of different lengths are padded on the right, the padding is masked out, and positions
continue those of the prefix, so the result equals that of the whole prompt up to float rounding. In
models where padding would enter a state (convolutions, linear attention), only segments of equal
length run together.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lever_plus.vlm.engine.caches import Prefixes, joined
from lever_plus.vlm.engine.choice import Choice
from lever_plus.vlm.engine.language import LanguageModel
from lever_plus.vlm.engine.length import check_lengths, positions
from lever_plus.vlm.engine.segments import Segments
from lever_plus.vlm.request import Request
from lever_plus.vlm.usage import Usage


class PrefixEngine:
    """Runs chunks of requests on one model, each shared prefix once."""

    def __init__(self, language: LanguageModel, segments: Segments, usage: Usage) -> None:
        """Run the head that all prompts share.

        Args:
            language: The language model.
            segments: Makes the segments of prompts.
            usage: Counts the tokens of each pass.
        """
        self.segments, self.language = segments, language
        self.usage, self._lock = usage, threading.Lock()
        self._most = positions(language.model)
        self._choice = Choice(language.model)
        self._root, head = language.root, segments.head
        self._axes = head.positions.shape[-1]
        if len(head.embeds):
            row = torch.zeros(1, dtype=torch.long, device=head.embeds.device)
            one = head.each(lambda values: values[None])
            self._root = language.run(self._root, row, one, row + len(head.embeds))[1]

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], max_new_tokens: int) -> list[list[int]]:
        """Return the greedily generated token ids of each request, up to the end-of-turn token."""
        generated: list[list[int]] = [[] for _ in requests]
        table, asked = self.segments.table, self.segments.asked(requests)
        for part in self._depths(requests, asked):
            rows = asked[part.requests]
            for group in self._groups(table.queries[rows]):
                picked, parents = rows[group], part.parents[group]
                lengths = table.queries[picked]
                stretches = table.stretches(picked, lengths)
                logits, cache = self.language.run(
                    part.cache, parents, stretches, lengths, at=lengths[:, None] - 1
                )
                decoded = self._decode(logits[:, 0], cache, max_new_tokens)
                for i, tokens in zip(group.tolist(), decoded, strict=True):
                    generated[part.requests[i]] = tokens
        return generated

    def _decode(self, logits: Tensor, cache: Prefixes, max_new_tokens: int) -> list[list[int]]:
        """Return n greedily decoded answers; `logits` [n, vocabulary] are of their first tokens."""
        generated: list[list[int]] = [[] for _ in logits]
        going = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        for step in range(max_new_tokens):
            tokens = self._choice.best(logits, cache)
            going &= ~torch.isin(tokens, self._choice.ends)
            for row, token, goes in zip(generated, tokens.tolist(), going.tolist(), strict=True):
                if goes:
                    row.append(token)
            if step + 1 == max_new_tokens or not going.any():
                break
            logits, cache = self.language.step(cache, tokens, self._axes)
        return generated

    @torch.inference_mode()
    def log_likelihoods(self, requests: Sequence[Request]) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        scores: list[float] = [0.0] * len(requests)
        table, asked = self.segments.table, self.segments.asked(requests)
        for part in self._depths(requests, asked):
            rows = asked[part.requests]
            # In the table the answer follows the query's turn; its last token predicts nothing.
            whole = table.queries[rows] + table.answer_lengths[rows] - 1
            for group in self._groups(whole):
                picked, lengths = rows[group], whole[group]
                counts = table.answer_lengths[picked]
                answers = table.answers[picked, : int(counts.max())]
                stretches = table.stretches(picked, lengths)
                steps = torch.arange(answers.shape[1], device=answers.device)
                at = (table.queries[picked, None] - 1 + steps).clamp(max=int(lengths.max()) - 1)
                logits, _ = self.language.run(
                    part.cache, part.parents[group], stretches, lengths, at
                )
                log_probs = logits.float().log_softmax(-1)
                likely = log_probs.gather(-1, answers[..., None]).squeeze(-1)
                sums = likely.masked_fill(steps >= counts[:, None], 0.0).sum(-1)
                for i, score in zip(group.tolist(), (sums / counts).tolist(), strict=True):
                    scores[part.requests[i]] = score
        return scores

    def _groups(self, lengths: Tensor) -> list[Tensor]:
        """Return the indices of stretches that may run together, by group; `lengths` is int [n]."""
        if not self.language.unpadded:
            return [torch.arange(len(lengths), device=lengths.device)]
        return [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]

    def _depths(self, requests: Sequence[Request], asked: Tensor) -> Iterator["Depth"]:
        """Run each distinct prefix of the requests once; yield the requests of each depth.

        Prefixes are identified by the table rows of their demonstrations, as integers hash
        faster than examples.

        Args:
            requests: n requests whose segments are prepared.
            asked: Int [n], the table rows of their queries.

        Raises:
            TooLongError: A prompt is longer than the model can read.
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
                self._count(run=lengths)
                groups = self._groups(lengths)
                cache = joined(
                    [
                        self.language.run(
                            cache, above[g], table.stretches(rows[g], lengths[g]), lengths[g]
                        )[1]
                        for g in groups
                    ]
                )
                order = torch.cat(groups).tolist()
                index = {distinct[place]: row for row, place in enumerate(order)}
            at = [i for i, before in enumerate(shown) if len(before) == depth]
            if at:
                parents = _indices([index[shown[i]] for i in at], table.lengths)
                queries = table.queries[asked[at]]
                whole = queries + cache.lengths[parents]
                check_lengths([requests[i] for i in at], whole, self._most)
                self._count(run=queries, whole=whole)
                yield Depth(at, parents, cache)

    def _count(self, run: Tensor, whole: Tensor | None = None) -> None:
        """Add tokens to the usage, under a lock, as chunks run in threads."""
        with self._lock:
            self.usage.tokens_run += int(run.sum())
            self.usage.tokens_whole += 0 if whole is None else int(whole.sum())


@dataclass(frozen=True, slots=True)
class Depth:
    """Indices of requests with equally many demonstrations, and their prefixes' rows in a cache."""

    requests: list[int]
    parents: Tensor
    cache: Prefixes


def _indices(rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=like.device)
