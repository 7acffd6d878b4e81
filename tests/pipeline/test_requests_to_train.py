"""What a trained method asked the VLM is its own training's, and that of all it is made from."""

from pathlib import Path

import pytest

from lever_plus.errors import UserError
from lever_plus.pipeline.costs import requests_to_train
from lever_plus.pipeline.outputs import write_metrics
from lever_plus.pipeline.paths import Paths

SAID = {
    "sft_data.json": {"vlm_requests": 1},
    "sft/seed2.json": {"sft": {"vlm_requests": 10}, "sft-beams": {"vlm_requests": 20}},
    "rl_data/seed2.json": {"vlm_requests": 100},
    "rce/seed2.json": {"rce": {"vlm_requests": 1_000}, "agro": {"vlm_requests": 2_000}},
    "grpo/seed2.json": {"grpo": {"vlm_requests": 10_000}, "grpo-stop": {"vlm_requests": 20_000}},
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Return those of a project that has nothing but metrics."""
    for name, said in SAID.items():
        write_metrics(tmp_path / "metrics" / name, said)
    return Paths(tmp_path)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("sft", 11),
        ("sft-beams", 21),
        ("rce", 1_111),
        ("agro", 2_111),
        ("grpo", 12_111),
        ("grpo-stop", 32_111),
    ],
)
def test_a_method_costs_what_its_chain_asked(paths: Paths, method: str, expected: int) -> None:
    assert requests_to_train(paths, method, 2, start="agro") == expected


def test_a_metrics_file_that_does_not_say_it_is_named(paths: Paths) -> None:
    write_metrics(paths.metrics / "sft" / "seed2.json", {"sft": {"best_epoch": 1}})
    for method in ("sft", "sft-beams"):
        with pytest.raises(UserError, match=rf"seed2\.json, {method}.*run `dvc repro evaluate`"):
            requests_to_train(paths, method, 2, start="agro")
