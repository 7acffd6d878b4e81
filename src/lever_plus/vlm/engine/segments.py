"""A prompt cut at its turns: what the language model sees of every example, computed once.

The prompt of a request is the concatenation head + demonstration + ... + query turn. That this
holds for the processor at hand, token for token, is checked before anything is asked. A segment
holds input embeddings, image features included; they are taken from the model itself on their way
into its language model, so that every architecture merges its images in its own way.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import open_image
from lever_plus.hub.processing import input_embeddings, process, stopped_at_language_model
from lever_plus.vlm.prompt import PromptFormat, Sample, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.turns import Turn, asked_turn, text_ids, turn


class Item(NamedTuple):
    """What a segment is made of: a query, and its answer where that is shown or scored."""

    query: Query
    answer: str | None


class Segment(NamedTuple):
    """What one item contributes to prompts.

    embeds: [length, width] of its user turn and answer turn; query: tokens of the user turn and the
    generation prompt, which come first; answer: ids of the answer, which follow.
    """

    embeds: Tensor
    query: int
    answer: tuple[int, ...]


class Table(NamedTuple):
    """The segments of all prepared examples, a row each, so that a batch is one indexing.

    embeds: [n, longest, width], padded on the right; lengths, queries, answer_lengths: int [n];
    answers: int [n, longest answer].
    """

    embeds: Tensor
    lengths: Tensor
    queries: Tensor
    answers: Tensor
    answer_lengths: Tensor


class NotSeparableError(Exception):
    """Prompts of this model are not the concatenation of their turns; the message says why."""


class Kept(Protocol):
    """Segments that outlive the process."""

    def get(self, items: Sequence[Item]) -> dict[Item, Segment]:
        """Return those that are kept."""
        ...

    def put(self, segments: Mapping[Item, Segment]) -> None:
        """Keep these."""
        ...


class Segments:
    """Segments of examples and queries, made when they are first needed, within a memory budget."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompt: PromptFormat,
        batch: int,
        workers: int,
        budget: int,
        kept: "Kept | None" = None,
    ) -> None:
        """Keep the model (for image features) and its processor.

        Args:
            model: The VLM.
            processor: Its processor.
            prompt: Style and instruction.
            batch: Images in one pass of the vision tower.
            workers: Threads that read images and run the vision tower side by side.
            budget: Bytes of segments that stay in memory when others are asked for.
            kept: Where segments outlive the process; None for nowhere.

        Raises:
            NotSeparableError: Prompts cannot be cut at their turns.
        """
        self._model, self._processor = model, processor
        self._prompt, self._batch, self._budget = prompt, batch, budget
        self._workers, self._kept = workers, kept
        # A fast tokenizer keeps its padding as state and is not made for several threads.
        self._processing = threading.Lock()
        self._made: dict[Item, Segment] = {}
        self._rows: dict[Item, int] = {}
        self._of_query: dict[Query, int] = {}
        self._shown: dict[Example, int] = {}
        self._asked: dict[Item, int] = {}
        self._table: Table
        self._head_text = _head(processor, prompt)
        self._head_ids = text_ids(processor, self._head_text)

    @property
    def table(self) -> Table:
        """All prepared segments."""
        return self._table

    @property
    def head(self) -> Tensor:
        """Embeddings [1, length, width] of what precedes the first turn."""
        ids = torch.tensor([self._head_ids], dtype=torch.long, device=self._model.device)
        with torch.inference_mode():
            embeds: Tensor = self._model.get_input_embeddings()(ids)
        return embeds

    def shown(self, examples: Sequence[Example]) -> Tensor:
        """Return the rows of prepared demonstrations in the table."""
        rows = [self._shown[example] for example in examples]
        return torch.tensor(rows, device=self._table.lengths.device)

    def shown_before(self, requests: Sequence[Request]) -> list[tuple[int, ...]]:
        """Return the rows of the prepared demonstrations of each request, in prompt order."""
        rows = self._shown
        return [tuple(rows[example] for example in r.demonstrations) for r in requests]

    def asked(self, requests: Sequence[Request]) -> Tensor:
        """Return the rows of the prepared queries of requests in the table."""
        rows = [self._asked[Item(request.query, request.answer)] for request in requests]
        return torch.tensor(rows, device=self._table.lengths.device)

    def prepare(self, examples: Collection[Example], asked: Collection[Item]) -> None:
        """Make the segments of these; others go where the budget does not hold both.

        A query without an answer takes the segment of any example that asks the same: it begins
        with the query's own turn.
        """
        shown = {example: Item(example.query, example.answer) for example in examples}
        wanted = {*shown.values(), *asked}
        answered = {item.query for item in (*wanted, *self._made) if item.answer is not None}
        needed = {i for i in wanted if i.answer is not None or i.query not in answered}
        missing = sorted(needed - self._made.keys(), key=_order)
        # A call that failed half-way (an image could not be read) left segments without a row.
        if missing or len(self._made) != len(self._rows):
            self._take(missing)
            self._make_all([item for item in missing if item not in self._made])
            if self.size > self._budget:
                asks = {item.query for item in wanted if item.answer is None}
                kept = needed | {item for item in self._made if item.query in asks}
                self._made = {item: s for item, s in self._made.items() if item in kept}
            self._table = _tabulate(list(self._made.values()))
            self._rows = {item: row for row, item in enumerate(self._made)}
            self._of_query = {item.query: row for item, row in self._rows.items()}
        rows = self._rows
        self._shown = {example: rows[item] for example, item in shown.items()}
        self._asked = {i: rows[i] if i in rows else self._of_query[i.query] for i in asked}

    def _make_all(self, items: Sequence[Item]) -> None:
        """Make segments in batches, in threads."""
        if not items:
            return
        parts = [items[i : i + self._batch] for i in range(0, len(items), self._batch)]
        with stopped_at_language_model(self._model), ThreadPoolExecutor(self._workers) as pool:
            for part, segments in zip(parts, pool.map(self._make, parts), strict=True):
                made = dict(zip(part, segments, strict=True))
                self._made.update(made)
                if self._kept is not None:
                    self._kept.put(made)

    def _take(self, items: Sequence[Item]) -> None:
        """Take the segments that an earlier stage has made."""
        if self._kept is not None and items:
            kept = self._kept.get(items)
            device = self._model.device
            self._made.update({i: s._replace(embeds=s.embeds.to(device)) for i, s in kept.items()})

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(s.embeds.numel() * s.embeds.element_size() for s in self._made.values())

    @torch.inference_mode()
    def _make(self, items: Sequence[Item]) -> list[Segment]:
        check_images(item.query for item in items)
        images = [open_image(item.query.image) for item in items]
        with self._processing:
            turns = [self._turn(item) for item in items]
            texts = [turn.text.removeprefix(self._head_text) for turn in turns]
            inputs = process(self._processor, texts, [[image] for image in images], side="right")
        embeds = input_embeddings(self._model, inputs)
        lengths = inputs["attention_mask"].sum(-1).tolist()
        return [
            # No image stands after the query's turn, so its tail is as long as its text says.
            Segment(row[:length].clone(), length - len(t.whole) + len(t.query), tuple(t.answer))
            for t, row, length in zip(turns, embeds, lengths, strict=True)
        ]

    def _turn(self, item: Item) -> Turn:
        if item.answer is None:
            cut = asked_turn(self._processor, item.query, self._prompt)
        else:
            example = Example(item.query.image, item.query.question, item.answer)
            cut = turn(self._processor, example, self._prompt)
        if not cut.follows or cut.whole[: len(self._head_ids)] != self._head_ids:
            raise NotSeparableError(f"the answer {item.answer!r} merges with the prompt before it")
        return cut

    def check(self, example: Example) -> None:
        """Refuse a processor for which prompts are not the concatenation of segments.

        Raises:
            NotSeparableError: They are not, tried with this example.
        """
        image, head = open_image(example.image), self._head_text
        texts = [
            render(self._processor, [example] * shots, query, self._prompt)
            for shots, query in ((1, None), (0, example), (2, example))
        ]
        prompts = [texts[0].removeprefix(head), texts[1].removeprefix(head), texts[2]]
        one, last, three = (
            process(self._processor, [text], [[image] * count], "right")["input_ids"][0].tolist()
            for text, count in zip(prompts, (1, 1, 3), strict=True)
        )
        if three != [*self._head_ids, *one * 2, *last]:
            raise NotSeparableError("a prompt is not the concatenation of its turns")


def _order(item: Item) -> tuple[str, str, str, str]:
    return item.query.image_sha256, item.query.image, item.query.question, item.answer or ""


def _head(processor: Any, prompt: PromptFormat) -> str:
    """Return the text before the first turn."""
    one, two = (render(processor, [Sample()] * shots, None, prompt) for shots in (1, 2))
    demonstration = two[len(one) :]
    if not one.endswith(demonstration):
        raise NotSeparableError("the second demonstration is rendered differently from the first")
    return one[: len(one) - len(demonstration)]


def _tabulate(segments: Sequence[Segment]) -> Table:
    device = segments[0].embeds.device
    answers = [torch.tensor(s.answer, dtype=torch.long) for s in segments]
    return Table(
        embeds=pad_sequence([s.embeds for s in segments], batch_first=True),
        lengths=torch.tensor([len(s.embeds) for s in segments], device=device),
        queries=torch.tensor([s.query for s in segments], device=device),
        answers=pad_sequence(answers, batch_first=True).to(device),
        answer_lengths=torch.tensor([len(s.answer) for s in segments], device=device),
    )
