"""What the pipeline registers: every training, and a pool as large as those of its queries."""

from pathlib import Path

import pytest

from lever_plus.config.params import Params
from lever_plus.data.examples import write_examples
from lever_plus.data.pools import write_pools
from lever_plus.errors import UserError
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.registered import default_pool, registered
from lever_plus.tracking.training_run import TrainingRun
from tiny_world import World

SIZE = 6


def with_pool(params: Params, policy: str) -> Params:
    changed = params.pool.model_copy(update={"policy": policy, "size": SIZE})
    return params.model_copy(update={"pool": changed})


@pytest.fixture
def paths(world: World, tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    write_examples(paths.prepare / "train.jsonl", world.splits["train"], tmp_path)
    return paths


def test_a_pool_of_training_examples_is_drawn_and_always_the_same(
    params: Params, paths: Paths, world: World
) -> None:
    own = with_pool(params, "per_query")
    found = default_pool(own, paths)
    assert len(set(found)) == SIZE
    assert set(found) <= set(world.splits["train"])
    assert found == default_pool(own, paths)
    assert found != default_pool(own.model_copy(update={"seed": params.seed + 1}), paths)


def test_the_shared_pool_is_that_of_the_queries(params: Params, paths: Paths, world: World) -> None:
    """A query's own pool differs only by examples with its image, and by their replacements."""
    ids = [example.question_id for example in world.splits["train"]]
    base, others, queries = ids[:SIZE], ids[SIZE:], world.splits["dev"]
    pools = {
        query.question_id: tuple(other if n == place else i for n, i in enumerate(base))
        for place, (query, other) in enumerate(zip(queries, others, strict=False))
    }
    write_pools(paths.pools, pools)
    found = default_pool(with_pool(params, "shared"), paths)
    assert {example.question_id for example in found} == set(base)


def test_data_that_are_not_here_are_named(params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl is missing"):
        default_pool(params, Paths(tmp_path))


def test_the_champion_is_the_first_seed_s_grpo(params: Params, paths: Paths) -> None:
    runs = [
        TrainingRun(stage, method, seed, Path(f"{method}{seed}"))
        for seed in reversed(params.training_seeds)
        for stage, method in (("rce", "rce"), ("grpo", "grpo-stop"), ("grpo", "grpo"))
    ]
    found = registered(params, paths, runs)
    assert found.champion == TrainingRun("grpo", "grpo", 1, Path("grpo1"))
    assert found.runs == runs
    assert registered(params, paths, runs[:1]).champion is None
