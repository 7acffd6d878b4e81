"""An optimiser step, its learning rate and its batches; a trainer resumes where another was."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from identity_task import IdentityTask
from lever_plus.config.optim import OptimParams
from lever_plus.policy.dropout import dropped
from lever_plus.policy.network import Policy
from lever_plus.training.gradients import Part
from lever_plus.training.state import read_state, save_state
from lever_plus.training.trainer import Run, Trainer, shuffled_batches
from training import OPTIM, Watch

RATE = 1e-2
SCHEDULES = [
    ({"schedule": "constant"}, [1.0] * 5),
    ({"schedule": "linear"}, [1.0, 0.75, 0.5, 0.25, 0.0]),
    ({"schedule": "cosine"}, [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]),
    ({"schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1.0, 1.0]),
    ({"schedule": "linear", "warmup": 2}, [1 / 3, 2 / 3, 1.0, 0.5, 0.0]),
    ({"schedule": "cosine", "warmup": 2}, [1 / 3, 2 / 3, 1.0, 0.5, 0.0]),
    ({"schedule": "linear", "warmup": 9}, [0.1, 0.2, 0.3, 0.4, 0.5]),
]


def trainer(policy: Policy, steps: int = 1, **changes: Any) -> Trainer:
    params = OptimParams(**{**OPTIM, **changes}, epochs=1)
    return Trainer(policy, params, Run(0, Watch()), steps)


def step(trainer: Trainer, loss: Tensor) -> dict[str, float]:
    """Take an optimiser step on a batch of one row."""
    return trainer.update(torch.zeros(1, dtype=torch.long), lambda _rows: Part(loss, {}))


def learning_rates(task: IdentityTask, steps: int, count: int, **changes: Any) -> list[float]:
    """Return the size of `count` steps: with a constant gradient, Adam's is the learning rate."""
    policy = task.policy()
    settings = {"learning_rate": RATE, "grad_clip": 1e6, **changes}
    trained = trainer(policy, steps, **settings)
    weight, sizes = policy.get_parameter("query_in.bias"), []
    for _ in range(count):
        before = weight.detach().clone()
        step(trained, weight.sum())
        sizes.append((before - weight).detach().double().mean().item() / RATE)
    return sizes


@pytest.mark.parametrize(("changes", "expected"), SCHEDULES, ids=str)
def test_the_learning_rate_follows_its_schedule(
    task: IdentityTask, changes: dict[str, Any], expected: list[float]
) -> None:
    assert learning_rates(task, 4, 5, **changes) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_learning_rate_that_came_to_its_end_stays_there(
    task: IdentityTask, schedule: str
) -> None:
    """Rounds of fresh candidates may make more steps than were planned."""
    found = learning_rates(task, 2, 6, schedule=schedule)
    assert found == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0, 0.0], abs=1e-4)


@pytest.mark.invariant
@pytest.mark.parametrize("changes", [changes for changes, _ in SCHEDULES], ids=str)
@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_a_trainer_goes_on_bit_for_bit_where_another_was(
    task: IdentityTask, changes: dict[str, Any], done: int, tmp_path: Path
) -> None:
    """Weights, moments, learning rate, batches and dropout, through a file."""

    def steps(trainer: Trainer, count: int) -> None:
        weight, rows = trainer.policy.get_parameter("query_in.bias"), torch.zeros(1).long()

        def part(_rows: Tensor) -> Part:
            scale = torch.rand((), generator=trainer.generator)
            return Part((scale * dropped(weight, 0.5)).square().sum(), {})

        for _ in range(count):
            trainer.update(rows, part, dropout=True)

    whole = trainer(task.policy(), 4, **changes)
    steps(whole, done)
    save_state(tmp_path / "state", whole.state_dict())
    steps(whole, 6 - done)
    resumed = trainer(task.policy(seed=1), 4, **changes)
    state = read_state(tmp_path / "state")
    assert state is not None
    resumed.load_state_dict(state)
    steps(resumed, 6 - done)
    assert resumed.step == whole.step == 6
    for one, other in zip(resumed.policy.parameters(), whole.policy.parameters(), strict=True):
        assert one.equal(other)


def test_progress_goes_from_zero_to_one_over_the_steps(task: IdentityTask) -> None:
    policy = task.policy()
    trained, found = trainer(policy, steps=5), []
    for _ in range(6):
        found.append(trained.progress)
        step(trained, policy.get_parameter("query_in.bias").sum())
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_gradient_is_clipped_and_its_norm_before_that_is_reported(task: IdentityTask) -> None:
    policy = task.policy()
    trained = trainer(policy, grad_clip=0.5)
    loss = 100 * torch.stack([p.square().sum() for p in policy.parameters()]).sum()
    norm = step(trained, loss)["grad_norm"]
    clipped = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert norm > 100
    assert clipped.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_batches_of_an_epoch_hold_every_row_once_in_random_order() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (list(shuffled_batches(10, 4, generator)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert torch.cat(first).sort().values.equal(torch.arange(10))
    assert not torch.cat(first).equal(torch.cat(second))
    assert list(shuffled_batches(0, 4, generator)) == []
