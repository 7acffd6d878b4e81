"""The MLflow model of a trained selector: its requests, its replies, and how it makes them.

Each row of a request has an image and a question; see `Asked`. A bad request raises MLflow's own
error INVALID_PARAMETER_VALUE, to which MLflow's server answers with status 400.
"""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from lever_plus.data.examples import Example, Query, fresh_ids
from lever_plus.errors import UserError, needs
from lever_plus.files.checking import STRICT, Row, checked
from lever_plus.files.json_files import json_lines_as
from lever_plus.hosts.chooser import Chooser, query_of, text_of
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selection
from lever_plus.selectors.learned import load_selector
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.open import open_vlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.cached import StoredVlm

with needs("tracking", "lever_plus.hosts.mlflow"):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
    from mlflow.pyfunc.model import PythonModel, PythonModelContext

CHECKPOINT: Final = "checkpoint"
POOL: Final = "pool"
"""Names of the model's artifacts."""
NEEDED: Final = {
    "image": '"image" is missing: every question needs an image.',
    "question": '"question" is missing or is not a string: send a string.',
}


class SelectionError(MlflowException, UserError):
    """A request can't be answered; the message says why, and what to do."""

    def __init__(self, error: UserError) -> None:
        """Take over an error's message; the code tells a bad request from a failed VLM server."""
        down = isinstance(error, ServerError)
        code = TEMPORARILY_UNAVAILABLE if down else INVALID_PARAMETER_VALUE
        super().__init__(str(error), error_code=code)


class Options(Row):
    """How a model selects; MLflow keeps this as its `model_config`, which loading may override.

    Attributes:
        shots: Number of demonstrations if a request does not say it.
        price: Price of a demonstration (or token), for a selector that learned to stop.
        encoder: See `load_selector`.
        device: See `load_selector`.
        features: Folder that keeps the features of images and texts; None keeps them in memory.
        vlm: The VLM that answers: a folder, a hub id, "shipped:vlm", or a dictionary of arguments
            for `open_vlm` such as {"model": ..., "url": ...}; None: questions are not answered.
    """

    shots: int = Field(default=2, ge=1)
    price: float | None = None
    encoder: str | None = None
    device: str = "cpu"
    features: str | None = None
    vlm: str | dict[str, Any] | None = None


class Shown(BaseModel):
    """An example of a pool.

    Attributes:
        image: See `Asked`.
        question: Its question.
        answer: Its answer.
        question_id: Its id; None takes the next free number.
    """

    model_config = STRICT
    image: str
    question: str
    answer: str
    question_id: int | None = None


class Asked(BaseModel):
    """A row of a request.

    Attributes:
        image: Path of a file on the model's machine, a data URL, or the base64 of an image file.
        question: The question about the image.
        pool: Examples to choose from; None: the model's own pool.
        shots: Number of demonstrations; None: the model's own number.
    """

    model_config = STRICT
    image: str
    question: str
    pool: list[Shown] | None = None
    shots: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _explained(cls, row: Any) -> Any:
        for name, said in NEEDED.items():
            if isinstance(row, dict) and row.get(name) is None:
                raise ValueError(said)
        return row


class Demonstration(BaseModel):
    """A chosen example.

    Attributes:
        question_id: Its id.
        image: A data URL if it is from the model's pool; else what the request's pool gave.
        question: Its question.
        answer: Its answer.
        probability: Probability of the pick, if a policy made it.
    """

    question_id: int
    image: str
    question: str
    answer: str
    probability: float | None = None


class Chosen(BaseModel):
    """A row of a reply: demonstrations in the prompt's order, and the VLM's answer or None."""

    demonstrations: list[Demonstration]
    answer: str | None = None


class SelectorModel(PythonModel):
    """Chooses demonstrations for every row; if there is a VLM, it also answers the question."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the selector, its pool and the VLM; raise SelectionError if that fails."""
        try:
            self._load(context.artifacts, context.model_config or {})
        except UserError as error:
            raise SelectionError(error) from error

    def _load(self, artifacts: dict[str, str], config: dict[str, Any]) -> None:
        options = checked(Options, config, "the model_config", "correct it")
        self._selector = load_selector(
            artifacts[CHECKPOINT],
            options.encoder,
            device=options.device,
            features=options.features,
            price=options.price,
        )
        self._kept, self._shots = Pictures(), options.shots
        rows = json_lines_as(Shown, Path(artifacts[POOL]), "log the model again")
        self._chooser = self._with_pool(rows, self._kept)
        self._vlm, self._asking = _opened(options.vlm), threading.Lock()

    def _with_pool(self, rows: Iterable[Shown], pictures: Pictures) -> Chooser:
        """Return a chooser for these examples; `pictures` keeps their images."""
        rows = list(rows)
        fresh = fresh_ids(row.question_id or 0 for row in rows)
        pool = [
            Example(
                pictures.path(row.image),
                text_of(row.question, "question"),
                text_of(row.answer, "answer"),
                question_id=next(fresh) if row.question_id is None else row.question_id,
            )
            for row in rows
        ]
        return Chooser(self._selector, pool, self._shots)

    def predict(  # type: ignore[override]  # MLflow passes no context where none is named
        self, model_input: list[Asked], params: dict[str, Any] | None = None
    ) -> list[Chosen]:
        """Return the demonstrations for every row, and the VLM's answer if there is a VLM.

        Args:
            model_input: The rows; neighbouring rows with the same pool are processed together.
            params: Must be empty: the model has no params.

        Raises:
            SelectionError: A row can't be answered, for example because its image can't be opened,
                its pool is too small, or the VLM's server is down.
        """
        if params:
            raise SelectionError(
                UserError(
                    f"this model takes no params, but got {', '.join(params)}: send only rows with "
                    "an image and a question."
                )
            )
        try:
            # A request's images are kept in files until it is answered.
            with Pictures() as pictures:
                return self._answered(model_input, pictures)
        except UserError as error:
            raise SelectionError(error) from error

    def _answered(self, rows: Sequence[Asked], pictures: Pictures) -> list[Chosen]:
        chosen: list[Chosen] = []
        for (pool, shots), group in groupby(rows, key=lambda row: (row.pool, row.shots)):
            chooser = self._chooser if pool is None else self._with_pool(pool, pictures)
            # A client that names a file of this machine must not get its content.
            given = {pictures.path(row.image): row.image for row in pool or ()}
            queries = [query_of(pictures, row.image, row.question) for row in group]
            selections = chooser.choose_all(queries, shots)
            answers = self._answers(queries, selections)
            chosen += [
                Chosen(demonstrations=_shown(chooser, given, selection), answer=answer)
                for selection, answer in zip(selections, answers, strict=True)
            ]
        return chosen

    def _answers(
        self, queries: Sequence[Query], selections: Sequence[Selection]
    ) -> Sequence[str | None]:
        if self._vlm is None:
            return [None] * len(queries)
        pairs = zip(queries, selections, strict=True)
        with self._asking:
            return self._vlm.answers([Request(shown.examples, query) for query, shown in pairs])


def _opened(vlm: str | dict[str, Any] | None) -> StoredVlm | None:
    if vlm is None or isinstance(vlm, str):
        return None if vlm is None else open_vlm(vlm)
    try:
        return open_vlm(**vlm)
    except TypeError as error:
        raise UserError(f"vlm: {error}: give only arguments of lever_plus.open_vlm.") from error


def _shown(chooser: Chooser, given: Mapping[str, str], selection: Selection) -> list[Demonstration]:
    """Return the chosen examples; `given` maps files to images as a request's pool gave them."""
    chances: Sequence[float | None] = [round(math.exp(p), 6) for p in selection.log_probs]
    chances = chances or [None] * len(selection.examples)
    return [
        Demonstration(
            question_id=example.question_id,
            image=given.get(example.image) or chooser.url(example),
            question=example.question,
            answer=example.answer,
            probability=chance,
        )
        for example, chance in zip(selection.examples, chances, strict=True)
    ]
