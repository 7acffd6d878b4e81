"""Stage pool: examples -> the pool of every query."""

import numpy as np

from lever_plus.data.embedded.maker import read_twins
from lever_plus.data.examples import read_splits
from lever_plus.data.pool import draw_pools, make_scarce, write_pools
from lever_plus.params import Params
from lever_plus.stages import paths


def run(params: Params) -> str:
    """Draw the pools of RL, dev and test queries from the training examples."""
    splits, settings = read_splits(paths.PREPARE), params.pool
    queries = splits["train"][: params.prepare.rl_queries] + splits["dev"] + splits["test"]
    rng = np.random.default_rng([params.seed, 10])
    pools = draw_pools(queries, splits["train"], settings.size, settings.policy, rng)
    if settings.scarcity > 0:
        candidates = [example.question_id for example in splits["train"]]
        pools = make_scarce(pools, read_twins(paths.SOURCE), candidates, settings.scarcity, rng)
    written = write_pools(paths.POOLS, pools)
    return (
        f"{len(pools)} pools of {settings.size} ({settings.policy}), sha256 {written.sha256[:12]}"
    )
