"""Prompts cut at their turns: the part that each example adds is computed once, as a segment.

A prompt is the concatenation head + demonstration + ... + query turn. Whether this is true for a
processor, token for token, is checked before anything is asked. A segment holds what the VLM gives
its language model: embeddings (with image features), positions, kinds of tokens.

There are two special cases. Some models encode an image differently if it is alone in its prompt:
for them, segments are cut out of prompts with another turn before, except for a query without
demonstrations. Some templates or tokenizers begin an answer differently when it is shown than when
it is asked for: for them, an example has two segments.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import open_image
from lever_plus.hub.processing import process
from lever_plus.vlm.engine.batch import forced
from lever_plus.vlm.engine.features import Features, NotSeparableError
from lever_plus.vlm.engine.table import Segment, Table, tabulate
from lever_plus.vlm.prompt import PromptFormat, Sample, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.turns import Turn, asked_turn, text_ids, turn

if TYPE_CHECKING:
    from lever_plus.vlm.engine.language import LanguageModel


class Item(NamedTuple):
    """What a segment is made of.

    query: the image and question; answer: the answer, if it is shown or scored; follows: whether
    the segment is cut out of a prompt with another turn before; shown: whether it can be used as a
    demonstration only.
    """

    query: Query
    answer: str | None
    follows: bool = False
    shown: bool = False


class Kept(Protocol):
    """Where segments are stored beyond the end of the process."""

    def get(self, items: Sequence[Item]) -> dict[Item, Segment]:
        """Return the segments of those items that are stored."""
        ...

    def put(self, segments: Mapping[Item, Segment]) -> None:
        """Store segments."""
        ...


class Segments:
    """Segments of examples and queries, made when first needed, within a memory budget."""

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
        """Find the head that all prompts share.

        Args:
            language: Captures what the VLM gives its language model.
            processor: The VLM's processor.
            prompt: Style and instruction.
            batch: How many images are in one pass of the vision tower.
            workers: How many threads read images and run the vision tower at the same time.
            budget: Bytes of segments that may stay in memory when others are needed.
            kept: Where segments are stored; None for nowhere.
            before: For a model that encodes an image differently if it is alone: the demonstration
                that precedes other turns while their segments are made; else None.

        Raises:
            NotSeparableError: Prompts cannot be cut at their turns.
        """
        self._language, self._device = language, language.model.device
        self._processor, self._prompt = processor, prompt
        self._batch, self._budget = batch, budget
        self._workers, self._kept = workers, kept
        # A fast tokenizer stores its padding setting in itself, which is not safe with threads.
        self._processing = threading.Lock()
        self._made: dict[Item, Segment] = {}
        self._rows: dict[Item, int] = {}
        self._of_query: dict[Item, int] = {}
        self._shown: dict[Example, int] = {}
        self._asked: dict[Item, int] = {}
        self._table: Table
        self._before, self._apart = before, False
        self._head_text = _head(processor, prompt)
        self._head_ids = text_ids(processor, self._head_text)
        self._start = len(self._head_ids)

    @property
    def table(self) -> Table:
        """All prepared segments as one table."""
        return self._table

    def item(self, request: Request) -> Item:
        """Return what the segment of a request's query is made of."""
        follows = self._before is not None and len(request.demonstrations) > 0
        return Item(request.query, request.answer, follows)

    def shown(self, examples: Sequence[Example]) -> Tensor:
        """Return the rows of prepared demonstrations in the table, int [n]."""
        rows = [self._shown[example] for example in examples]
        return torch.tensor(rows, device=self._table.lengths.device)

    def shown_before(self, requests: Sequence[Request]) -> list[tuple[int, ...]]:
        """Return the rows of the prepared demonstrations of each request, in prompt order."""
        rows = self._shown
        return [tuple(rows[example] for example in r.demonstrations) for r in requests]

    def asked(self, requests: Sequence[Request]) -> Tensor:
        """Return the rows of the prepared queries of requests in the table, int [n]."""
        rows = [self._asked[self.item(request)] for request in requests]
        return torch.tensor(rows, device=self._table.lengths.device)

    def prepare(self, examples: Collection[Example], asked: Collection[Item]) -> None:
        """Make the segments of these; others are dropped if the budget does not allow for both.

        A query without an answer uses the segment of any example with the same image and question,
        because that begins with the query's turn.

        Args:
            examples: Demonstrations.
            asked: What the segments of the queries are made of, see `item`.
        """
        follows = self._before is not None
        shown = {e: Item(e.query, e.answer, follows, self._apart) for e in examples}
        wanted = {*shown.values(), *asked}
        answered = {_asked(item) for item in (*wanted, *self._made) if item.answer is not None}
        needed = {i for i in wanted if i.answer is not None or i not in answered}
        missing = sorted(needed - self._made.keys(), key=_order)
        # An earlier call that failed (at an unreadable image) may have left segments without rows.
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
        """Make segments in batches, on several threads."""
        if not items:
            return
        kinds: dict[tuple[bool, bool], list[Item]] = {}
        for item in items:
            kinds.setdefault((item.follows, item.shown), []).append(item)
        parts = [
            alike[i : i + self._batch]
            for alike in kinds.values()
            for i in range(0, len(alike), self._batch)
        ]
        with ThreadPoolExecutor(self._workers) as pool:
            for part, segments in zip(parts, pool.map(self._make, parts), strict=True):
                made = dict(zip(part, segments, strict=True))
                self._made.update(made)
                if self._kept is not None:
                    self._kept.put(made)

    def _take(self, items: Sequence[Item]) -> None:
        """Take the segments that are stored already."""
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
            part = features.cut(start, len(features.embeds))
            if part.kind != self.head.kind:
                raise NotSeparableError("its language model gets different inputs for some prompts")
            # No image comes after the query's turn: what follows it has as many tokens as its text.
            query = len(part.embeds) - len(cut.whole) + len(cut.query)
            segments.append(Segment(part, query, tuple(cut.answer)))
        return segments

    def _captured(self, items: Sequence[Item]) -> tuple[list[Turn], list[Features]]:
        """Return turns, and what the language model gets for their whole prompts."""
        check_images(item.query for item in items)
        images = [[open_image(item.query.image)] for item in items]
        with self._processing:
            turns = [self._turn(item) for item in items]
            texts = [cut.text for cut in turns]
            if self._before is not None and items[0].follows:
                first = render(self._processor, [self._before], None, self._prompt)
                texts = [first + text.removeprefix(self._head_text) for text in texts]
                images = [[open_image(self._before.image), *row] for row in images]
            inputs = process(self._processor, texts, images, side="left")
        if self._apart and not items[0].shown:
            answers = [torch.tensor(cut.answer, dtype=torch.long) for cut in turns]
            counts = torch.tensor([len(answer) for answer in answers])
            inputs = forced(inputs, pad_sequence(answers, batch_first=True), counts)
        return turns, self._language.capture(inputs)

    def _turn(self, item: Item) -> Turn:
        if item.answer is None:
            cut = asked_turn(self._processor, item.query, self._prompt)
        else:
            example = Example(item.query.image, item.query.question, item.answer)
            cut = turn(self._processor, example, self._prompt)
            if self._apart and not item.shown:
                asked = asked_turn(self._processor, item.query, self._prompt)
                # The last token of an answer predicts nothing.
                whole = [*asked.whole, *cut.answer[:-1]]
                cut = asked._replace(whole=whole, answer=cut.answer)
        separate = cut.follows or self._apart
        if not separate or cut.whole[: len(self._head_ids)] != self._head_ids:
            raise NotSeparableError(f"the answer {item.answer!r} merges with the prompt before it")
        return cut

    def check(self, example: Example) -> None:
        """Refuse a processor whose prompts are not the concatenation of segments.

        This also sets `head`, the features of what precedes the first turn, and `token_bytes`, the
        size of one token's features in bytes.

        Args:
            example: Used for the check, unless there is a turn `before`.

        Raises:
            NotSeparableError: The prompts of this example are not such a concatenation.
        """
        example = self._before or example
        self._apart = not turn(self._processor, example, self._prompt).follows
        one, last = self._ids(example, 1, None), self._ids(example, 0, example)
        self._start = start = len(self._head_ids)
        if self._before is not None:
            two = self._ids(example, 2, None)
            self._start = (start + len(two)) // 2
            one, last = two[: self._start], self._ids(example, 1, example)
        shown, asked = one[start:], last[self._start :]
        if self._ids(example, 2, example) != [*self._head_ids, *shown * 2, *asked]:
            raise NotSeparableError("a prompt is not the concatenation of its turns")
        _, (whole,) = self._captured([Item(example.query, None)])
        self.token_bytes = whole.size // len(whole.ids)
        self.head = whole.cut(0, start)

    def _ids(self, example: Example, shots: int, query: Example | None) -> list[int]:
        """Return the token ids of a prompt that shows an example `shots` times."""
        text = render(self._processor, [example] * shots, query, self._prompt)
        images = [[open_image(example.image)] * (shots + (query is not None))]
        ids: list[int] = process(self._processor, [text], images, "right")["input_ids"][0].tolist()
        return ids


def _asked(item: Item) -> Item:
    """Return the same item without its answer."""
    return item._replace(answer=None)


def _order(item: Item) -> tuple[str | bool, ...]:
    query, answer = item.query, item.answer or ""
    place = query.image_sha256, query.image, query.question
    return *place, answer, item.follows, item.shown


def _head(processor: Any, prompt: PromptFormat) -> str:
    """Return the text before the first turn."""
    one, two = (render(processor, [Sample()] * shots, None, prompt) for shots in (1, 2))
    demonstration = two[len(one) :]
    if not one.endswith(demonstration):
        raise NotSeparableError("the second demonstration is rendered differently from the first")
    return one[: len(one) - len(demonstration)]
