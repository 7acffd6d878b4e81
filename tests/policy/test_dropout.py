"""Dropout: shares and means, masks from a generator, and no effect outside training."""

from collections.abc import Iterator

import pytest
import torch

from lever_plus.policy.dropout import Dropout, dropped, masks_from

VALUES = torch.full((400, 500), 3.0)


@pytest.fixture
def draws() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    return


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_share_is_zero_and_the_mean_stays(rate: float) -> None:
    found = dropped(VALUES, rate)
    assert (found == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    assert found[found > 0].unique().tolist() == pytest.approx([3 / (1 - rate)])
    assert found.mean().item() == pytest.approx(3.0, rel=0.02)


def test_the_gradient_is_that_of_what_is_left() -> None:
    values = torch.ones(1000, requires_grad=True)
    found = dropped(values, 0.5)
    found.sum().backward()
    assert values.grad is not None
    assert values.grad.equal(found.detach())


def test_masks_come_from_the_generator_and_from_torch_s_own_elsewhere(
    draws: torch.Generator,
) -> None:
    before = torch.get_rng_state()
    with masks_from(draws):
        inside = dropped(VALUES, 0.5)
        with masks_from(None):
            torch_s = dropped(VALUES, 0.5)
    assert not torch.get_rng_state().equal(before)
    torch.set_rng_state(before)
    assert dropped(VALUES, 0.5).equal(torch_s)
    with masks_from(torch.Generator().manual_seed(7)):
        assert dropped(VALUES, 0.5).equal(inside)


def test_nothing_is_dropped_in_eval_mode_nor_at_rate_0() -> None:
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(VALUES) is VALUES
    assert Dropout(0.0).train()(VALUES) is VALUES
    assert torch.get_rng_state().equal(state)
    assert not Dropout(0.5).train()(VALUES).equal(VALUES)
