"""The requests of a trained method are those of its training and of everything it starts from."""

from dataclasses import replace
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


@pytest.mark.parametrize(
    ("anew", "method", "expected"),
    [
        (["grpo"], "grpo", 70_000 + 2_111),
        (["rce"], "agro", 7_000 + 111),
        (["rl_data", "rce", "grpo"], "grpo", 77_700 + 11),
        (["sft_data", "sft"], "sft-beams", 77),
        (["sft_data", "sft", "rl_data", "rce", "grpo"], "grpo", 77_777),
    ],
)
def test_a_variant_s_stages_say_it_themselves_and_the_others_are_the_project_s(
    paths: Paths, tmp_path: Path, anew: list[str], method: str, expected: int
) -> None:
    sevens = {
        "sft_data.json": {"vlm_requests": 7},
        "sft/seed2.json": {"sft": {"vlm_requests": 70}, "sft-beams": {"vlm_requests": 70}},
        "rl_data/seed2.json": {"vlm_requests": 700},
        "rce/seed2.json": {"agro": {"vlm_requests": 7_000}},
        "grpo/seed2.json": {"grpo": {"vlm_requests": 70_000}},
    }
    own = tmp_path / "work" / "metrics"
    for name, said in sevens.items():
        if name.partition("/")[0].removesuffix(".json") in anew:
            write_metrics(own / name, said)
    moved = replace(paths, moved={stage: tmp_path / "work" / stage for stage in anew})
    asked = requests_to_train(replace(moved, metrics_in=own), method, 2, start="agro")
    assert asked == expected


def test_a_metrics_file_that_does_not_say_it_is_named(paths: Paths) -> None:
    write_metrics(paths.metrics / "sft" / "seed2.json", {"sft": {"best_epoch": 1}})
    for method in ("sft", "sft-beams"):
        with pytest.raises(UserError, match=rf"seed2\.json, {method}.*run `dvc repro evaluate`"):
            requests_to_train(paths, method, 2, start="agro")
