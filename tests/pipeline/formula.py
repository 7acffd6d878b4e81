"""A VLM and a CLIP by formula, before which everything is known without a model.

Every question asks for the sign of a card of some series, by one of three rules. The formula is
right where the demonstrations suit the rule: `any` of them is of the query's series, the `last` one
is, or `both` are. A demonstration of the next series makes it half right (two of ten people say
so), and without any demonstration it says the first sign; with an instruction that names
signs, the right one if it is among them. So the accuracy of every pointer is known, and with it the
best that a pool holds and what a random pointer gets.
"""

import itertools
import math
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.examples import Example, Query
from lever_plus.metric.vqa import vqa_accuracy
from lever_plus.vlm.prompt import CHAT, PromptFormat
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore
from lever_plus.vlm.usage import Usage

Value = TypeVar("Value", str, float)
SIGNS: Final = ("amber", "basil", "cedar", "dusk", "ember", "fern")
"""The answer of each series."""
RULES: Final = ("any", "last", "both")
SPLITS: Final = ("train", "dev", "test")
HALF: Final = "sort of"
NEITHER: Final = "unsure"


class Card(NamedTuple):
    """What a question asks about: a card's number, series and rule; the split is in the number."""

    number: int
    series: int
    rule: str

    @property
    def question(self) -> str:
        return f"By rule {self.rule}, which sign has card {self.number} of series {self.series}?"

    @property
    def split(self) -> str:
        return SPLITS[self.number // 1000 - 1]


def card_of(asked: Query | Example | str) -> Card:
    """Return the card of a question."""
    question = asked if isinstance(asked, str) else asked.question
    found = re.fullmatch(r"By rule (\w+), which sign has card (\d+) of series (\d)\?", question)
    assert found, question
    return Card(int(found[2]), int(found[3]), found[1])


def reply(shown: Sequence[Example], asked: Query, instruction: str = "") -> str:
    """Return the formula's answer."""
    if not shown and not instruction:
        return SIGNS[0]
    card = card_of(asked)
    if not shown:
        return SIGNS[card.series] if SIGNS[card.series] in instruction else NEITHER
    series = [card_of(example).series for example in shown]
    same = [number == card.series for number in series]
    right = {"any": any(same), "last": same[-1], "both": sum(same) > 1}[card.rule]
    if right:
        return SIGNS[card.series]
    return HALF if (card.series + 1) % len(SIGNS) in series else NEITHER


def accuracy(shown: Sequence[Example], example: Example, instruction: str = "") -> float:
    """Return the VQA accuracy of the formula's answer: 1, 0.6 or 0."""
    return vqa_accuracy(reply(shown, example.query, instruction), example.answers)


def likelihood(request: Request) -> float:
    """Return the mean log-probability of a request's answer: what suits it least costs most."""
    answer = reply(request.demonstrations, request.query)
    probability = {request.answer: 0.9, HALF: 0.6}.get(answer, 0.2)
    card = card_of(request.query)
    others = sum(card_of(shown).series != card.series for shown in request.demonstrations)
    return math.log(probability - 0.02 * others)


CHUNK: Final = 16
"""Requests that are answered together, and can be stored before the next are."""


class FormulaVlm:
    """A back end that answers by formula and remembers every request that was answered."""

    def __init__(self, prompt: PromptFormat = CHAT) -> None:
        """Start without requests."""
        self.prompt, self.usage = prompt, Usage()
        self.identity = VlmIdentity(
            model="formula",
            revision="1",
            dtype="none",
            prompt_hash=prompt.instruction or "none",
            generation="none",
        )
        self.requests: list[Request] = []

    def instructed(self, instruction: str) -> "FormulaVlm":
        """Return the formula with another instruction; both remember in one list."""
        other = FormulaVlm(PromptFormat(instruction=instruction))
        other.usage, other.requests = self.usage, self.requests
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        instruction = self.prompt.instruction
        return self._asked(requests, lambda r: reply(r.demonstrations, r.query, instruction), done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        return self._asked(requests, likelihood, done)

    def _asked(
        self, requests: Sequence[Request], formula: Callable[[Request], Value], done: Done[Value]
    ) -> list[Value]:
        found: list[Value] = []
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            found += map(formula, chunk)
            done(range(start, start + len(chunk)), found[start:])
            self.requests += chunk
        return found


class FormulaEncoder:
    """A CLIP by formula: features of texts show series and rule, those of images show nothing."""

    def __init__(self, path: str, revision: str | None, *_speed: object) -> None:
        """Take what a `ClipEncoder` takes; another path or revision is another encoder."""
        self.identity = f"{zlib.crc32(f'{path}@{revision}'.encode()):064x}"

    def images(self, paths: Sequence[str], _kept: object) -> NDArray[np.float32]:
        return _unit([np.append(_noise(Path(path).name, 1.0)[:3], np.zeros(7)) for path in paths])

    def texts(self, texts: Sequence[str], _kept: object) -> NDArray[np.float32]:
        return _unit([self._shown(text) + _noise(text, 0.04) for text in texts])

    @staticmethod
    def _shown(text: str) -> NDArray[np.float64]:
        card = Card(0, SIGNS.index(text), "") if text in SIGNS else card_of(text)
        series = np.eye(len(SIGNS))[card.series]
        return np.concatenate([series, [0.5 * (card.rule == rule) for rule in RULES], [0.0]])


def _noise(text: str, size: float) -> NDArray[np.float64]:
    return np.random.default_rng(zlib.crc32(text.encode())).normal(0, size, 10)


def _unit(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    whole = np.stack(rows)
    return (whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype(np.float32)


def splits_of(asked: Iterable[Request]) -> tuple[set[str], set[str]]:
    """Return the splits of the queries of requests, and those of their demonstrations."""
    queries, shown = set(), set()
    for request in asked:
        queries.add(card_of(request.query).split)
        shown |= {card_of(example).split for example in request.demonstrations}
    return queries, shown


def reachable(
    examples: Sequence[Example], pools: Sequence[Sequence[Example]], shots: int
) -> NDArray[np.float64]:
    """Return the best and the mean accuracy of all pointers, [2, shots], mean over questions."""
    found = []
    for example, pool_ in zip(examples, pools, strict=True):
        by_shot = []
        for shot in range(1, shots + 1):
            each = [accuracy(shown, example) for shown in itertools.permutations(pool_, shot)]
            by_shot.append((max(each), float(np.mean(each))))
        found.append(by_shot)
    return np.array(found).mean(axis=0).T
