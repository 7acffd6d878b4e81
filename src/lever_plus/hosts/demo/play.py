"""Answers the questions of the page: what each method shows, and what the VLM then answers."""

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
from lever_plus.selectors.learned import LearnedSelector, check_shots
from lever_plus.selectors.live_pool import CANDIDATES
from lever_plus.vlm.request import Request, Vlm
from lever_plus.vlm.scorer import ShotScore, score_answer

LEARNED: Final = "learned"
STOPPING: Final = "learned, stops"
BY_HAND: Final = "by hand"
MOST: Final = 8
"""Most demonstrations that may be chosen by hand, unless the methods show even more."""
USUAL: Final = 0.3
"""The price at first, as a share of the highest price that the policy has learned."""
LABELS: Final = {method.name: method.label for method in (WITHOUT, *BASELINES)} | {
    LEARNED: "picked by the trained policy, one after another",
    STOPPING: "the same picks, until a further one is not worth its price",
    BY_HAND: "chosen by you",
}
"""{method: what it does, for somebody who does not know its name}."""


class Shown(NamedTuple):
    """What one method showed the VLM, and what the VLM answered.

    Attributes:
        method: Name of the method.
        examples: The demonstrations, in order.
        answer: The VLM's answer.
        score: Score of the answer; None if the true answer is not known.
        notes: A note on each demonstration, such as its similarity; may be empty.
        steps: The steps of a policy, see `why.Why`; empty for other methods.
        price: The price at which a policy may stop; None if it does not.
    """

    method: str
    examples: tuple[Example, ...]
    answer: str
    score: ShotScore | None
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    price: float | None = None


class Round(NamedTuple):
    """A question with the results of all methods.

    `truth` is the example that asks the question, with its true answer; None if it is not known.
    """

    query: Query
    truth: Example | None
    shown: tuple[Shown, ...]

    def of(self, method: str) -> Shown | None:
        """Return the result of a method; None if it did not take part."""
        return next((shown for shown in self.shown if shown.method == method), None)


class _Chosen(NamedTuple):
    method: str
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    price: float | None = None


class Playground:
    """Answers questions with every method; several threads may use it.

    Attributes:
        selector: The trained selector, without a price.
        vlm: The VLM that answers.
        world: The questions to pick from, and the pools.
        shots: Most demonstrations that each method shows.
    """

    def __init__(
        self,
        selector: LearnedSelector,
        open_vlm: Callable[[], Vlm],
        world: World,
        shots: int,
        seed: int = 1,
    ) -> None:
        """Open the VLM.

        Args:
            selector: The trained selector, without a price.
            open_vlm: Opens the VLM; it is called in the only thread that will use the VLM.
            world: The questions to pick from, and the pools.
            shots: Most demonstrations that each method shows.
            seed: Seed of the random demonstrations; the same question always gets the same.

        Raises:
            UserError: An image of the gallery can't be read, the selector can't show as many
                demonstrations, or the VLM can't be opened.
        """
        check_shots(shots, selector.policy.config.shots)
        self.selector, self.world, self.shots = selector, world, shots
        self.gallery = [hashed(example) for example in world.gallery]
        self._seed, self._pictures = seed, Pictures()
        self._worker = ThreadPoolExecutor(1)  # one question after another
        self.vlm = self._worker.submit(open_vlm).result()

    @property
    def highest_price(self) -> float:
        """Highest price at which the policy can decide when to stop; 0 if it can't decide that."""
        return self.selector.policy.config.highest_price

    @property
    def most(self) -> int:
        """Most demonstrations that may be chosen by hand."""
        return max(MOST, self.shots)

    @property
    def price_per(self) -> str:
        """The unit that has the price: "demonstration" or "token"."""
        return self.selector.policy.config.price_per

    def first_price(self, price: float | None = None) -> float | None:
        """Return the price at first; None if the policy does not decide when to stop.

        Args:
            price: The price that is asked for; None: a share of the highest price that the policy
                has learned.

        Raises:
            UserError: The policy has not learned this price, or has not learned to stop.
        """
        if price is not None:
            LearnedSelector(self.selector.policy, self.selector.features, price)
            return price
        return USUAL * self.highest_price if self.highest_price else None

    def query(self, image: object, question: object) -> Query:
        """Return the query for an image and a question.

        Args:
            image: A path, a data URL, or the bytes of an image file.
            question: The question about the image, a string.

        Raises:
            UserError: The image or the question is missing, or can't be shown to a VLM.
        """
        if not image:
            raise UserError("there is no image yet: pick a question, or upload an image.")
        return hashed_query(Query(self._pictures.path(image), text_of(question, "question")))

    @cached_property
    def _asked_there(self) -> dict[tuple[str, str], Example]:
        return {(e.image_sha256, e.question): e for e in self.gallery}

    def truth(self, query: Query) -> Example | None:
        """Return the example of the gallery with the same image and question, if there is one."""
        return self._asked_there.get((query.image_sha256, query.question))

    def meaning(self, example: Example | None) -> str:
        """Return the hidden meaning of an example's question; "" if it is not known."""
        return "" if example is None else self.world.meanings.get(example.question_id, "")

    def pool(self, query: Query) -> Sequence[Example]:
        """Return the pool of a query."""
        truth = self.truth(query)
        number = None if truth is None else truth.question_id
        return self.world.pools.get(number, self.world.pool) if number else self.world.pool

    def candidates(self, query: Query) -> list[Example]:
        """Return the examples from which the policy chooses.

        These are all that may be shown, or, of a large pool, those with the most similar questions.

        Raises:
            UserError: The pool is too small, or an image can't be opened.
        """
        (asked,), (allowed,) = allowed_pools([query], [self.pool(query)], self.shots)
        if len(allowed) <= CANDIDATES:
            return allowed
        near = ranked(STTR, self.selector.features, asked, allowed)[:CANDIDATES]
        return [allowed[place] for place in sorted(near)]

    def ask(self, query: Query, price: float | None = None) -> Round:
        """Return what every method shows for a query, and what the VLM answers.

        Args:
            query: The query, made by `query`.
            price: Price at which the policy may stop; None leaves out the method that stops.

        Raises:
            UserError: The pool is too small, the policy has not learned this price, or the VLM does
                not answer.
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
        """Return what the VLM answers after demonstrations that a person chose.

        Args:
            query: The query, made by `query`.
            numbers: `question_id` of each demonstration, in the order in which they are shown.

        Raises:
            PointerError: A demonstration is not in the query's pool, was chosen twice, or has the
                query's image.
            UserError: There are too many demonstrations, or the VLM does not answer.
        """
        if len(numbers) > self.most:
            raise UserError(
                f"{len(numbers)} demonstrations are too many: choose at most {self.most}."
            )
        known = {e.question_id: e for e in map(hashed, self.pool(query))}
        for number in numbers:
            example = known.get(number)
            if example is None or example.image_sha256 == query.image_sha256:
                raise PointerError(
                    f"example {number} can't be shown before this question: choose one from the "
                    "question's pool that has another image."
                )
        if len(set(numbers)) < len(numbers):
            raise PointerError("a demonstration was chosen twice: remove one of the two.")
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
    """Return the score of an answer; None if the human answers that it needs are not known."""
    known = truth is not None and (len(truth.answers) == HUMANS or truth.fallback)
    return score_answer(answer, truth) if known and truth is not None else None
