"""A trained selector with its pool, for many questions that come over a network at once.

Any thread can prepare a question (`asked`). Then demonstrations for several questions are chosen
together (`select_all`), which takes about a twentieth of the time of choosing one by one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from lever_plus.data.examples import Example, Id, Query, fresh_ids, hashed, hashed_query
from lever_plus.data.pool_folder import PoolFolder
from lever_plus.errors import UserError
from lever_plus.features.sources import EncodedFeatures
from lever_plus.files.checking import Row
from lever_plus.hosts.chooser import text_of
from lever_plus.hosts.pictures import Pictures
from lever_plus.hosts.serve.passing import PassingFeatures
from lever_plus.selectors.base import Selection, select_all
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import CANDIDATES, LivePool

LARGEST_POOL: Final = 1024
"""Most examples in a pool that a request brings."""


class PoolRow(Row):
    """An example of a pool that a request brings."""

    image: str
    question: str
    answer: str
    question_id: Id | None = None


class Asked(NamedTuple):
    """A query, its pool (None: the server's), and how many demonstrations it gets."""

    query: Query
    pool: Sequence[Example] | None
    shots: int


class Service:
    """Chooses demonstrations for clients' questions; it keeps nothing of theirs for long.

    Attributes:
        pool: The pool for requests that do not bring one.
        shots: Number of demonstrations for requests that do not say it.
    """

    def __init__(
        self,
        selector: LearnedSelector,
        pool: Sequence[Example] | Path,
        shots: int,
        candidates: int | None = CANDIDATES,
    ) -> None:
        """Encode the pool, and select once as a check.

        Args:
            selector: A trained selector from `load_selector`.
            pool: Examples, or the folder of a saved `LivePool`.
            shots: Number of demonstrations for requests that do not say it.
            candidates: How many neighbours of a question the policy sees of a larger pool; None:
                the whole pool.

        Raises:
            UserError: An image of the pool can't be read, the pool is too small, or the selector
                can't pick as many.
        """
        if isinstance(pool, Path):
            PoolFolder(pool, make=False)  # raises if the folder does not exist
        own = _passing(selector, of_pool=True)
        kept, listed = (pool, ()) if isinstance(pool, Path) else (None, pool)
        self.pool = LivePool(own, listed, folder=kept, candidates=candidates)
        self.shots, self._others = shots, _passing(selector, of_pool=False)
        if not self.pool.examples:
            raise UserError(f"{pool} has no examples: add some to it (`LivePool`).")
        self.pool.select(self.pool.examples[0].query, shots)

    def asked(
        self,
        pictures: Pictures,
        image: object,
        question: object,
        shots: int | None = None,
        pool: Sequence[PoolRow] | None = None,
    ) -> Asked:
        """Check a question, open its image, and return it for `select_all`; thread-safe.

        Args:
            pictures: Keeps the images, until the choice is made.
            image: A data URL.
            question: The question about the image, a string.
            shots: Number of demonstrations; None: that of the service.
            pool: The question's own pool; None: that of the service.

        Raises:
            UserError: The image is missing or can't be opened, the question is not a text, or the
                pool is empty or too large.
        """
        text = text_of(question, "question")
        path = pictures.path(data_url(image, "image"))
        query = hashed_query(Query(path, text))
        examples = None if pool is None else _examples(pictures, pool)
        return Asked(query, examples, self.shots if shots is None else shots)

    def select_all(self, asked: Sequence[Asked]) -> list[Selection | Exception]:
        """Return a selection or an exception for each question.

        A bad question does not affect the others. Only one thread at a time may call this.
        """
        found: dict[int, Selection | Exception] = {}
        for kind in dict.fromkeys((each.pool is None, each.shots) for each in asked):
            numbers = [n for n, each in enumerate(asked) if (each.pool is None, each.shots) == kind]
            found |= zip(numbers, self._together([asked[n] for n in numbers]), strict=True)
        return [found[number] for number in range(len(asked))]

    def _together(self, asked: Sequence[Asked]) -> list[Selection | Exception]:
        """Return the selections of questions that all have their own pools, or that all have none.

        All of them must ask for the same number of demonstrations.
        """
        queries, shots = [each.query for each in asked], asked[0].shots
        pools = [each.pool for each in asked if each.pool is not None]
        try:
            if pools:
                return [*select_all(self._others, queries, pools, shots)]
            return [*self.pool.select_all(queries, shots)]
        except UserError as error:
            if len(asked) == 1:
                # The client sent an image, and does not know the name of its file here.
                return [UserError(str(error).replace(f" ({queries[0].image})", ""))]
        return [self._together([each])[0] for each in asked]


def _passing(selector: LearnedSelector, *, of_pool: bool) -> LearnedSelector:
    """Return the selector with features that forget clients' questions."""
    features = selector.features
    if isinstance(features, EncodedFeatures):
        features = PassingFeatures(features, of_pool=of_pool)
    return LearnedSelector(selector.policy, features, selector.price, selector.folder)


def data_url(image: object, name: str) -> str:
    """Return an image that came with a request; raise UserError if only its name came."""
    if isinstance(image, str) and image.startswith("data:"):
        return image
    shown = repr(image)[:80] if image else "nothing"
    raise UserError(
        f'"{name}" is {shown}: send the image itself, as a data URL (data:image/png;base64,...). '
        "This server does not open files by name, and downloads nothing."
    )


def _examples(pictures: Pictures, rows: Sequence[PoolRow]) -> list[Example]:
    """Return a question's own pool; examples without an id get a free one."""
    if not 1 <= len(rows) <= LARGEST_POOL:
        raise UserError(
            f'"pool" has {len(rows)} examples: it must have between 1 and {LARGEST_POOL:,}.'
        )
    fresh = fresh_ids(row.question_id for row in rows if row.question_id is not None)
    return [
        hashed(
            Example(
                pictures.path(data_url(row.image, f"pool.{number}.image")),
                text_of(row.question, f"pool.{number}.question"),
                text_of(row.answer, f"pool.{number}.answer"),
                question_id=next(fresh) if row.question_id is None else row.question_id,
            )
        )
        for number, row in enumerate(rows)
    ]
