"""Model cards: facts of the run, not of the author's memory."""

from pathlib import Path

import pytest
from report_world import SEEDS, TRAINED, Made

from lever_plus.data.pools import read_pools
from lever_plus.errors import UserError
from lever_plus.pipeline import paths
from lever_plus.report.model_card import best_row, read_checkpoint


def card(project: Made, name: str) -> str:
    path = project.folder / paths.REPORT / "model_cards" / f"{name}.md"
    return path.read_text(encoding="utf-8")


def test_every_trained_policy_has_one(project: Made) -> None:
    names = {p.stem for p in (project.folder / paths.REPORT / "model_cards").iterdir()}
    stages = {method: "grpo" if method == "grpo" else "rce" for method in TRAINED}
    expected = {f"{stages[method]}-{method}-seed{seed}" for method in TRAINED for seed in SEEDS}
    assert names == {"sft-sft-seed1", *expected}


def test_the_facts_are_those_of_the_run(project: Made) -> None:
    text = card(project, "grpo-grpo-seed2")
    assert text.startswith("# grpo/grpo, seed 2\n")
    _, parameters = read_checkpoint(paths.grpo(2) / paths.POLICY)
    for fact in (
        f"parameters: {parameters:,}",
        "hidden: 4",
        f"pools, sha256: {read_pools(paths.POOLS).sha256}",
        f"encoder, hash: {'e' * 64}",
        f"VLM: Tiny, revision {'r' * 64}, float32",
        "metric: VQA accuracy",
        "RL data: 10 queries",
        f"sha256: {'f' * 64}",
        "training seed: 2",
        "best epoch: 1 (chosen on dev: reward 0.7500)",
        "| mean | 45.0 [",
        "minus sft, seed 1, paired by question: +22.5 [",
        "minus rce, seed 2, paired by question: +0.0 [",
        "say nothing about large VLMs",
        'Path("artifacts/grpo/seed2/policy.safetensors")',
        "dvc repro grpo@2",
    ):
        assert fact in text


def test_a_policy_is_not_compared_with_itself(project: Made) -> None:
    sft, rce = card(project, "sft-sft-seed1"), card(project, "rce-rce-seed1")
    assert "minus sft" not in sft
    assert "minus rce" not in rce
    assert "dvc repro sft\n" in sft
    assert "RL data" not in sft.split("## Trained on")[1].split("##")[0]


def test_the_parameters_are_counted_without_loading(project: Made) -> None:
    from safetensors.numpy import load_file

    path = project.folder / paths.SFT / paths.POLICY
    header, parameters = read_checkpoint(path)
    assert parameters == sum(weight.size for weight in load_file(path).values())
    assert header["encoder"] == "e" * 64


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_checkpoint(tmp_path / "none.safetensors")
    damaged = tmp_path / "bad.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bad\.safetensors is no checkpoint"):
        read_checkpoint(damaged)


def test_the_best_epoch_is_the_first_of_equals() -> None:
    rows = [{"epoch": e, "dev_reward": r} for e, r in ((0, 0.1), (1, 0.4), (2, 0.4))]
    assert best_row([{"epoch": 0, "loss": 1.0}, *rows]) == (1, 0.4)
    with pytest.raises(UserError):
        best_row([{"epoch": 0}])
