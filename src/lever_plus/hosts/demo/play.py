"""What the page is about: a question, what each method shows for it, and what the VLM answers."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final, NamedTuple

from lever_plus.data.examples import Example, Query, hashed, hashed_query
from lever_plus.data.vqa_import import HUMANS
from lever_plus.errors import PointerError, UserError
from lever_plus.evaluation.methods import BASELINES, RANDOM, WITHOUT, ZERO_SHOT
from lever_plus.features.neighbours import cosine, ranked
from lever_plus.features.similarities import STTR
from lever_plus.hosts.chooser import text_of
from lever_plus.hosts.demo.why import Step, explain
from lever_plus.hosts.demo.world import World
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import allowed_pools
from lever_plus.selectors.baselines import RandomSelector, SimilaritySelector
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import CANDIDATES
from lever_plus.vlm.request import Request, Vlm
from lever_plus.vlm.scorer import ShotScore, score_answer

LEARNED: Final = "learned"
STOPPING: Final = "learned, stops"
BY_HAND: Final = "by hand"
MOST: Final = 8
"""Demonstrations that may be shown by hand, or as many as the methods show if that is more."""
USUAL: Final = 0.3
"""Of the highest price that a policy has learned: where the page begins."""
LABELS: Final = {method.name: method.label for method in (WITHOUT, *BASELINES)} | {
    LEARNED: "picked by the trained policy, one after the other",
    STOPPING: "the same picks, until another is not worth its price",
    BY_HAND: "chosen by you",
}
"""{method: what it does, for somebody who does not know its name}."""


class Shown(NamedTuple):
    """What one method showed the VLM, and what came of it.

    notes: On each demonstration, such as its similarity; may be empty. steps: of a policy, see
    `why.Why`. price: at which it may stop. score: None where the true answer is not known.
    """

    method: str
    examples: tuple[Example, ...]
    answer: str
    score: ShotScore | None
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    price: float | None = None


class Round(NamedTuple):
    """A question and what all methods made of it; truth: the example that asks it, if known."""

    query: Query
    truth: Example | None
    shown: tuple[Shown, ...]

    def of(self, method: str) -> Shown | None:
        """Return what a method showed; None if it was not asked."""
        return next((shown for shown in self.shown if shown.method == method), None)


class _Chosen(NamedTuple):
    method: str
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    price: float | None = None


class Playground:
    """Answers questions with every method; several threads may ask.

    Attributes:
        selector: The trained one, without a price.
        vlm: Answers.
        world: What there is.
        shots: Demonstrations that each method shows at most.
    """

    def __init__(
        self,
        selector: LearnedSelector,
        open_vlm: Callable[[], Vlm],
        world: World,
        shots: int,
        seed: int = 1,
    ) -> None:
        """Keep all of it.

        Args:
            selector: See above.
            open_vlm: Opens the VLM, in the one thread that will ask it: an answer store belongs to
                its thread.
            world: See above.
            shots: See above.
            seed: Of the random demonstrations: one question always gets the same.

        Raises:
            UserError: An image of the gallery cannot be read, the selector does not show so many
                demonstrations, or the VLM does not open.
        """
        most = selector.policy.config.shots
        if not 1 <= shots <= most:
            raise UserError(f"this selector picks 1 to {most} demonstrations, not {shots}.")
        self.selector, self.world, self.shots = selector, world, shots
        self.gallery = [hashed(example) for example in world.gallery]
        self._seed, self._pictures = seed, Pictures()
        self._worker = ThreadPoolExecutor(1)  # one question after the other
        self.vlm = self._worker.submit(open_vlm).result()

    @property
    def highest_price(self) -> float:
        """Up to which price the policy can decide when to stop; 0: it cannot."""
        return self.selector.policy.config.highest_price

    @property
    def most(self) -> int:
        """How many demonstrations may be shown by hand."""
        return max(MOST, self.shots)

    @property
    def price_per(self) -> str:
        """What costs the price: a demonstration, or a token."""
        return self.selector.policy.config.price_per

    def first_price(self, price: float | None = None) -> float | None:
        """Return the price that the page begins with; None: the policy does not decide to stop.

        Args:
            price: The wanted one; None: some way up to the highest that the policy has learned.

        Raises:
            UserError: The policy has not learned this price, or none.
        """
        if price is not None:
            LearnedSelector(self.selector.policy, self.selector.features, price)
            return price
        return USUAL * self.highest_price if self.highest_price else None

    def query(self, image: object, question: object) -> Query:
        """Return what is asked.

        Args:
            image: A path, a data URL or the bytes of a file.
            question: A text.

        Raises:
            UserError: There is no image or no question, or one of them cannot be shown to a VLM.
        """
        if not image:
            raise UserError("there is no image yet: pick a question, or upload an image.")
        return hashed_query(Query(self._pictures.path(image), text_of(question, "question")))

    @cached_property
    def _asked_there(self) -> dict[tuple[str, str], Example]:
        return {(e.image_sha256, e.question): e for e in self.gallery}

    def truth(self, query: Query) -> Example | None:
        """Return the gallery's example that asks a question about this very image, if one does."""
        return self._asked_there.get((query.image_sha256, query.question))

    def meaning(self, example: Example | None) -> str:
        """Return what an example really asks; "" where nobody knows."""
        return "" if example is None else self.world.meanings.get(example.question_id, "")

    def pool(self, query: Query) -> Sequence[Example]:
        """Return what may be shown before a question."""
        truth = self.truth(query)
        number = None if truth is None else truth.question_id
        return self.world.pools.get(number, self.world.pool) if number else self.world.pool

    def candidates(self, query: Query) -> list[Example]:
        """Return what the policy chooses from: all, or of many those nearest by question text.

        Raises:
            UserError: The pool is too small, or an image does not open.
        """
        (asked,), (allowed,) = allowed_pools([query], [self.pool(query)], self.shots)
        if len(allowed) <= CANDIDATES:
            return allowed
        near = ranked(STTR, self.selector.features, asked, allowed)[:CANDIDATES]
        return [allowed[place] for place in sorted(near)]

    def ask(self, query: Query, price: float | None = None) -> Round:
        """Return what every method shows for a question, and what the VLM says.

        Args:
            query: See `query`.
            price: At which a policy that decides when to stop does so; None: without that method.

        Raises:
            UserError: The pool is too small, the price is not one that the policy has learned, or
                the VLM does not answer.
        """
        return self._worker.submit(self._ask, query, price).result()

    def _ask(self, query: Query, price: float | None) -> Round:
        chosen, truth = self._choose(query, price), self.truth(query)
        requests = [Request(one.examples, query) for one in chosen]
        answers = self.vlm.answers(requests, description="answers")
        shown = (
            Shown(one.method, one.examples, answer, _score(answer, truth), *one[2:])
            for one, answer in zip(chosen, answers, strict=True)
        )
        return Round(query, truth, tuple(shown))

    def ask_by_hand(self, query: Query, numbers: Sequence[int]) -> Shown:
        """Return what the VLM says after demonstrations that a person chose.

        Args:
            query: See `query`.
            numbers: `question_id` of each, in the order in which they are shown.

        Raises:
            PointerError: One is not in the question's pool, is named twice, or shows its image.
            UserError: There are too many, or the VLM does not answer.
        """
        if len(numbers) > self.most:
            raise UserError(
                f"{len(numbers)} demonstrations are too many: show {self.most} at most."
            )
        known = {e.question_id: e for e in map(hashed, self.pool(query))}
        for number in numbers:
            example = known.get(number)
            if example is None or example.image_sha256 == query.image_sha256:
                raise PointerError(
                    f"example {number} may not be shown before this question: choose one of its "
                    "pool, with another image."
                )
        if len(set(numbers)) < len(numbers):
            raise PointerError("a demonstration is there twice: remove one of the two.")
        examples = tuple(known[number] for number in numbers)
        request = Request(examples, query)
        (answer,) = self._worker.submit(
            lambda: self.vlm.answers([request], description="answers")
        ).result()
        return Shown(BY_HAND, examples, answer, _score(answer, self.truth(query)))

    def _choose(self, query: Query, price: float | None) -> list[_Chosen]:
        pool, near, shots = self.pool(query), self.candidates(query), self.shots
        features = self.selector.features
        drawn = tuple(RandomSelector(self._seed).select(query, pool, shots))
        similar = tuple(SimilaritySelector(features, STTR).select(query, pool, shots))
        cosines = cosine(STTR, features, query, similar)
        chosen = [
            _Chosen(ZERO_SHOT, ()),
            _Chosen(RANDOM, drawn),
            _Chosen(STTR, similar, tuple(f"similarity {value:.2f}" for value in cosines)),
            self._learned(LEARNED, self.selector, query, near),
        ]
        if price is not None:
            stopping = LearnedSelector(self.selector.policy, features, price)
            chosen.append(self._learned(STOPPING, stopping, query, near))
        return chosen

    def _learned(
        self, method: str, selector: LearnedSelector, query: Query, pool: Sequence[Example]
    ) -> _Chosen:
        why = explain(selector, query, pool, self.shots)
        notes = tuple(f"probability {step.picked.probability:.2f}" for step in why.steps)
        return _Chosen(method, why.examples, notes[: len(why.examples)], why.steps, selector.price)


def _score(answer: str, truth: Example | None) -> ShotScore | None:
    """Return what an answer is worth; None where the answers that the metric needs are unknown."""
    known = truth is not None and (len(truth.answers) == HUMANS or truth.fallback)
    return score_answer(answer, truth) if known and truth is not None else None
