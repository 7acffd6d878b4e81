"""The instruction that is best on dev; the stored answers of different ones never mix."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.evaluation.instructions import best_instruction, tried_in
from lever_plus.evaluation.methods import INSTRUCTED
from lever_plus.report.sections import instruction_section
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from lever_plus.vlm.usage import Usage

RIGHT = {"": (0,), "in words": (1, 2, 3), "briefly": (3, 2, 1), "loudly": (0, 1)}
"""{instruction: questions that are answered right with it}."""
EXAMPLES = [
    Example(f"{i}.png", f"question {i}", "yes", ("yes",) * 10, i, i // 2, f"{i:064x}")
    for i in range(4)
]


class Echo:
    """A back end that is right if its instruction suits the question."""

    def __init__(self, instruction: str = "") -> None:
        """Start with nothing asked."""
        self.prompt, self.usage = PromptFormat(instruction=instruction), Usage()
        self.identity = VlmIdentity(
            model="m", revision="r", dtype="d", prompt_hash=instruction or "none", generation="g"
        )
        self.asked: list[tuple[str, Request]] = []

    def instructed(self, instruction: str) -> "Echo":
        """Return a copy with another instruction; both note what they are asked in one list."""
        other = Echo(instruction)
        other.usage, other.asked = self.usage, self.asked
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        text = self.prompt.instruction
        self.asked += [(text, request) for request in requests]
        found = [
            "yes" if int(request.query.question[-1]) in RIGHT[text] else "no"
            for request in requests
        ]
        done(range(len(found)), found)
        return found

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        raise AssertionError(requests, done)


def test_the_best_is_chosen_and_ties_go_to_the_first() -> None:
    backend = Echo()
    for texts, best in ((["", "in words", "briefly"], 1), (["briefly", "in words", "loudly"], 0)):
        found = best_instruction(StoredVlm(backend, None), texts, EXAMPLES, 100)
        assert found.vlm.prompt.instruction == texts[best]
        assert [row["instruction"] for row in found.rows if row["chosen"]] == [texts[best]]
        shares = [len(RIGHT[text]) / 4 for text in texts]
        assert [row["accuracy"] for row in found.rows] == shares
        assert all(row["ci95"][0] <= row["accuracy"] <= row["ci95"][1] for row in found.rows)
        assert {row["n"] for row in found.rows} == {4}
        assert found.requests == len(backend.asked) == 12
        backend.asked.clear()


def test_scores_that_differ_by_rounding_alone_are_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same three scores, added in another order, differ in the last digit."""
    monkeypatch.setitem(RIGHT, "forth", (0, 1, 2))
    monkeypatch.setitem(RIGHT, "back", (3, 4, 5))
    humans = [2, 4, 1, 1, 4, 2]  # so many of ten say yes
    examples = [
        replace(
            EXAMPLES[0],
            question=f"question {i}",
            answers=("yes",) * count + ("maybe",) * (10 - count),
            question_id=i,
            image_sha256=f"{i:064x}",
        )
        for i, count in enumerate(humans)
    ]
    for texts in (["forth", "back"], ["back", "forth"]):
        found = best_instruction(StoredVlm(Echo(), None), texts, examples, 100)
        assert found.vlm.prompt.instruction == texts[0]


def test_stored_answers_of_two_instructions_never_mix(tmp_path: Path) -> None:
    store = Store(tmp_path / "answers.sqlite")
    requests = [Request((), example.query) for example in EXAMPLES]
    vlm = StoredVlm(Echo(), store)
    first = {text: vlm.instructed(text).answers(requests) for text in RIGHT}
    for text, right in RIGHT.items():
        assert [i for i, answer in enumerate(first[text]) if answer == "yes"] == sorted(right)
    again = Echo()
    stored = StoredVlm(again, store)
    assert {text: stored.instructed(text).answers(requests) for text in RIGHT} == first
    assert again.asked == []
    assert again.usage.hits == 16  # the work of all is counted in one place
    assert stored.instructed("") is stored


def test_a_back_end_without_instructions_says_so() -> None:
    class Mute:
        identity, prompt, usage = Echo().identity, PromptFormat(), Usage()
        answers, log_likelihoods = Echo().answers, Echo().log_likelihoods

    with pytest.raises(UserError, match=r"your own, .* Set evaluate\.instructions to \[\]"):
        StoredVlm(Mute(), None).instructed("briefly")


def test_what_was_tried_is_read_back_and_shown() -> None:
    found = best_instruction(StoredVlm(Echo(), None), ["", "in words"], EXAMPLES, 100)
    rows = tried_in({"instructions": found.rows}, Path("diagnostics.json"))
    html = instruction_section([*rows, {**rows[0], "instruction": "<b>"}])
    assert html.startswith("<details>")
    assert INSTRUCTED in html
    assert "<td>in words</td><td>75.0 [" in html
    assert html.count("<td>best</td>") == 1
    assert "<td>&lt;b&gt;</td>" in html
    assert tried_in({}, Path("diagnostics.json")) == []
    assert instruction_section([]) == ""
    with pytest.raises(UserError, match=r"diagnostics\.json.*run `dvc repro evaluate`"):
        tried_in({"instructions": [{**rows[0], "accuracy": 2.0}]}, Path("diagnostics.json"))
