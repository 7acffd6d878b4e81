"""The pipeline's selectors as MLflow models, and the pool that comes with each model.

A model chooses from its own pool if a request does not bring one. Its pool is as large as those
that the selectors were trained and evaluated with: it is the shared pool if there is one, or else a
random sample of the training examples.
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
    """Return the selectors of the pipeline that are registered as models.

    The champion is the GRPO policy of the first training seed. It is trained with the values in
    params.yaml, into which a study's promotion writes the winner.

    Args:
        params: Parameters of the pipeline.
        paths: Paths of the project.
        runs: Training runs of the pipeline.
    """
    first = params.training_seeds[0]
    champion = next((r for r in runs if (r.method, r.seed) == (GRPO, first)), None)
    made: list[Series] = []

    def save(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        # Imported here, because it takes seconds and most calls have nothing to register.
        from lever_plus.hosts.mlflow import Options, Series

        if not made:
            most = min(Options().shots, params.pointer.shots)
            made.append(Series(default_pool(params, paths), Options(shots=most)))
        made[0].save(path, run.checkpoint.parent, run_id=run_id, model_id=model_id)

    return Selectors(runs, champion, save)


def default_pool(params: Params, paths: Paths) -> list[Example]:
    """Return the pool that comes with a model; raise UserError if the data are missing."""
    train = read_examples(paths.prepare / "train.jsonl", paths.root)
    if params.pool.policy == "shared":
        examples, pools = by_id({"train": train}), read_pools(paths.pools)
        # The most frequent examples: each query's pool lacks its own image and scarce twins.
        counted = Counter(chain.from_iterable(pools.ids.values()))
        return [examples[i] for i, _ in counted.most_common(params.pool.size)]
    return Random(params.seed).sample(train, min(params.pool.size, len(train)))
