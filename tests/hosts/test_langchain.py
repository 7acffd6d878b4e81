"""LangChain's own prompts show what the selector chooses."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import LangChainException
from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate

from hosts.conftest import Asked
from lever_plus import load_selector
from lever_plus.data.examples import Example
from lever_plus.data.images import image_url
from lever_plus.hosts.langchain import LeverPlusExampleSelector, SelectionError
from lever_plus.selectors.live_pool import LivePool
from trained_selector import SHOTS

PARTS: list[Any] = [
    {"type": "image_url", "image_url": {"url": "{image}"}},
    {"type": "text", "text": "{question}"},
]


@pytest.fixture
def selector(checkpoint: Path, asked: Asked) -> LeverPlusExampleSelector:
    return LeverPlusExampleSelector(load_selector(checkpoint), asked.pool, SHOTS, images="path")


def shown(examples: tuple[Example, ...]) -> list[dict[str, str]]:
    return [{"image": e.image, "question": e.question, "answer": e.answer} for e in examples]


def test_200_unseen_queries_get_the_demonstrations_of_the_selector(
    selector: LeverPlusExampleSelector, asked: Asked
) -> None:
    found = [
        selector.select_examples({"image": query.image, "question": query.question})
        for query in asked.queries
    ]
    assert found == [shown(examples) for examples in asked.chosen]
    assert len({str(each) for each in found}) > 20


def test_data_urls_and_many_at_once_change_nothing(
    selector: LeverPlusExampleSelector, asked: Asked
) -> None:
    def variables(number: int) -> dict[str, str]:
        query = asked.queries[number]
        content = base64.b64encode(Path(query.image).read_bytes()).decode()
        return {"image": f"data:image/png;base64,{content}", "question": query.question}

    async def select_all() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(selector.aselect_examples(variables(n)) for n in range(20)))

    assert asyncio.run(select_all()) == [shown(examples) for examples in asked.chosen[:20]]


def test_a_chat_prompt_shows_them_with_their_images(checkpoint: Path, asked: Asked) -> None:
    turn = ChatPromptTemplate.from_messages([("human", PARTS), ("ai", "{answer}")])
    few_shot = FewShotChatMessagePromptTemplate(
        input_variables=["image", "question"],
        example_selector=LeverPlusExampleSelector(load_selector(checkpoint), asked.pool, SHOTS),
        example_prompt=turn,
    )
    prompt = ChatPromptTemplate.from_messages([few_shot, ("human", PARTS)])
    query, chosen = asked.queries[0], asked.chosen[0]
    variables = {"image": image_url(query.image), "question": query.question}
    messages = prompt.format_messages(**variables)
    assert messages == asyncio.run(prompt.aformat_messages(**variables))
    assert [message.type for message in messages] == ["human", "ai"] * SHOTS + ["human"]
    assert [_image(message) for message in messages[::2]] == [
        *(image_url(example.image) for example in chosen),
        variables["image"],
    ]
    assert [message.content for message in messages[1::2]] == [e.answer for e in chosen]


def _image(message: BaseMessage) -> str:
    part: Any = message.content[0]
    url: str = part["image_url"]["url"]
    return url


def test_an_added_example_may_be_chosen(checkpoint: Path, asked: Asked) -> None:
    last = asked.chosen[0][0]
    others = [example for example in asked.pool if example != last]
    selector = LeverPlusExampleSelector(load_selector(checkpoint), others, SHOTS, images="path")
    number = selector.add_example(
        {"image": last.image, "question": last.question, "answer": last.answer}
    )
    assert selector.pool[-1].question_id == number
    assert len({example.question_id for example in selector.pool}) == len(asked.pool)
    for query, chosen in zip(asked.queries, asked.chosen, strict=True):
        if last in chosen:
            found = selector.select_examples({"image": query.image, "question": query.question})
            assert found == shown(chosen)


def test_a_pool_that_is_kept_keeps_what_is_added_with_its_image(
    checkpoint: Path, asked: Asked, tmp_path: Path
) -> None:
    chosen, query = load_selector(checkpoint), asked.queries[0]
    pool = LivePool(chosen, asked.pool, folder=tmp_path / "pool")
    selector = LeverPlusExampleSelector(chosen, pool, SHOTS, images="path")
    example = {"image": image_url(query.image), "question": "What is new?", "answer": "red"}
    number = selector.add_example(example)
    again = LivePool(load_selector(checkpoint), folder=tmp_path / "pool").examples
    assert again == selector.pool
    assert (again[-1].question_id, again[-1].question) == (number, "What is new?")
    assert Path(again[-1].image).parent == tmp_path / "pool" / "images"
    # What a question shows is kept nowhere.
    asking = {"image": image_url(asked.queries[1].image), "question": asked.queries[1].question}
    assert selector.select_examples(asking) == shown(asked.chosen[1])
    assert len(list((tmp_path / "pool" / "images").iterdir())) == 1
    with pytest.raises(SelectionError, match="this pool belongs to another selector"):
        LeverPlusExampleSelector(load_selector(checkpoint), pool, SHOTS)


def test_examples_that_are_added_at_once_have_numbers_of_their_own(
    selector: LeverPlusExampleSelector, asked: Asked
) -> None:
    image = asked.pool[0].image
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(
                lambda n: selector.add_example(
                    {"image": image, "question": f"What is {n}?", "answer": "red"}
                ),
                range(64),
            )
        )
    assert len(set(numbers)) == 64
    assert len(selector.pool) == len(asked.pool) + 64


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"question": "What?"}, '"image" is missing'),
        ({"image": "nowhere.png", "question": "What?"}, "image nowhere.png cannot be read"),
        ({"image": "red", "question": "What?"}, "image red cannot be read"),
        ({"image": "https://a.org/b.png", "question": "What?"}, "nothing is downloaded"),
        ({"image": None}, '"question" is missing or is not a string'),
        ({"image": None, "question": " "}, '"question" has no text'),
        (
            {"image": None, "question": "What <image>?"},
            "which VLMs read as a special token, not as text",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_langchain(
    variables: dict[str, str], said: str, selector: LeverPlusExampleSelector, asked: Asked
) -> None:
    given = {k: asked.queries[0].image if v is None else v for k, v in variables.items()}
    with pytest.raises(LangChainException, match=said):
        selector.select_examples(given)


def test_a_pool_that_is_too_small_or_has_a_missing_image_is_refused(
    checkpoint: Path, asked: Asked
) -> None:
    query, chosen = asked.queries[0], load_selector(checkpoint)
    few = LeverPlusExampleSelector(chosen, asked.pool[:1], SHOTS)
    with pytest.raises(SelectionError, match="use a larger pool, or fewer shots"):
        few.select_examples({"image": query.image, "question": query.question})
    with pytest.raises(SelectionError, match="image gone.png cannot be read"):
        LeverPlusExampleSelector(chosen, [Example("gone.png", "What?", "red")], SHOTS)
