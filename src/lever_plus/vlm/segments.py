"""A prompt cut at its turns: token ids and image features of every example, computed once.

The prompt of a request is the concatenation head + demonstration + ... + query turn. That this
holds for the processor at hand, token for token, is checked before anything is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.vlm.prompt import render

IMAGE_BATCH: Final = 256
READERS: Final = 2


class Segment(NamedTuple):
    """What one example contributes to prompts.

    demonstration: token ids of its user turn and answer turn; query: of its user turn and the
    generation prompt; answer: of its answer alone, end-of-turn tokens excluded; image: features of
    its image as the language model sees them, float [image tokens, width].
    """

    demonstration: tuple[int, ...]
    query: tuple[int, ...]
    answer: tuple[int, ...]
    image: Tensor


class Turns(NamedTuple):
    """Token ids of n turns, padded on the right with 0, and what belongs to them.

    ids: Int [n, longest]; lengths: int [n]; images: float [n, image tokens, width].
    """

    ids: Tensor
    lengths: Tensor
    images: Tensor


class Table(NamedTuple):
    """The segments of all prepared examples, a row each, so that a batch is one indexing."""

    demonstrations: Turns
    queries: Turns
    forced: Turns
    answers: Turns


def open_image(path: str) -> Image.Image:
    """Open an image as RGB.

    Raises:
        UserError: The file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            f"image {path} cannot be read ({error}). Restore it, or run `dvc repro prepare`."
        ) from error


class Segments:
    """Segments of examples, made when they are first needed."""

    def __init__(self, model: Any, processor: Any, examples: Mapping[int, Example]) -> None:
        """Keep the model (for image features), its processor and the examples by id."""
        self._model, self._processor, self._examples = model, processor, examples
        self._made: dict[int, Segment] = {}
        self._rows: dict[int, int] = {}
        self._table: Table
        first = next(iter(examples.values()))
        self._head_text, _ = _split(processor, first)
        self.head = self._text_ids(self._head_text)
        self._check(first)

    def prepare(self, example_ids: Iterable[int]) -> None:
        """Make the segments of all these examples that are not there yet, in batches."""
        missing = sorted(set(example_ids) - self._made.keys())
        starts = range(0, len(missing), IMAGE_BATCH)
        with ThreadPoolExecutor(READERS) as readers:
            for start in tqdm(starts, desc="images", leave=False, disable=None):
                batch = [self._examples[i] for i in missing[start : start + IMAGE_BATCH]]
                images = list(readers.map(lambda example: open_image(example.image), batch))
                segments = self._segments(batch, images)
                self._made.update({e.question_id: s for e, s in zip(batch, segments, strict=True)})
        if missing:
            self._table = _tabulate(list(self._made.values()))
            self._rows = {example_id: row for row, example_id in enumerate(self._made)}

    def rows(self, example_ids: Sequence[int]) -> Tensor:
        """Return the rows of prepared examples in the table."""
        return torch.tensor([self._rows[i] for i in example_ids])

    @property
    def table(self) -> Table:
        """All prepared segments."""
        return self._table

    @torch.inference_mode()
    def _segments(
        self, examples: Sequence[Example], images: Sequence[Image.Image]
    ) -> list[Segment]:
        texts = [_split(self._processor, example)[1] for example in examples]
        inputs = self._processor(text=texts, images=list(images), add_special_tokens=False)
        pixels = torch.from_numpy(np.stack(inputs["pixel_values"])).to(self._model.dtype)
        features = self._model.get_image_features(pixel_values=pixels).pooler_output
        return [
            self._segment(example, text, ids, feature)
            for example, text, ids, feature in zip(
                examples, texts, inputs["input_ids"], features, strict=True
            )
        ]

    def _segment(
        self, example: Example, text: str, demonstration: Sequence[int], image: Tensor
    ) -> Segment:
        """Cut the demonstration's token ids where its answer begins."""
        query_text = render(self._processor, [], example).removeprefix(self._head_text)
        query, whole = self._text_ids(query_text), self._text_ids(text)
        tail = whole[len(query) :]
        special = set(self._processor.tokenizer.all_special_ids)
        answer = tuple(token for token in tail if token not in special)
        if not answer or whole[: len(query)] != query:
            raise UserError(
                f"the chat template does not put the answer of example {example.question_id} "
                "right after the generation prompt: use a model with a plain chat template."
            )
        return Segment(tuple(demonstration), tuple(demonstration[: -len(tail)]), answer, image)

    def _text_ids(self, text: str) -> list[int]:
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _check(self, example: Example) -> None:
        """Refuse a processor for which prompts are not the concatenation of segments."""
        image = open_image(example.image)
        (segment,) = self._segments([example], [image])
        text = render(self._processor, [example] * 2, example)
        inputs = self._processor(text=[text], images=[image] * 3, add_special_tokens=False)
        whole = inputs["input_ids"][0]
        if whole != [*self.head, *segment.demonstration * 2, *segment.query]:
            raise UserError(
                f"{type(self._processor).__name__}: a prompt is not the concatenation of its "
                "turns, so shared prefixes cannot be reused with this model."
            )


def _split(processor: Any, example: Example) -> tuple[str, str]:
    """Return the text before the first turn, and the text of one demonstration."""
    one, two = (render(processor, [example] * shots, None) for shots in (1, 2))
    demonstration = two[len(one) :]
    if not one.endswith(demonstration):
        raise UserError(
            f"{type(processor).__name__}: its chat template renders the second demonstration "
            "differently from the first, so prompts cannot be cut into segments."
        )
    return one[: len(one) - len(demonstration)], demonstration


def _tabulate(segments: Sequence[Segment]) -> Table:
    images = torch.stack([segment.image for segment in segments])
    return Table(
        demonstrations=_turns([s.demonstration for s in segments], images),
        queries=_turns([s.query for s in segments], images),
        # Teacher forcing: every answer token but the last is an input.
        forced=_turns([s.query + s.answer[:-1] for s in segments], images),
        answers=_turns([s.answer for s in segments], images),
    )


def _turns(ids: Sequence[tuple[int, ...]], images: Tensor) -> Turns:
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    return Turns(padded, torch.tensor([len(row) for row in ids]), images)
