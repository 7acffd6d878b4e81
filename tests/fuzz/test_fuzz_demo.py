"""The page gets files that are no images, odd questions and numbers: sentences, no tracebacks."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from texts import VALUES, damaged

from lever_plus.data.examples import Example
from lever_plus.hosts.demo.play import Playground
from lever_plus.hosts.demo.world import own_world
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.request import Request
from tiny_world import World
from trained_selector import SHOTS


class Says:
    """A VLM that always says the same."""

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        return [description for _ in requests]


@pytest.fixture(scope="module")
def play(trained: LearnedSelector, world: World) -> Playground:
    vlm: Any = Says()
    return Playground(trained, lambda: vlm, own_world("cards", world.splits["train"]), SHOTS)


def test_what_is_asked(play: Playground, world: World, tmp_path: Path) -> None:
    example = world.splits["test"][0]

    def ask(image: object, question: object) -> None:
        found = play.ask(play.query(image, question))
        assert {shown.answer for shown in found.shown} == {"answers"}

    def inputs() -> Iterator[Bad]:
        content = Path(example.image).read_bytes()
        for number, (how, bad) in enumerate(damaged(content, random.Random(7), 100)):
            file = tmp_path / f"{number}.png"
            file.write_bytes(bad)
            yield Bad(how, lambda file=file: ask(str(file), "What?"), (file.name,))  # type: ignore[misc]
        for value in VALUES:
            yield Bad(
                f"question {str(value)[:20]!r}",
                lambda value=value: ask(example.image, value),  # type: ignore[misc]
                ("question",),
            )
            yield Bad(
                f"image {str(value)[:20]!r}",
                lambda value=value: ask(value, "What?"),  # type: ignore[misc]
                ("image",),
            )

    counts = try_all("demo: image and question", inputs())
    assert counts["refused"] > 50


def test_what_a_hand_shows(play: Playground, world: World) -> None:
    example, rng = world.splits["test"][0], random.Random(8)
    known = [each.question_id for each in world.splits["train"]]

    def show(numbers: list[Any]) -> None:
        shown = play.ask_by_hand(example.query, numbers)
        assert [each.question_id for each in shown.examples] == numbers
        assert len(numbers) == len(set(numbers)) <= 8
        assert all(isinstance(each, Example) for each in shown.examples)

    def inputs() -> Iterator[Bad]:
        for _ in range(120):
            numbers = rng.choices([*known, 0, -1, 10**30, example.question_id], k=rng.randrange(12))
            yield Bad(str(numbers), lambda n=numbers: show(n), ("demonstration", "example"))  # type: ignore[misc]

    try_all("demo: by hand", inputs())
