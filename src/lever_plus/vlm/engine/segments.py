"""A prompt cut at its turns: what the language model sees of every example, computed once.

The prompt of a request is the concatenation head + demonstration + ... + query turn. That this
holds for the processor at hand, token for token, is checked before anything is asked. A segment
holds what the model gives its own language model: embeddings, image features included, positions,
kinds of tokens. Some models encode an image differently where it is alone in its prompt: there a
turn is taken from behind another one, except the query that is asked without demonstrations.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import open_image
from lever_plus.hub.processing import process
from lever_plus.vlm.engine.features import Features, NotSeparableError
from lever_plus.vlm.engine.table import Segment, Table, tabulate
from lever_plus.vlm.prompt import PromptFormat, Sample, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.turns import Turn, asked_turn, text_ids, turn

if TYPE_CHECKING:
    from lever_plus.vlm.engine.language import LanguageModel


class Item(NamedTuple):
    """What a segment is made of.

    query: A query; answer: its answer where that is shown or scored; follows: whether it is taken
    from behind another turn.
    """

    query: Query
    answer: str | None
    follows: bool = False


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
        language: "LanguageModel",
        processor: Any,
        prompt: PromptFormat,
        batch: int,
        workers: int,
        budget: int,
        kept: "Kept | None" = None,
        before: Example | None = None,
    ) -> None:
        """Keep the model (for image features) and its processor.

        Args:
            language: Captures what the VLM gives its language model.
            processor: Its processor.
            prompt: Style and instruction.
            batch: Images in one pass of the vision tower.
            workers: Threads that read images and run the vision tower side by side.
            budget: Bytes of segments that stay in memory when others are asked for.
            kept: Where segments outlive the process; None for nowhere.
            before: The turn behind which others are taken, for a model that encodes an image
                differently where it is alone; None for any other.

        Raises:
            NotSeparableError: Prompts cannot be cut at their turns.
        """
        self._language, self._device = language, language.model.device
        self._processor, self._prompt = processor, prompt
        self._batch, self._budget = batch, budget
        self._workers, self._kept = workers, kept
        # A fast tokenizer keeps its padding as state and is not made for several threads.
        self._processing = threading.Lock()
        self._made: dict[Item, Segment] = {}
        self._rows: dict[Item, int] = {}
        self._of_query: dict[Item, int] = {}
        self._shown: dict[Example, int] = {}
        self._asked: dict[Item, int] = {}
        self._table: Table
        self._before = before
        self._head_text = _head(processor, prompt)
        self._head_ids = text_ids(processor, self._head_text)
        self._start = len(self._head_ids)

    @property
    def table(self) -> Table:
        """All prepared segments."""
        return self._table

    def item(self, request: Request) -> Item:
        """Return what the segment of a request's query is made of."""
        follows = self._before is not None and len(request.demonstrations) > 0
        return Item(request.query, request.answer, follows)

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
        rows = [self._asked[self.item(request)] for request in requests]
        return torch.tensor(rows, device=self._table.lengths.device)

    def prepare(self, examples: Collection[Example], asked: Collection[Item]) -> None:
        """Make the segments of these; others go where the budget does not hold both.

        A query without an answer takes the segment of any example that asks the same: it begins
        with the query's own turn.
        """
        follows = self._before is not None
        shown = {example: Item(example.query, example.answer, follows) for example in examples}
        wanted = {*shown.values(), *asked}
        answered = {_asked(item) for item in (*wanted, *self._made) if item.answer is not None}
        needed = {i for i in wanted if i.answer is not None or i not in answered}
        missing = sorted(needed - self._made.keys(), key=_order)
        # A call that failed half-way (an image could not be read) left segments without a row.
        if missing or len(self._made) != len(self._rows):
            self._take(missing)
            self._make_all([item for item in missing if item not in self._made])
            if self.size > self._budget:
                asks = {item for item in wanted if item.answer is None}
                kept = needed | {item for item in self._made if _asked(item) in asks}
                self._made = {item: s for item, s in self._made.items() if item in kept}
            self._table = tabulate(list(self._made.values()))
            self._rows = {item: row for row, item in enumerate(self._made)}
            self._of_query = {_asked(item): row for item, row in self._rows.items()}
        rows = self._rows
        self._shown = {example: rows[item] for example, item in shown.items()}
        self._asked = {i: rows[i] if i in rows else self._of_query[i] for i in asked}

    def _make_all(self, items: Sequence[Item]) -> None:
        """Make segments in batches, in threads."""
        if not items:
            return
        alike = ([item for item in items if item.follows is follows] for follows in (False, True))
        parts = [
            same[i : i + self._batch] for same in alike for i in range(0, len(same), self._batch)
        ]
        with ThreadPoolExecutor(self._workers) as pool:
            for part, segments in zip(parts, pool.map(self._make, parts), strict=True):
                made = dict(zip(part, segments, strict=True))
                self._made.update(made)
                if self._kept is not None:
                    self._kept.put(made)

    def _take(self, items: Sequence[Item]) -> None:
        """Take the segments that an earlier stage has made."""
        if self._kept is not None and items:
            for item, segment in self._kept.get(items).items():
                features = segment.features.each(lambda values: values.to(self._device))
                if features.kind == self.head.kind:
                    self._made[item] = segment._replace(features=features)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.features.size for segment in self._made.values())

    def _make(self, items: Sequence[Item]) -> list[Segment]:
        segments = []
        for cut, features in zip(*self._captured(items), strict=True):
            start = self._start if items[0].follows else len(self._head_ids)
            turn = features.cut(start, len(features.embeds))
            if turn.kind != self.head.kind:
                raise NotSeparableError("its language model is given other things for some prompts")
            # No image stands after the query's turn, so its tail is as long as its text says.
            query = len(turn.embeds) - len(cut.whole) + len(cut.query)
            segments.append(Segment(turn, query, tuple(cut.answer)))
        return segments

    def _captured(self, items: Sequence[Item]) -> tuple[list[Turn], list[Features]]:
        """Return turns, and what the language model is given for their whole prompts."""
        check_images(item.query for item in items)
        images = [[open_image(item.query.image)] for item in items]
        with self._processing:
            turns = [self._turn(item) for item in items]
            texts = [turn.text for turn in turns]
            if self._before is not None and items[0].follows:
                first = render(self._processor, [self._before], None, self._prompt)
                texts = [first + text.removeprefix(self._head_text) for text in texts]
                images = [[open_image(self._before.image), *row] for row in images]
            inputs = process(self._processor, texts, images, side="right")
        return turns, self._language.capture(inputs)

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

        Takes from an example `head`, the features of what precedes the first turn, and
        `token_bytes`, the bytes of features a token.

        Raises:
            NotSeparableError: They are not, tried with this example, or with the turn before.
        """
        example = self._before or example
        one, last = self._ids(example, 1, None), self._ids(example, 0, example)
        self._start = start = len(self._head_ids)
        if self._before is not None:
            two = self._ids(example, 2, None)
            self._start = (start + len(two)) // 2
            one, last = two[: self._start], self._ids(example, 1, example)
        turn, query = one[start:], last[self._start :]
        if self._ids(example, 2, example) != [*self._head_ids, *turn * 2, *query]:
            raise NotSeparableError("a prompt is not the concatenation of its turns")
        _, (whole,) = self._captured([Item(example.query, None)])
        self.token_bytes = whole.size // len(whole.ids)
        self.head = whole.cut(0, start)

    def _ids(self, example: Example, shots: int, query: Example | None) -> list[int]:
        """Return the token ids of a prompt that shows an example over and over."""
        text = render(self._processor, [example] * shots, query, self._prompt)
        images = [[open_image(example.image)] * (shots + (query is not None))]
        ids: list[int] = process(self._processor, [text], images, "right")["input_ids"][0].tolist()
        return ids


def _asked(item: Item) -> Item:
    """Return what asks the same without an answer."""
    return item._replace(answer=None)


def _order(item: Item) -> tuple[str, str, str, str, bool]:
    query = item.query
    return query.image_sha256, query.image, query.question, item.answer or "", item.follows


def _head(processor: Any, prompt: PromptFormat) -> str:
    """Return the text before the first turn."""
    one, two = (render(processor, [Sample()] * shots, None, prompt) for shots in (1, 2))
    demonstration = two[len(one) :]
    if not one.endswith(demonstration):
        raise NotSeparableError("the second demonstration is rendered differently from the first")
    return one[: len(one) - len(demonstration)]
