"""A prompt cut at its turns: what the language model sees of every example, computed once.

The prompt of a request is the concatenation head + demonstration + ... + query turn. That this
holds for the processor at hand, token for token, is checked before anything is asked. A segment
holds input embeddings, image features included; they are taken from the model itself on their way
into its language model, so that every architecture merges its images in its own way.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.hub.processing import input_embeddings, process, stopped_at_language_model
from lever_plus.vlm.prompt import PromptFormat, render
from lever_plus.vlm.turns import Turn, text_ids, turn


class Segment(NamedTuple):
    """What one example contributes to prompts.

    embeds: [length, width] of its user turn and answer turn; query: tokens of the user turn and the
    generation prompt, which stand first; answer: ids of the answer, which follow.
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

    def get(self, examples: Sequence[Example]) -> dict[int, Segment]:
        """Return those that are kept, by example id."""
        ...

    def put(self, examples: Sequence[Example], segments: Mapping[int, Segment]) -> None:
        """Keep those of these examples."""
        ...


class Segments:
    """Segments of examples, made when they are first needed, within a memory budget."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        examples: Mapping[int, Example],
        prompt: PromptFormat,
        batch: int,
        workers: int,
        budget: int,
        kept: "Kept | None" = None,
    ) -> None:
        """Keep the model (for image features), its processor and the examples by id.

        Args:
            model: The VLM.
            processor: Its processor.
            examples: All examples that may be asked for.
            prompt: Style and instruction.
            batch: Images in one pass of the vision tower.
            workers: Threads that read images and run the vision tower side by side.
            budget: Bytes of segments that stay in memory when others are asked for.
            kept: Where segments outlive the process; None for nowhere.

        Raises:
            NotSeparableError: Prompts cannot be cut at their turns.
        """
        self._model, self._processor, self._examples = model, processor, examples
        self._prompt, self._batch, self._budget = prompt, batch, budget
        self._workers, self._kept = workers, kept
        # A fast tokenizer keeps its padding as state and is not made for several threads.
        self._processing = threading.Lock()
        self._made: dict[int, Segment] = {}
        self._rows: dict[int, int] = {}
        self._table: Table
        first = next(iter(examples.values()))
        self._head_text = _head(processor, first, prompt)
        self._head_ids = text_ids(processor, self._head_text)
        self._check(first)

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

    def rows(self, example_ids: Sequence[int]) -> Tensor:
        """Return the rows of prepared examples in the table."""
        rows = [self._rows[i] for i in example_ids]
        return torch.tensor(rows, device=self._table.lengths.device)

    def prepare(self, example_ids: Iterable[int]) -> None:
        """Make the segments of these examples; others go where the budget does not hold both."""
        wanted = set(example_ids)
        missing = sorted(wanted - self._made.keys())
        if not missing:
            return
        self._take(missing)
        missing = [i for i in missing if i not in self._made]
        parts = [missing[i : i + self._batch] for i in range(0, len(missing), self._batch)]
        with stopped_at_language_model(self._model), ThreadPoolExecutor(self._workers) as pool:
            for ids, segments in zip(parts, pool.map(self._make, parts), strict=True):
                self._made.update(zip(ids, segments, strict=True))
                if self._kept is not None:
                    self._kept.put([self._examples[i] for i in ids], self._made)
        if self.size > self._budget:
            self._made = {i: s for i, s in self._made.items() if i in wanted}
        self._table = _tabulate(list(self._made.values()))
        self._rows = {example_id: row for row, example_id in enumerate(self._made)}

    def _take(self, example_ids: Sequence[int]) -> None:
        """Take the segments that an earlier stage has made."""
        if self._kept is not None:
            kept = self._kept.get([self._examples[i] for i in example_ids])
            device = self._model.device
            self._made.update({i: s._replace(embeds=s.embeds.to(device)) for i, s in kept.items()})

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(s.embeds.numel() * s.embeds.element_size() for s in self._made.values())

    @torch.inference_mode()
    def _make(self, example_ids: Sequence[int]) -> list[Segment]:
        examples = [self._examples[i] for i in example_ids]
        images = [open_image(example.image) for example in examples]
        with self._processing:
            turns = [self._turn(example) for example in examples]
            texts = [turn.text.removeprefix(self._head_text) for turn in turns]
            inputs = process(self._processor, texts, [[image] for image in images], side="right")
        embeds = input_embeddings(self._model, inputs)
        lengths = inputs["attention_mask"].sum(-1).tolist()
        return [
            # No image stands after the query's turn, so its tail is as long as its text says.
            Segment(row[:length].clone(), length - len(t.whole) + len(t.query), tuple(t.answer))
            for t, row, length in zip(turns, embeds, lengths, strict=True)
        ]

    def _turn(self, example: Example) -> Turn:
        cut = turn(self._processor, example, self._prompt)
        if not cut.follows or cut.whole[: len(self._head_ids)] != self._head_ids:
            raise NotSeparableError(
                f"the answer {example.answer!r} merges with the prompt before it"
            )
        return cut

    def _check(self, example: Example) -> None:
        """Refuse a processor for which prompts are not the concatenation of segments."""
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


def _head(processor: Any, example: Example, prompt: PromptFormat) -> str:
    """Return the text before the first turn."""
    one, two = (render(processor, [example] * shots, None, prompt) for shots in (1, 2))
    demonstration = two[len(one) :]
    if not one.endswith(demonstration):
        raise NotSeparableError("the second demonstration is rendered differently from the first")
    return one[: len(one) - len(demonstration)]


def _tabulate(segments: Sequence[Segment]) -> Table:
    device = segments[0].embeds.device
    answers = [torch.tensor(s.answer) for s in segments]
    return Table(
        embeds=pad_sequence([s.embeds for s in segments], batch_first=True),
        lengths=torch.tensor([len(s.embeds) for s in segments], device=device),
        queries=torch.tensor([s.query for s in segments], device=device),
        answers=pad_sequence(answers, batch_first=True).to(device),
        answer_lengths=torch.tensor([len(s.answer) for s in segments], device=device),
    )
