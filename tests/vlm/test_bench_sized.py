"""The benchmark at a real model's size, run on a tiny one: figures are what their names say."""

from pathlib import Path

import numpy as np
import pytest
from torch.nn import Linear

from lever_plus.bench import sized
from lever_plus.bench.sized import SIZES, Size, least_tokens, make_checkpoint, measure
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.data.examples import write_examples
from lever_plus.data.pools import draw_pools, write_pools
from lever_plus.errors import UserError
from lever_plus.pipeline.paths import Paths
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.request import Request
from tiny_world import World

TINY = Size(
    width=32,
    mlp=48,
    layers=2,
    heads=4,
    kv_heads=2,
    vocabulary=400,
    vision_width=32,
    vision_layers=2,
    vision_heads=4,
    image=32,
    patch=16,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sized")
    make_checkpoint(TINY, folder)
    return folder


@pytest.fixture
def vlm(folder: Path, params: Params) -> HuggingFaceVlm:
    assert isinstance(params.vlm, HuggingFaceVlmParams)
    return HuggingFaceVlm(str(folder), params.vlm.model_copy(update={"workers": 1}))


def test_the_size_is_that_of_the_model_it_is_called_after() -> None:
    """SmolLM2-135M has 134,515,008 weights: products, norms, and words once, for both its ends."""
    size = SIZES["135m"]
    norms = (2 * size.layers + 1) * size.width
    products = size.operations // 2
    assert products + size.vocabulary * size.width + norms == 134_515_008


def test_the_operations_are_those_of_the_layers_that_were_made(vlm: HuggingFaceVlm) -> None:
    layers = vlm.model.get_decoder().layers
    weights = [m.weight.numel() for m in layers.modules() if isinstance(m, Linear)]
    assert 2 * sum(weights) == TINY.operations


def test_the_least_is_what_one_batch_of_the_engine_runs(vlm: HuggingFaceVlm, world: World) -> None:
    """Every distinct prefix once: `a`, `a b` and `b`; and all four queries."""
    a, b = world.splits["train"][:2]
    first, second = (example.query for example in world.splits["test"][:2])
    asked = [((a,), first), ((a, b), first), ((b,), second), ((a, b), second)]
    requests = [Request(shown, query) for shown, query in asked]
    vlm.answers(requests)
    assert vlm.engine is not None
    assert least_tokens(vlm, requests) == vlm.usage.tokens_run < vlm.usage.tokens_whole


@pytest.mark.slow
def test_it_measures_what_it_says(
    folder: Path, params: Params, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sized, "QUERIES", 1)
    monkeypatch.setattr(sized, "SAMPLE", 4)
    for split, examples in world.splits.items():
        write_examples(Paths().prepare / f"{split}.jsonl", examples, Path())
    train = world.splits["train"]
    pools = draw_pools(world.splits["test"], train, 8, "per_query", np.random.default_rng(0))
    write_pools(Paths().pools, pools)
    found = measure(params, TINY, folder, "float32")
    assert found["requests"] <= 12 * 4
    assert found["answers_equal"] == 1.0
    assert found["prefixes_shared"] == 1
    assert found["tokens_least"] <= found["tokens_run"] < found["tokens_whole"]
    assert 0 < found["prefill_to_products"] < 1


def test_an_unknown_size_names_the_known_ones(params: Params) -> None:
    with pytest.raises(UserError, match="no size '1b': choose from 135m"):
        sized.run(params, "1b")
