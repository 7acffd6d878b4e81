"""Questions that no policy was trained on, and a pool for all of them."""

from typing import NamedTuple

import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.data.images import image_url
from lever_plus.house_words.maker import make_embedded
from lever_plus.selectors.learned import LearnedSelector
from tiny_world import read_world
from trained_selector import SHOTS


class Asked(NamedTuple):
    """Queries, their pool, what the selector chooses, and the examples with the true answers."""

    queries: list[Query]
    pool: list[Example]
    chosen: list[tuple[Example, ...]]
    examples: list[Example]


@pytest.fixture(scope="session")
def asked(trained: LearnedSelector, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("asked")
    make_embedded(folder, folder / "images", {"train": 64, "dev": 1, "test": 200}, 0.4, 64, seed=7)
    world = read_world(folder)
    queries, pool = [e.query for e in world.splits["test"]], world.splits["train"]
    selections = trained.select_all(queries, [pool] * len(queries), SHOTS)
    chosen = [selection.examples for selection in selections]
    return Asked(queries, pool, chosen, world.splits["test"])


def posted(query: Query) -> dict[str, object]:
    """Return a question as it is posted to a server."""
    return {"image": image_url(query.image), "question": query.question}
