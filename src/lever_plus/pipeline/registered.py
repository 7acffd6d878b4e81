"""The pipeline's selectors as models of MLflow: which there are, and the pool that comes with them.

A model chooses from its own pool where a request brings none. It is a pool such as the selectors
were trained and evaluated with, and as large: the shared one, or else one drawn at random from the
training examples.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from lever_plus.config.names import GRPO
from lever_plus.config.params import Params
from lever_plus.data.examples import Example, by_id, read_examples
from lever_plus.data.pools import read_pools
from lever_plus.pipeline.paths import Paths
from lever_plus.tracking.registry import Selectors
from lever_plus.tracking.training_run import TrainingRun

if TYPE_CHECKING:
    from lever_plus.hosts.mlflow import Series


def registered(params: Params, paths: Paths, runs: Sequence[TrainingRun]) -> Selectors:
    """Return what is registered of the pipeline.

    The champion is the first training seed's GRPO: with which values it is trained, params.yaml
    says, where a study's promotion writes them.

    Args:
        params: Of the pipeline.
        paths: Where it is.
        runs: Its training runs.
    """
    first = params.training_seeds[0]
    champion = next((r for r in runs if (r.method, r.seed) == (GRPO, first)), None)
    made: list[Series] = []

    def save(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        # Here, as it takes seconds and most calls have nothing to register.
        from lever_plus.hosts.mlflow import Options, Series

        if not made:
            most = min(Options().shots, params.pointer.shots)
            made.append(Series(default_pool(params, paths), Options(shots=most)))
        made[0].save(path, run.checkpoint.parent, run_id=run_id, model_id=model_id)

    return Selectors(runs, champion, save)


def default_pool(params: Params, paths: Paths) -> list[Example]:
    """Return the pool that comes with a model; UserError where the data are not here."""
    train = read_examples(paths.prepare / "train.jsonl", paths.root)
    if params.pool.policy == "shared":
        examples, pools = by_id({"train": train}), read_pools(paths.pools)
        # A query's own image is not in its pool, nor are its twins where they are scarce.
        counted = Counter(chain.from_iterable(pools.ids.values()))
        return [examples[i] for i, _ in counted.most_common(params.pool.size)]
    return Random(params.seed).sample(train, min(params.pool.size, len(train)))
