"""A trained selector with its pool, for questions that come over a network, many at once.

What a question needs is made by any thread (`asked`); several questions are then chosen for
together (`select_all`), which costs a twentieth of choosing for each alone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from lever_plus.data.examples import Example, Id, Query, fresh_ids, hashed, hashed_query
from lever_plus.errors import UserError
from lever_plus.features.sources import EncodedFeatures
from lever_plus.files.checking import Row
from lever_plus.hosts.chooser import text_of
from lever_plus.hosts.passing import PassingFeatures
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selection, select_all
from lever_plus.selectors.learned import LearnedSelector

LARGEST_POOL: Final = 1024
"""Examples that a question may bring as a pool of its own."""


class PoolRow(Row):
    """An example of a pool that a question brings."""

    image: str
    question: str
    answer: str
    question_id: Id | None = None


class Asked(NamedTuple):
    """A question, what may be shown before it, and how much of that."""

    query: Query
    pool: Sequence[Example]
    shots: int


class Service:
    """Chooses demonstrations for questions of strangers; keeps nothing of theirs for long.

    Attributes:
        selector: Chooses.
        pool: What it chooses from, where a question brings no pool.
        shots: How many, where a question does not say.
    """

    def __init__(self, selector: LearnedSelector, pool: Sequence[Example], shots: int) -> None:
        """Encode the pool, and choose once to see that it works.

        Args:
            selector: As `load_selector` returns it.
            pool: See above.
            shots: See above.

        Raises:
            UserError: An image of the pool cannot be read, the pool is too small, or the selector
                picks fewer.
        """
        self.pool, self.shots = [hashed(example) for example in pool], shots
        features = selector.features
        if isinstance(features, EncodedFeatures):
            features.candidates(self.pool)
            features = PassingFeatures(features, self.pool)
        self.selector = LearnedSelector(selector.policy, features, selector.price, selector.folder)
        select_all(self.selector, [self.pool[0].query], [self.pool], shots)

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
        examples = self.pool if pool is None else _examples(pictures, pool)
        return Asked(query, examples, self.shots if shots is None else shots)

    def select_all(self, asked: Sequence[Asked]) -> list[Selection | Exception]:
        """Return a selection for each question, or why there is none; one thread at a time.

        What is wrong with one question is no harm to the others.
        """
        found: dict[int, Selection | Exception] = {}
        for shots in dict.fromkeys(each.shots for each in asked):
            numbers = [n for n, each in enumerate(asked) if each.shots == shots]
            found |= zip(numbers, self._together([asked[n] for n in numbers], shots), strict=True)
        return [found[number] for number in range(len(asked))]

    def _together(self, asked: Sequence[Asked], shots: int) -> list[Selection | Exception]:
        queries, pools = [each.query for each in asked], [each.pool for each in asked]
        try:
            return [*select_all(self.selector, queries, pools, shots)]
        except UserError as error:
            if len(asked) == 1:
                # Nobody who sent an image knows its file here.
                return [UserError(str(error).replace(f" ({queries[0].image})", ""))]
        return [self._together([each], shots)[0] for each in asked]


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
