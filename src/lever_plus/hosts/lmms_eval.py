"""Learned demonstrations in lmms-eval: functions that a task's YAML names with `!function`.

    doc_to_messages: !function lever_plus.hosts.lmms_eval.doc_to_messages
    lmms_eval_specific_kwargs:
      default: {checkpoint: artifacts/grpo/seed1/grpo, pool: pool.jsonl, shots: 2}

Questions are asked in this project's own prompts, where demonstrations are turns of the chat.
Nothing of lmms-eval is imported here, because its tasks are plain functions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from threading import Lock
from typing import Any, Final

from PIL import Image, ImageFile
from pydantic import Field, NonNegativeInt

from lever_plus.data.examples import Example, Query
from lever_plus.data.images import open_image
from lever_plus.data.pool_files import read_pool
from lever_plus.errors import UserError
from lever_plus.files.checking import Row, checked
from lever_plus.hosts.chooser import Chooser, query_of
from lever_plus.hosts.pictures import Pictures
from lever_plus.metric import vqa_accuracy
from lever_plus.selectors.base import Selector
from lever_plus.selectors.baselines import FixedSelector
from lever_plus.selectors.learned import load_selector
from lever_plus.vlm.prompt import Message, PromptFormat, messages

KEY: Final = "lmms_eval_specific_kwargs"
METRIC: Final = "vqa_accuracy"
ANSWERS: Final = "answers"
Doc = Mapping[str, Any]
_OPENING: Final = Lock()


class SelectionError(UserError, ValueError):
    """A question can't be asked; the message says why, and what to do."""


class Settings(Row):
    """The keys that a task's `lmms_eval_specific_kwargs` may have.

    Attributes:
        checkpoint: Folder of a trained selector, or user/name on the Hugging Face Hub. Without it,
            all questions get the first examples of the pool.
        pool: File of the examples to choose from, see `read_pool`.
        shots: Number of demonstrations; 0 asks without any.
        price: Price of a demonstration (or token), for selectors that learned to stop.
        encoder: Folder of the CLIP encoder, if it is not where it was in training.
        features: Folder that keeps the features of images and texts.
        instruction: Text after every question, such as "Answer in one word.".
        image: Name of a document's field that has the image.
        question: Name of a document's field that has the question.
    """

    checkpoint: str | None = None
    pool: str | None = None
    shots: NonNegativeInt = 2
    price: float | None = Field(default=None, ge=0)
    encoder: str | None = None
    features: str | None = None
    instruction: str = ""
    image: str = "image"
    question: str = "question"


def doc_to_messages(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> list[Message]:
    """Return the chat for a document: two turns for each demonstration, then the question.

    Args:
        doc: A document of the task's data set.
        lmms_eval_specific_kwargs: See `Settings`.

    Raises:
        SelectionError: A setting is wrong, the document's image can't be opened, its question is
            not a text, or the pool is too small.
    """
    try:
        with _whole_images():
            return _turns(doc, _settings(lmms_eval_specific_kwargs))
    except UserError as error:
        raise SelectionError(str(error)) from error


def _turns(doc: Doc, settings: Settings) -> list[Message]:
    image, question = _image(_field(doc, settings.image)), _field(doc, settings.question)
    prompt = PromptFormat(instruction=settings.instruction)
    with Pictures() as pictures:
        query = query_of(pictures, image, question)
        shown: tuple[Example, ...] = ()
        if settings.shots:
            shown = _chooser(settings).choose_all([query])[0].examples
        return _with_images(shown, query, prompt)


@contextmanager
def _whole_images() -> Iterator[None]:
    """Open images as this project does, whatever lmms-eval's models have set in Pillow.

    Some of them make Pillow fill the missing part of a truncated image, for the whole process.
    """
    with _OPENING:
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def doc_to_visual(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> list[Image.Image]:
    """Return the images of `doc_to_messages` in order, for models that do not take chats."""
    turns = doc_to_messages(doc, lmms_eval_specific_kwargs)
    return [part["url"] for turn in turns for part in turn["content"] if part["type"] == "image"]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    """Return the texts of `doc_to_messages`, one turn per line, with "<image>" for every image."""
    turns = doc_to_messages(doc, lmms_eval_specific_kwargs)
    parts = ([part.get("text", "<image>") for part in turn["content"]] for turn in turns)
    return "\n".join(" ".join(part) for part in parts)


def process_results(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return the VQA accuracy of an answer, in [0, 1].

    Args:
        doc: A document; its field `answers` has the human answers.
        results: The model's answer, a list of one.

    Raises:
        SelectionError: The document has no human answers.
    """
    answers = _field(doc, ANSWERS)
    if not answers:
        raise SelectionError(
            f"a document has no {ANSWERS}: the accuracy needs the human answers in this field."
        )
    return {METRIC: vqa_accuracy(str(results[0]) if results else "", list(answers))}


def _settings(given: Any) -> Settings:
    own = dict(given or {})
    # lmms-eval also leaves the settings of all models here, as mappings.
    known = {name: value for name, value in own.items() if not isinstance(value, Mapping)}
    return checked(Settings, known, KEY, "correct the task's YAML")


def _field(doc: Doc, name: str) -> Any:
    if name not in doc:
        raise SelectionError(
            f"a document has no field {name!r}, only {', '.join(map(str, doc))}: say under {KEY} "
            "which fields have the image and the question (image, question)."
        )
    return doc[name]


def _image(image: Any) -> object:
    """Return an image of a data set as a path, a data URL, or the bytes of an image file."""
    if isinstance(image, Image.Image):
        stream = BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()
    if isinstance(image, Mapping):
        return image.get("bytes") or image.get("path")
    return image


def _with_images(shown: tuple[Example, ...], query: Query, prompt: PromptFormat) -> list[Message]:
    images = iter([*(example.image for example in shown), query.image])
    turns = messages(shown, query, prompt)
    for turn in turns:
        for part in turn["content"]:
            if part["type"] == "image":
                part["url"] = open_image(next(images))
    return turns


@lru_cache(maxsize=8)
def _chooser(settings: Settings) -> Chooser:
    if settings.pool is None:
        raise UserError(
            f"{KEY} asks for {settings.shots} demonstrations, but names no pool: set pool, or set "
            "shots to 0."
        )
    pool = read_pool(settings.pool)
    return Chooser(_selector(settings, pool), pool, settings.shots)


def _selector(settings: Settings, pool: list[Example]) -> Selector:
    if settings.checkpoint is None:
        return FixedSelector(pool, bound_to_pools=True)
    return load_selector(
        settings.checkpoint, settings.encoder, features=settings.features, price=settings.price
    )
