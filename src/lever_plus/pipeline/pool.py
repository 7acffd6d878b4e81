"""Stage pool: examples, and features for pools of neighbours -> the pool of every query."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from lever_plus.config.base import Count, Section
from lever_plus.config.pool import PoolParams
from lever_plus.config.settings import From
from lever_plus.data.examples import Example, by_id, read_splits
from lever_plus.data.pools import SAMPLERS, Nearest, draw_pools, make_scarce, write_pools
from lever_plus.features.embeddings import Embeddings, read_embeddings
from lever_plus.features.neighbours import nearest_ids
from lever_plus.house_words.maker import read_twins
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    seed: int
    pool: PoolParams
    rl_queries: Annotated[Count, From("data.rl_queries")]


def run(settings: Settings, paths: Paths) -> Outcome:
    """Draw the pools of RL, dev and test queries from the training examples."""
    splits, pool = read_splits(paths.prepare, paths.root), settings.pool
    queries = splits["train"][: settings.rl_queries] + splits["dev"] + splits["test"]
    rng = np.random.default_rng([settings.seed, 10])
    shares = SAMPLERS[pool.sampler]
    nearest = None
    if shares:
        embeddings = read_embeddings(paths.embed, by_id(splits))
        nearest = {
            part: _nearest(
                part, round(share * pool.size), embeddings, queries, splits["train"], pool
            )
            for part, share in shares.items()
        }
    pools = draw_pools(queries, splits["train"], pool.size, pool.policy, rng, nearest)
    if pool.scarcity > 0:
        candidates = [example.question_id for example in splits["train"]]
        pools = make_scarce(pools, read_twins(paths.source), candidates, pool.scarcity, rng)
    written = write_pools(paths.pools, pools)
    return Outcome(
        f"{len(pools)} pools of {pool.size} ({pool.policy}, {pool.sampler}), "
        f"sha256 {written.sha256[:12]}"
    )


def _nearest(
    part: str,
    count: int,
    embeddings: Embeddings,
    queries: Sequence[Example],
    candidates: Sequence[Example],
    settings: PoolParams,
) -> Nearest:
    """Search for enough neighbours to fill a pool once the query's own image is left out."""
    same_image = max(Counter(candidate.image_id for candidate in candidates).values())
    # Mixed pools leave out what another part has already taken.
    most = min(2 * count + same_image, len(candidates))
    ids = [candidate.question_id for candidate in candidates]
    asked = [query.question_id for query in queries]
    found = nearest_ids(embeddings, part, asked, ids, most, settings.search)
    return Nearest(found, count)
