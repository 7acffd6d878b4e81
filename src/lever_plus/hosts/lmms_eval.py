"""Learned demonstrations in lmms-eval: what a task's YAML names with `!function`.

    doc_to_messages: !function lever_plus.hosts.lmms_eval.doc_to_messages
    lmms_eval_specific_kwargs:
      default: {checkpoint: artifacts/grpo/seed1/grpo, pool: pool.jsonl, shots: 2}

Questions are asked as this project's own prompts ask them: demonstrations are turns of the chat.
Nothing of lmms-eval is imported here: a task is plain functions.
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
    """A question cannot be shown; it says why, and what to do."""


class Settings(Row):
    """What `lmms_eval_specific_kwargs` of a task may say.

    Attributes:
        checkpoint: Folder of a trained selector, or user/name on the Hugging Face Hub; none: all
            questions get the first examples of the pool.
        pool: File of the examples that may be shown, see `read_pool`.
        shots: Demonstrations; 0 asks without.
        price: Of a demonstration, for selectors that learned to stop.
        encoder: Folder of the CLIP, if it is not where it was in training.
        features: Folder in which encoded images and texts are kept.
        instruction: Text after every question, such as "Answer in one word.".
        image, question: Names of a document's fields.
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
    """Return the demonstrations of a question, each as two turns, and the question.

    Raises:
        SelectionError: A setting is wrong, the image of the document does not open, its question is
            no text, or the pool is too small.
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
    """Open images as this project does, whatever the models of lmms-eval have set.

    Some make Pillow fill what is missing of a damaged image with black, for the whole process.
    """
    with _OPENING:
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def doc_to_visual(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> list[Image.Image]:
    """Return the images of `doc_to_messages`, in order: for models that are not asked in turns."""
    turns = doc_to_messages(doc, lmms_eval_specific_kwargs)
    return [part["url"] for turn in turns for part in turn["content"] if part["type"] == "image"]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    """Return the texts of `doc_to_messages` with a mark for every image, a line each."""
    turns = doc_to_messages(doc, lmms_eval_specific_kwargs)
    parts = ([part.get("text", "<image>") for part in turn["content"]] for turn in turns)
    return "\n".join(" ".join(part) for part in parts)


def process_results(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return the official VQA accuracy of an answer, in [0, 1], by the human ones (`answers`).

    Raises:
        SelectionError: The document has no human answers.
    """
    answers = _field(doc, ANSWERS)
    if not answers:
        raise SelectionError(f"a document has no human {ANSWERS}: accuracy compares with them.")
    return {METRIC: vqa_accuracy(str(results[0]) if results else "", list(answers))}


def _settings(given: Any) -> Settings:
    own = dict(given or {})
    # lmms-eval leaves the table of all models beside what is for this one.
    known = {name: value for name, value in own.items() if not isinstance(value, Mapping)}
    return checked(Settings, known, KEY, "mend the task's YAML")


def _field(doc: Doc, name: str) -> Any:
    if name not in doc:
        raise SelectionError(
            f"a document has no field {name!r}, only {', '.join(map(str, doc))}: name its fields "
            f"under {KEY} (image, question)."
        )
    return doc[name]


def _image(image: Any) -> object:
    """Return an image of a data set as a path, a data URL or bytes."""
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
        raise UserError(f"{KEY} names no pool, but wants {settings.shots} demonstrations of it.")
    pool = read_pool(settings.pool)
    return Chooser(_selector(settings, pool), pool, settings.shots)


def _selector(settings: Settings, pool: list[Example]) -> Selector:
    if settings.checkpoint is None:
        return FixedSelector(pool, bound_to_pools=True)
    return load_selector(
        settings.checkpoint, settings.encoder, features=settings.features, price=settings.price
    )
