"""Model cards: facts of the run, not of the author's memory."""

from pathlib import Path

import pytest
from report_world import PROPOSERS, SEEDS, TRAINED, Made

from lever_plus.config.names import stage_of
from lever_plus.data.pools import read_pools
from lever_plus.errors import UserError
from lever_plus.pipeline.paths import weights_of
from lever_plus.policy.checkpoint import read_config
from lever_plus.report.model_card import best_row, count_parameters


def card(project: Made, name: str) -> str:
    path = project.paths.report / "model_cards" / f"{name}.md"
    return path.read_text(encoding="utf-8")


def test_every_trained_policy_has_one(project: Made) -> None:
    names = {p.stem for p in (project.paths.report / "model_cards").iterdir()}
    assert names == {f"{stage_of(method)}-{method}-seed{s}" for method in TRAINED for s in SEEDS}


def test_the_facts_are_those_of_the_run(project: Made) -> None:
    text = card(project, "grpo-grpo-seed2")
    assert text.startswith("# grpo/grpo, seed 2\n")
    checkpoint = project.paths.trained("grpo", 2)
    parameters = count_parameters(weights_of(checkpoint))
    config = read_config(checkpoint)
    for fact in (
        f"parameters: {parameters:,}",
        "hidden: 4",
        f"pools, sha256: {read_pools(project.paths.pools).sha256}",
        f"encoder, sha256: {'e' * 64}",
        f"feature space, sha256: {config.feature_space}",
        f"VLM: Tiny, revision {'r' * 64}, float32",
        "metric: VQA accuracy",
        "RL data: 10 queries",
        f"policy that proposed the RL data, sha256: {PROPOSERS[2]}",
        "training seed: 2",
        "best epoch: 1 (chosen on dev: reward 0.7500)",
        "| mean | 45.0 [",
        "minus sft, seed 2, paired by question: +22.5 [",
        "minus rce, seed 2, paired by question: +0.0 [",
        "say nothing about large VLMs",
        f'load_selector("{checkpoint.as_posix()}")',
        "dvc repro grpo@2",
    ):
        assert fact in text


def test_a_policy_is_not_compared_with_itself(project: Made) -> None:
    sft, rce = card(project, "sft-sft-seed1"), card(project, "rce-rce-seed1")
    assert "minus sft" not in sft
    assert "minus rce" not in rce
    assert "dvc repro sft@1\n" in sft
    assert "RL data" not in sft.split("## Trained on")[1].split("##")[0]


def test_the_parameters_are_counted_without_loading(project: Made) -> None:
    from safetensors.numpy import load_file

    path = weights_of(project.paths.trained("sft", 1))
    assert count_parameters(path) == sum(weight.size for weight in load_file(path).values()) > 0


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        count_parameters(tmp_path / "none.safetensors")
    damaged = tmp_path / "bad.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bad\.safetensors is damaged"):
        count_parameters(damaged)


def test_the_best_epoch_is_the_first_of_equals() -> None:
    rows = [{"epoch": e, "dev_reward": r} for e, r in ((0, 0.1), (1, 0.4), (2, 0.4))]
    assert best_row([{"epoch": 0, "loss": 1.0}, *rows], "sft", "dvc repro") == (1, 0.4)
    with pytest.raises(UserError, match="history of sft has no dev_reward: run `dvc repro`"):
        best_row([{"epoch": 0}], "sft", "dvc repro")
