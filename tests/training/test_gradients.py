"""A batch's gradient does not depend on how it is cut into parts, nor on which thread is first."""

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from identity_task import IdentityTask
from lever_plus.policy.dropout import dropped
from lever_plus.training import gradients
from lever_plus.training.gradients import Gradients, Part
from training import FEW, Train, agro, grpo, rce, sft, sft_beams, stop

ROWS = torch.arange(7)


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.arange(1.0, 8.0, dtype=torch.float64))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_parts_weigh_as_much_as_they_have_rows(weight: nn.Parameter, parts: int) -> None:
    seen: list[int] = []

    def part(rows: Tensor) -> Part:
        seen.extend(rows.tolist())
        return Part(weight[rows].square().mean(), {"mean": weight[rows].mean().item()})

    figures = Gradients([weight], parts).of(ROWS, part)
    assert sorted(seen) == ROWS.tolist()
    assert figures["mean"] == pytest.approx(4.0)
    assert figures["loss"] == pytest.approx(20.0)
    torch.testing.assert_close(weight.grad, 2 * weight.detach() / 7)


def test_parts_are_summed_in_their_order(weight: nn.Parameter) -> None:
    """Float32 sums depend on order: the first part is the slowest, and still summed first."""
    single = nn.Parameter(weight.detach().float() * 1e-3)
    scale = torch.tensor([1e8, -1e8, 1.0])

    def part(rows: Tensor) -> Part:
        time.sleep(0.02 * (2 - int(rows[0])))
        return Part((single[0] * scale[rows]).sum(), {})

    gradients = Gradients([single], 3)
    gradients.of(torch.arange(3), part)
    expected = (scale[0] / 3 + scale[1] / 3) + scale[2] / 3
    assert single.grad is not None
    assert single.grad[0] == expected


def test_parameters_share_no_gradient_and_what_does_not_count_has_none(
    weight: nn.Parameter,
) -> None:
    other, unused = nn.Parameter(weight.detach().clone()), nn.Parameter(torch.ones(2))
    Gradients([weight, other, unused], 1).of(ROWS, lambda _rows: Part((weight + other).sum(), {}))
    assert weight.grad is not None
    assert other.grad is not None
    weight.grad.mul_(0)
    assert other.grad.tolist() == [1.0] * 7
    assert unused.grad is None


def test_a_parameter_that_counts_later_takes_first_steps_then(weight: nn.Parameter) -> None:
    """Its first Adam steps are as long as the rate, whatever other parameters learned before."""
    later = nn.Parameter(torch.ones(2))
    gradients, adam = Gradients([weight, later], 2), torch.optim.AdamW([weight, later], lr=0.01)
    for counts, steps in ((weight, 50), (later, 5)):
        for _ in range(steps):
            gradients.of(ROWS, lambda _rows, counts=counts: Part(counts.sum(), {}))
            adam.step()
        assert (later.equal(torch.ones(2))) == (counts is weight)
    assert later.tolist() == pytest.approx([0.95] * 2, abs=1e-3)


def test_what_a_part_raises_is_raised(weight: nn.Parameter) -> None:
    def part(rows: Tensor) -> Part:
        if 6 in rows:
            raise RuntimeError("part with row 6")
        return Part(weight[rows].sum(), {})

    with pytest.raises(RuntimeError, match="row 6"):
        Gradients([weight], 2).of(ROWS, part)


@pytest.mark.parametrize("train", [rce, agro, grpo])
def test_training_does_not_depend_on_the_parts(task: IdentityTask, train: Train) -> None:
    """Except for the order of float operations; with equal parts, the bytes are the same."""
    whole = task.groups(size=12)
    keep = torch.arange(12) < 3 + 2 * (torch.arange(len(whole.queries)) % 4)[:, None]
    groups = replace(whole, keep=keep)  # as repeats make it: queries with more and with less
    one, three, again = (
        train(task, task.policy(), FEW[train], groups=groups, threads=n) for n in (1, 3, 3)
    )
    assert three.history == again.history
    assert torch.equal(three.weights, again.weights)
    for row, other in zip(one.history, three.history, strict=True):
        assert row.keys() == other.keys()
        assert {k: v for k, v in row.items() if isinstance(v, float)} == pytest.approx(
            {k: v for k, v in other.items() if isinstance(v, float)}, rel=1e-3, abs=1e-3
        )


class InTurn:
    """Stands in for a pool whose threads are faster or slower than the one that waits for them."""

    def __init__(self, *, faster: bool) -> None:
        """Compute submitted work at once, or only when its result is requested."""
        self._faster = faster

    def submit(self, work: Callable[[], object]) -> SimpleNamespace:
        """Return something with a result."""
        if not self._faster:
            return SimpleNamespace(result=work)
        found = work()
        return SimpleNamespace(result=lambda: found)


@pytest.mark.parametrize("train", [sft, sft_beams, rce, agro, grpo, stop])
def test_a_training_does_not_depend_on_which_part_is_faster(
    task: IdentityTask, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts share no random numbers: with dropout and with prices, the bytes are equal."""
    outcomes = []
    for faster in (True, False):
        pool = InTurn(faster=faster)
        monkeypatch.setattr(gradients, "ThreadPoolExecutor", lambda *_args, pool=pool, **_: pool)
        outcomes.append(train(task, task.policy(0.5), FEW[train], threads=3))
    first, again = outcomes
    assert first.weights.equal(again.weights)
    assert first.history == again.history


def test_every_part_and_every_step_has_masks_of_its_own(weight: nn.Parameter) -> None:
    seen = dict[tuple[int, ...], Tensor]()

    def part(rows: Tensor) -> Part:
        time.sleep(0.01 * int(rows[0] == 0))
        seen[tuple(rows.tolist())] = mask = dropped(torch.ones(64), 0.5)
        return Part(weight.sum() * mask.mean(), {})

    def masks(seed: int, steps: int) -> list[Tensor]:
        gradients, draws = Gradients([weight], 2), torch.Generator().manual_seed(seed)
        found = []
        for _ in range(steps):
            gradients.of(ROWS, part, draws)
            found += [mask for _, mask in sorted(seen.items())]
        return found

    first, again, other = masks(0, 3), masks(0, 3), masks(1, 3)
    assert torch.stack(first).equal(torch.stack(again))
    assert len({tuple(mask.tolist()) for mask in [*first, *other]}) == 12


def test_without_dropout_no_random_number_is_drawn(weight: nn.Parameter) -> None:
    state = torch.get_rng_state()
    Gradients([weight], 2).of(ROWS, lambda rows: Part(weight[rows].sum(), {}))
    assert torch.get_rng_state().equal(state)
