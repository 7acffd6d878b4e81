"""The pool stage searches neighbours and leaves twins out as params.yaml says."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.data.examples import write_examples
from lever_plus.data.pools import read_pools
from lever_plus.features.embeddings import embed_examples
from lever_plus.features.encoder import ClipEncoder
from lever_plus.house_words.maker import read_latent
from lever_plus.pipeline import pool
from lever_plus.pipeline.paths import Paths
from tiny_world import Folders, World

SIZE = 6


@pytest.fixture
def paths(world: World, folders: Folders, tmp_path: Path) -> Paths:
    """A project up to its features."""
    paths = Paths(tmp_path)
    for split, examples in world.splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", examples, paths.root)
    encoder = ClipEncoder(str(folders.clip), None, "cpu", 24)
    embed_examples(paths.embed, paths.cache, encoder, world.splits, 0.999)
    return paths


def test_an_approximate_search_is_asked_for_and_finds_the_same_among_few(
    params: Params, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    searches: list[str] = []
    search = pool.nearest_ids

    def watched(*arguments: Any) -> Any:
        searches.append(arguments[-1])
        return search(*arguments)

    monkeypatch.setattr(pool, "nearest_ids", watched)
    found = {}
    for kind in ("exact", "approximate"):
        settings = params.pool.model_copy(
            update={"sampler": "image", "search": kind, "size": SIZE, "scarcity": 0.0}
        )
        changed = params.model_copy(update={"pool": settings})
        pool.run(settings_of(pool.Settings, changed), paths)
        found[kind] = read_pools(paths.pools)
    assert searches == ["exact", "approximate"]
    assert {len(ids) for ids in found["exact"].ids.values()} == {SIZE}
    assert found["exact"].sha256 == found["approximate"].sha256


@pytest.mark.parametrize("policy", ["per_query", "shared"])
def test_no_pool_of_any_split_has_a_twin_where_all_are_scarce(
    params: Params, world: World, policy: str, tmp_path: Path
) -> None:
    """A twin asks for the query's attribute in the query's language, however it is worded."""
    paths = Paths(tmp_path)
    for split, examples in world.splits.items():
        write_examples(paths.prepare / f"{split}.jsonl", examples, paths.root)
    paths.source.mkdir()
    shutil.copy(world.folder / "latent.json", paths.source)
    hidden, with_twin = read_latent(world.folder), dict[float, int]()
    for scarcity in (0.0, 1.0):
        settings = params.pool.model_copy(
            update={"policy": policy, "size": 12, "scarcity": scarcity}
        )
        pool.run(settings_of(pool.Settings, params.model_copy(update={"pool": settings})), paths)
        pools = read_pools(paths.pools).ids
        assert pools.keys() == {e.question_id for part in world.splits.values() for e in part}
        with_twin[scarcity] = sum(
            hidden[query].key in {hidden[i].key for i in ids} for query, ids in pools.items()
        )
    assert with_twin[1.0] == 0 < with_twin[0.0]
