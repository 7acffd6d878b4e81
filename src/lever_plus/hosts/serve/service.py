"""A trained selector with its pool, for questions that come over a network, many at once.

What a question needs is made by any thread (`asked`); several questions are then chosen for
together (`select_all`), which costs a twentieth of choosing for each alone.
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
"""Examples that a question may bring as a pool of its own."""


class PoolRow(Row):
    """An example of a pool that a question brings."""

    image: str
    question: str
    answer: str
    question_id: Id | None = None


class Asked(NamedTuple):
    """A question, what may be shown before it (None: the server's pool), and how much of that."""

    query: Query
    pool: Sequence[Example] | None
    shots: int


class Service:
    """Chooses demonstrations for questions of strangers; keeps nothing of theirs for long.

    Attributes:
        pool: What it chooses from, where a question brings no pool.
        shots: How many, where a question does not say.
    """

    def __init__(
        self,
        selector: LearnedSelector,
        pool: Sequence[Example] | Path,
        shots: int,
        candidates: int | None = CANDIDATES,
    ) -> None:
        """Encode the pool, and choose once to see that it works.

        Args:
            selector: As `load_selector` returns it.
            pool: Examples, or the folder that a `LivePool` keeps.
            shots: See above.
            candidates: Of a pool that is larger, the policy sees so many neighbours of a question;
                None: the whole pool.

        Raises:
            UserError: An image of the pool cannot be read, the pool is too small, or the selector
                picks fewer.
        """
        if isinstance(pool, Path):
            PoolFolder(pool, make=False)  # a folder that was misspelt is not made
        own = _passing(selector, of_pool=True)
        kept, listed = (pool, ()) if isinstance(pool, Path) else (None, pool)
        self.pool = LivePool(own, listed, folder=kept, candidates=candidates)
        self.shots, self._others = shots, _passing(selector, of_pool=False)
        if not self.pool.examples:
            raise UserError(f"{pool} holds no example: add some to it (`LivePool`).")
        self.pool.select(self.pool.examples[0].query, shots)

    def asked(
        self,
        pictures: Pictures,
        image: object,
        question: object,
        shots: int | None = None,
        pool: Sequence[PoolRow] | None = None,
    ) -> Asked:
        """Return what is asked, its image opened; any thread may ask.

        Args:
            pictures: Gets the images; they are needed until the choice is made.
            image: A data URL.
            question: A text.
            shots: None: those of the service.
            pool: None: that of the service.

        Raises:
            UserError: The image is none, or does not open; the question is no text; the pool is
                empty or too large.
        """
        text = text_of(question, "question")
        path = pictures.path(data_url(image, "image"))
        query = hashed_query(Query(path, text))
        examples = None if pool is None else _examples(pictures, pool)
        return Asked(query, examples, self.shots if shots is None else shots)

    def select_all(self, asked: Sequence[Asked]) -> list[Selection | Exception]:
        """Return a selection for each question, or why there is none; one thread at a time.

        What is wrong with one question is no harm to the others.
        """
        found: dict[int, Selection | Exception] = {}
        for kind in dict.fromkeys((each.pool is None, each.shots) for each in asked):
            numbers = [n for n, each in enumerate(asked) if (each.pool is None, each.shots) == kind]
            found |= zip(numbers, self._together([asked[n] for n in numbers]), strict=True)
        return [found[number] for number in range(len(asked))]

    def _together(self, asked: Sequence[Asked]) -> list[Selection | Exception]:
        """Return the selections of questions that have pools of their own, or of those without."""
        queries, shots = [each.query for each in asked], asked[0].shots
        pools = [each.pool for each in asked if each.pool is not None]
        try:
            if pools:
                return [*select_all(self._others, queries, pools, shots)]
            return [*self.pool.select_all(queries, shots)]
        except UserError as error:
            if len(asked) == 1:
                # Nobody who sent an image knows its file here.
                return [UserError(str(error).replace(f" ({queries[0].image})", ""))]
        return [self._together([each])[0] for each in asked]


def _passing(selector: LearnedSelector, *, of_pool: bool) -> LearnedSelector:
    """Return the selector with features that forget what strangers ask."""
    features = selector.features
    if isinstance(features, EncodedFeatures):
        features = PassingFeatures(features, of_pool=of_pool)
    return LearnedSelector(selector.policy, features, selector.price, selector.folder)


def data_url(image: object, name: str) -> str:
    """Return an image that came with a request; UserError if it only names one."""
    if isinstance(image, str) and image.startswith("data:"):
        return image
    shown = repr(image)[:80] if image else "nothing"
    raise UserError(
        f'"{name}" is {shown}: send the image itself, as a data URL (data:image/png;base64,...). '
        "This server opens no files by name, and downloads nothing."
    )


def _examples(pictures: Pictures, rows: Sequence[PoolRow]) -> list[Example]:
    """Return a question's own pool; numbers are those that it gives, or fresh ones."""
    if not 1 <= len(rows) <= LARGEST_POOL:
        raise UserError(f'"pool" has {len(rows)} examples, not 1 to {LARGEST_POOL:,}.')
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
