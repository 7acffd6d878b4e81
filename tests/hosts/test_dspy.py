"""DSPy's own modules show the language model what the selector chooses."""

import asyncio
from copy import deepcopy
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from dspy.utils.exceptions import DSPyError

from hosts.conftest import Asked
from lever_plus import load_selector
from lever_plus.data.examples import Example
from lever_plus.data.images import image_url
from lever_plus.hosts.dspy import LeverPlusPredict, SelectionError
from trained_selector import SHOTS

SIGNATURE = "image: dspy.Image, question: str -> answer: str"


class Repeats:
    """An engine that answers what the last demonstration answers, and keeps what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.requests: list[Any] = []

    def complete(self, request: Any) -> Any:
        self.requests.append(request)
        said = [message.text for message in request.messages if message.role == "assistant"]
        return Response(
            id=None,
            model="repeats",
            message=Message.assistant([TextPart(said[-1])]),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )


class RepeatsLater:
    """The same, asynchronously."""

    async def complete(self, request: Any) -> Any:
        return Repeats().complete(request)


def language_model(engine: Repeats) -> Any:
    return dspy.LM("repeats", engine=engine, async_engine=RepeatsLater(), cache=False)


@pytest.fixture
def module(checkpoint: Path, asked: Asked) -> LeverPlusPredict:
    return LeverPlusPredict(SIGNATURE, load_selector(checkpoint), asked.pool, SHOTS)


def rows(asked: Asked, count: int) -> list[Any]:
    """Return questions as DSPy's examples; each is answered as its last demonstration is."""
    return [
        dspy.Example(
            image=dspy.Image.from_path(query.image),
            question=query.question,
            answer=chosen[-1].answer,
        ).with_inputs("image", "question")
        for query, chosen in zip(asked.queries[:count], asked.chosen, strict=False)
    ]


def contents(examples: tuple[Example, ...]) -> list[tuple[str, str, str]]:
    return [(image_url(e.image), e.question, e.answer) for e in examples]


def test_200_unseen_queries_get_the_demonstrations_of_the_selector(
    module: LeverPlusPredict, asked: Asked
) -> None:
    for row, chosen in zip(rows(asked, 200), asked.chosen, strict=True):
        found = module.demonstrations(**row.inputs())
        assert [(d.image.url, d.question, d.answer) for d in found] == contents(chosen)


def test_evaluate_shows_them_to_the_language_model(module: LeverPlusPredict, asked: Asked) -> None:
    engine, count = Repeats(), 20

    def exact(row: Any, found: Any, _trace: object = None) -> bool:
        return bool(row.answer == found.answer)

    with dspy.context(lm=language_model(engine)):
        result = dspy.Evaluate(devset=rows(asked, count), metric=exact, num_threads=4)(module)
    assert result.score == 100
    assert len(engine.requests) == count
    for request in engine.requests:
        roles = [message.role for message in request.messages]
        assert roles == ["user", "assistant"] * SHOTS + ["user"]
        images = [
            part.type
            for message in request.messages
            for part in message.parts
            if part.type == "image"
        ]
        assert len(images) == SHOTS + 1


def test_it_is_asked_asynchronously_and_survives_being_saved_and_copied(
    module: LeverPlusPredict, checkpoint: Path, asked: Asked, tmp_path: Path
) -> None:
    row = rows(asked, 1)[0]
    module.save(tmp_path / "module.json")
    other = LeverPlusPredict(SIGNATURE, load_selector(checkpoint), asked.pool, SHOTS)
    other.load(tmp_path / "module.json")
    for each in (module, other, deepcopy(module), module.deepcopy(), module.reset_copy()):
        with dspy.context(lm=language_model(Repeats())):
            assert each(**row.inputs()).answer == row.answer
            assert asyncio.run(each.acall(**row.inputs())).answer == row.answer


def test_fields_may_have_other_names(checkpoint: Path, asked: Asked) -> None:
    names = {"image": "photo", "question": "ask", "answer": "reply"}
    signature = "photo: dspy.Image, ask: str, tone: str -> thought: str, reply: str"
    module = LeverPlusPredict(signature, load_selector(checkpoint), asked.pool, SHOTS, **names)
    query = asked.queries[0]
    shown = module.demonstrations(photo=dspy.Image.from_path(query.image), ask=query.question)
    found = [(d.photo.url, d.ask, d.reply) for d in shown]
    assert found == contents(asked.chosen[0])
    with pytest.raises(SelectionError, match="needs 'image' but has the inputs photo"):
        LeverPlusPredict(signature, load_selector(checkpoint), asked.pool, SHOTS)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"question": "What?"}, '"image" is missing'),
        ({"image": "nowhere.png", "question": "What?"}, "image nowhere.png cannot be read"),
        ({"image": "https://a.org/b.png", "question": "What?"}, "nothing is downloaded"),
        ({"image": None, "question": " "}, '"question" has no text'),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_dspy(
    inputs: dict[str, Any], said: str, module: LeverPlusPredict, asked: Asked
) -> None:
    given = {k: asked.queries[0].image if v is None else v for k, v in inputs.items()}
    with pytest.raises(DSPyError, match=said), dspy.context(lm=language_model(Repeats())):
        module(**given)
