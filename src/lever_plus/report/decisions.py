"""What every method showed the VLM before one question, and what the VLM answered.

The page and `lever-plus show` read the same decisions. Of a method with several seeds, only the
first is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import pandas as pd

from lever_plus.config.names import GRPO
from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import ORACLE, Methods

POLICY: Final = GRPO
"""`FLAGS` compare this method with the first one that learns offline, and with the oracle."""
FLAGS: Final = {
    "gained": "GRPO right, RCE wrong",
    "lost": "GRPO wrong, RCE right",
    "missed": "GRPO wrong, oracle right",
}
"""{key of a filter: what it shows}."""


class Reader(Protocol):
    """Knows what the VLM must be told for each question, as the ideal reader does."""

    def needs(self, query_id: int) -> tuple[str, ...]:
        """Return what only demonstrations can tell about a question."""
        ...

    def kinds(self, query_id: int, pointer: Sequence[int]) -> Sequence[str]:
        """Return what kind every pick of a pointer is for a question."""
        ...


class Answered(NamedTuple):
    """The VLM's answer after the demonstrations of `pointer`.

    Attributes:
        shot: Demonstrations asked for; a selector that stops shows fewer.
        pointer: Ids of those shown, in order.
        answer: What the VLM said.
        right: Whether any human gave this answer.
        score: VQA accuracy in [0, 1], convention "community".
        kinds: Of the picks, where a `Reader` knows them.
    """

    shot: int
    pointer: tuple[int, ...]
    answer: str
    right: bool
    score: float
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What one method chose.

    Attributes:
        method: Its name.
        seed: Its training or sampling seed, None where it has none.
        answers: At every shot, the smallest first.
        log_probs: Of every pick, where a policy made them.
    """

    method: str
    seed: int | None
    answers: tuple[Answered, ...]
    log_probs: tuple[float, ...]

    @property
    def pointer(self) -> tuple[int, ...]:
        """Return the longest pointer."""
        return self.answers[-1].pointer

    @property
    def nested(self) -> bool:
        """Whether every shot shows the first demonstrations of one pointer.

        Not so for the oracle.
        """
        return all(a.pointer == self.pointer[: len(a.pointer)] for a in self.answers)

    @property
    def right(self) -> bool:
        """Whether the answer at the last shot is right."""
        return self.answers[-1].right


@dataclass(frozen=True, slots=True)
class Decision:
    """One question, and what the methods chose for it.

    Attributes:
        example: The question.
        choices: Of the methods, in the order in which they are shown.
        before: The method that `POLICY` is compared with.
        needs: What only demonstrations can tell about it; None where nobody knows.
    """

    example: Example
    choices: tuple[Choice, ...]
    before: str | None
    needs: tuple[str, ...] | None = None

    def of(self, method: str | None) -> Choice | None:
        """Return a method's choice, None where it was not asked about this question."""
        return next((choice for choice in self.choices if choice.method == method), None)

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the keys of `FLAGS` that hold, by the answers at the last shot."""
        policy, before, oracle = self.of(POLICY), self.of(self.before), self.of(ORACLE)
        holds = {
            "gained": policy and before and policy.right and not before.right,
            "lost": policy and before and before.right and not policy.right,
            "missed": policy and oracle and oracle.right and not policy.right,
        }
        return tuple(flag for flag, held in holds.items() if held)

    @property
    def example_ids(self) -> tuple[int, ...]:
        """Return the question and all its demonstrations, each once."""
        shown = (i for c in self.choices for a in c.answers for i in a.pointer)
        return tuple(dict.fromkeys((self.example.question_id, *shown)))


def gather(
    scores: pd.DataFrame,
    examples: Mapping[int, Example],
    methods: Methods,
    reader: Reader | None = None,
    names: Sequence[str] | None = None,
) -> list[Decision]:
    """Return the decisions about every question of a score table, in the table's order.

    Args:
        scores: The table of `evaluate`.
        examples: All examples by id.
        methods: What the methods are; the table may lack some.
        reader: Knows what questions need, where somebody does.
        names: Methods to show; those that all decisions show if none.
    """
    questions = [int(query) for query in dict.fromkeys(scores["query_id"])]
    found: dict[int, list[Choice]] = {query: [] for query in questions}
    for method in methods.shown if names is None else names:
        part = scores[scores["method"] == method]
        seeds = sorted({int(seed) for seed in part["seed"]})
        part = part[part["seed"].isin(seeds[:1])]
        answers: dict[int, list[Answered]] = {}
        log_probs: dict[int, tuple[float, ...]] = {}
        for query, shot, pointer, steps, answer, right, score in zip(
            part["query_id"],
            part["shot"],
            part["pointer"],
            part["step_log_probs"],
            part["answer"],
            part["vqa_correct"],
            part["vqa_acc_score"],
            strict=True,
        ):
            ids = tuple(int(i) for i in pointer)
            kinds = () if reader is None else tuple(reader.kinds(int(query), ids))
            row = Answered(int(shot), ids, str(answer), bool(right), float(score), kinds)
            answers.setdefault(int(query), []).append(row)
            longest = log_probs.get(int(query), ())
            log_probs[int(query)] = max(longest, tuple(float(v) for v in steps), key=len)
        for query, rows in answers.items():
            seed = None if seeds == [0] else seeds[0]  # what has no seed is written as 0
            choice = Choice(method, seed, tuple(sorted(rows)), log_probs[query])
            found[query].append(choice)
    before = methods.offline
    return [
        Decision(examples[q], tuple(choices), before, None if reader is None else reader.needs(q))
        for q, choices in found.items()
    ]


def sample(decisions: Sequence[Decision], count: int) -> list[Decision]:
    """Return up to `count` decisions, in their order; every flag gets an equal share at first.

    Nothing is random: equal data give an equal sample. Questions that all methods were asked are
    taken first, so that the oracle can be compared with the others.
    """
    share = count // (len(FLAGS) + 1)
    chosen: dict[int, Decision] = {}
    for flag in FLAGS:
        flagged = [d for d in decisions if flag in d.flags and _id(d) not in chosen]
        chosen |= {_id(d): d for d in _spread(flagged, share)}
    rest = [d for d in decisions if _id(d) not in chosen]
    chosen |= {_id(d): d for d in _spread(rest, count - len(chosen))}
    return [d for d in decisions if _id(d) in chosen]


def _spread(decisions: Sequence[Decision], count: int) -> list[Decision]:
    """Return `count` of them at even distances, only complete ones if there are enough."""
    most = max((len(d.choices) for d in decisions), default=0)
    complete = [d for d in decisions if len(d.choices) == most]
    source = complete if len(complete) >= count else decisions
    taken = min(count, len(source))
    return [source[i * len(source) // taken] for i in range(taken)]


def _id(decision: Decision) -> int:
    return decision.example.question_id


def said_needs(decision: Decision) -> str:
    """Return what a question needs, in words; "" where nobody knows."""
    if decision.needs is None:
        return ""
    return f"the VLM must be told: {' and '.join(decision.needs) or 'nothing'}"


def given_answers(example: Example) -> list[tuple[str, int]]:
    """Return the human answers with their counts, the most frequent first."""
    counts: dict[str, int] = {}
    for answer in example.answers:
        counts[answer] = counts.get(answer, 0) + 1
    return sorted(counts.items(), key=lambda pair: -pair[1])
