"""A killed training resumes as if nothing had happened; with a damaged state it starts anew."""

import copy
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from identity_task import IdentityTask, make_task
from lever_plus.training.state import (
    optimizer_tensors,
    read_state,
    restore_optimizer,
    save_state,
)
from tiny_world import ROOT
from training import (
    AGRO,
    GRPO,
    RCE,
    SFT,
    STOP,
    KilledError,
    Outcome,
    Train,
    Watch,
    agro,
    grpo,
    rce,
    sft,
    stop,
)

SCRIPT = Path(__file__).parent / "killed_training.py"
NEVER = -1
CASES: dict[str, tuple[Train, Any, float]] = {
    "sft": (sft, SFT.model_copy(update={"epochs": 6, "dev_every": 2}), 0.4),
    "rce": (rce, RCE.model_copy(update={"epochs": 6, "schedule": "cosine"}), 0.0),
    "rce with dropout": (rce, RCE.model_copy(update={"epochs": 6, "dropout": 0.4}), 0.0),
    "agro": (
        agro,
        AGRO.model_copy(update={"epochs": 2, "rounds": 2, "schedule": "linear", "warmup": 9}),
        0.0,
    ),
    "grpo": (
        grpo,
        GRPO.model_copy(
            update={"epochs": 3, "rounds": 2, "kl_target": [50.0, 60.0], "kl_beta": 0.3}
        ),
        0.0,
    ),
    "stop": (stop, STOP.model_copy(update={"passes": 2, "rounds": 2, "epochs": 2}), 0.0),
    "grpo offline": (grpo, GRPO.model_copy(update={"epochs": 6, "rounds": 0}), 0.0),
}
"""Trainings of six epochs, their settings and the policy's dropout."""
CASE = pytest.mark.parametrize("case", CASES)
LONG = [pytest.param((epoch,), marks=pytest.mark.long) for epoch in (2, 3, 4, 5)]


def start(task: IdentityTask, case: str, watch: Watch, kept: Path | None) -> Outcome:
    train, params, dropout = CASES[case]
    return train(task, task.policy(dropout), params, seed=3, kept=kept, watch=watch)


@functools.cache
def _whole(case: str) -> Outcome:
    return start(make_task(), case, Watch(), None)


def whole(case: str) -> Outcome:
    """Return a training that nobody killed; a copy, for its best policy replaces the last."""
    return copy.deepcopy(_whole(case))


def text(outcome: Outcome) -> str:
    """Return the text of the history file."""
    return "".join(json.dumps(row) + "\n" for row in outcome.history)


def assert_equal(one: Outcome, other: Outcome) -> None:
    assert text(one) == text(other)
    assert one.weights.equal(other.weights)
    assert one.trained.best_epoch == other.trained.best_epoch
    assert one.trained.best_reward == other.trained.best_reward
    assert one.trained.requests == other.trained.requests > 0
    for name, weight in one.trained.best().state_dict().items():
        assert weight.equal(other.trained.best().state_dict()[name]), name


@pytest.mark.invariant
@CASE
@pytest.mark.parametrize("epochs", [(1,), *LONG, (6,), (2, 3, 5)], ids=str)
def test_a_killed_training_ends_as_one_that_was_not(
    task: IdentityTask, case: str, epochs: tuple[int, ...], tmp_path: Path
) -> None:
    """It is killed when an epoch's row is written and its state is not, also within a round."""
    kept = tmp_path / "state.safetensors"
    for epoch in epochs:
        with pytest.raises(KilledError):
            start(task, case, Watch(killed_at=epoch), kept)
        torch.manual_seed(99)
    assert_equal(start(task, case, Watch(), kept), whole(case))


@CASE
def test_a_finished_training_is_not_trained_again(
    task: IdentityTask, case: str, tmp_path: Path
) -> None:
    kept = tmp_path / "state.safetensors"
    first = start(task, case, Watch(), kept)
    task.scorer.asked.clear()
    again = start(task, case, Watch(), kept)
    assert_equal(again, first)
    assert task.scorer.asked == set()


@CASE
def test_keeping_a_state_changes_nothing(task: IdentityTask, case: str, tmp_path: Path) -> None:
    kept = tmp_path / "new" / "folder" / "state.safetensors"
    assert_equal(start(task, case, Watch(), kept), whole(case))
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("patience", [2, 3])
def test_patience_is_remembered(task: IdentityTask, tmp_path: Path, patience: int) -> None:
    params = SFT.model_copy(update={"learning_rate": 1e-12, "patience": patience})
    kept = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        sft(task, task.policy(), params, kept=kept, watch=Watch(killed_at=2))
    outcome = sft(task, task.policy(), params, kept=kept)
    assert [row["epoch"] for row in outcome.history] == list(range(patience + 1))


@pytest.mark.invariant
def test_a_state_that_was_cut_off_means_starting_anew(task: IdentityTask, tmp_path: Path) -> None:
    kept = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        start(task, "rce", Watch(killed_at=4), kept)
    content = kept.read_bytes()
    for length in (0, 5, 8, 100, len(content) // 2, len(content) - 1):
        kept.write_bytes(content[:length])
        assert read_state(kept) is None
    assert_equal(start(task, "rce", Watch(), kept), whole("rce"))
    assert read_state(kept) is not None


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"facts": "{"}], ids=str)
def test_another_file_is_no_state(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "state.safetensors"
    assert read_state(path) is None
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    assert read_state(path) is None
    path.write_bytes(b"\x80\x04 a pickle")
    assert read_state(path) is None


def test_half_a_state_beside_the_whole_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"x": torch.arange(3), "epoch": 1, "rows": [{"a": 0.1}]})
    path.with_suffix(".partial").write_bytes(b"half")
    state = read_state(path)
    assert state is not None
    assert state.pop("x").equal(torch.arange(3))
    assert state == {"epoch": 1, "rows": [{"a": 0.1}]}
    save_state(path, {"x": torch.arange(4), "epoch": 2})
    again = read_state(path)
    assert again is not None
    assert again["epoch"] == 2


def test_tensors_that_share_memory_are_kept_apart(tmp_path: Path) -> None:
    path, shared = tmp_path / "state.safetensors", torch.arange(6.0)
    save_state(path, {"a": shared, "b": shared[1:], "c": shared.view(2, 3).T})
    state = read_state(path)
    assert state is not None
    assert state["b"].equal(shared[1:])
    assert state["c"].equal(shared.view(2, 3).T)


def test_an_optimizer_goes_on_where_it_was() -> None:
    """Moments and step counts are restored: the next step is the same to the bit."""

    def steps(weight: torch.Tensor, optimizer: torch.optim.Optimizer, count: int) -> None:
        for number in range(count):
            optimizer.zero_grad()
            (weight * torch.tensor([1.0, number - 1.0])).sum().backward()
            optimizer.step()

    whole = torch.ones(2, requires_grad=True)
    steps(whole, first := torch.optim.AdamW([whole], lr=0.1), 3)
    resumed = whole.detach().clone().requires_grad_()
    second = torch.optim.AdamW([resumed], lr=0.1)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(first).items()}
    restore_optimizer(second, kept)
    steps(whole, first, 2)
    steps(resumed, second, 2)
    assert resumed.equal(whole)


def run_script(folder: Path, hang_at: int = NEVER) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(SCRIPT), str(folder), str(hang_at)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_after_kill_9_within_a_round_the_training_ends_bit_for_bit_the_same(
    tmp_path: Path,
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    uninterrupted = run_script(whole)
    doomed = run_script(broken, hang_at=5)
    assert doomed.stdout is not None
    assert doomed.stdout.readline() == "epoch 5\n"
    os.kill(doomed.pid, signal.SIGKILL)
    assert doomed.wait() == -signal.SIGKILL
    assert not (broken / "weights.bin").exists()
    assert run_script(broken).wait(180) == 0
    assert uninterrupted.wait(180) == 0
    for name in ("history.jsonl", "weights.bin"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
