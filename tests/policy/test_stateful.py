"""Policies that see what was picked: every step depends on it; the formula of `stateful`."""

import math

import pytest
import torch
from torch import Tensor

from lever_plus.policy.network import Encoded, Policy
from lever_plus.policy.stateful import StatefulPolicy

Features = tuple[Tensor, Tensor]
SEEING = pytest.mark.parametrize("config", ["residual", "stateful"], indirect=True)
STATEFUL = pytest.mark.parametrize("config", ["stateful"], indirect=True)


@SEEING
def test_a_step_depends_on_its_own_number_alone(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    """`residual` needs no step embedding for the first step, which is that of `v2`."""
    log_probs = policy.log_probs(encoded, every[:, :1]).sum((0, 1))
    first = 1 if policy.config.kind == "residual" else 0
    for step in range(3):
        numbers = policy.get_parameter("step.weight")
        (gradient,) = torch.autograd.grad(
            log_probs[step], numbers, retain_graph=True, materialize_grads=True
        )
        counts = (gradient != 0).any(-1).tolist()
        assert counts == [number == step >= first for number in range(3)]


@SEEING
@pytest.mark.invariant
def test_a_step_depends_on_which_candidates_were_picked(policy: Policy, encoded: Encoded) -> None:
    """If picks were only masked, the odds of the others would stay the same; they must not."""
    picks = torch.tensor([[0], [1]]).expand(4, -1, -1)
    second = policy.step_log_probs(encoded, picks)[:, :, 1]
    odds = second[..., 2] - second[..., 3]
    assert (odds[:, 0] - odds[:, 1]).abs().min() > 0.01


@SEEING
@pytest.mark.invariant
def test_a_step_depends_on_the_order_of_the_picks(policy: Policy, encoded: Encoded) -> None:
    picks = torch.tensor([[0, 1], [1, 0]]).expand(4, -1, -1)
    third = policy.step_log_probs(encoded, picks)[:, :, 2, 2:]
    assert (third[:, 0] - third[:, 1]).abs().amax(-1).min() > 0.01


@SEEING
@pytest.mark.invariant
def test_a_later_step_sees_more_than_the_last_pick(policy: Policy, encoded: Encoded) -> None:
    picks = torch.tensor([[0, 2], [1, 2]]).expand(4, -1, -1)
    third = policy.step_log_probs(encoded, picks)[:, :, 2, 3:]
    odds = third[..., 0] - third[..., 1]
    assert (odds[:, 0] - odds[:, 1]).abs().min() > 1e-6
    assert (odds[:, 0] - odds[:, 1]).abs().max() > 1e-3


@STATEFUL
@pytest.mark.invariant
def test_the_clip_bounds_the_odds_of_two_candidates(
    policy: Policy, features: Features, every: Tensor
) -> None:
    queries, pools = features
    steps = policy.step_log_probs(policy.encode(1e4 * queries, 1e4 * pools), every[..., :0])
    spread = steps.amax(-1) - steps.amin(-1)
    assert spread.max() <= 2 * policy.config.logit_clip + 1e-9
    assert spread.max() > 1.9 * policy.config.logit_clip


@STATEFUL
@pytest.mark.invariant
def test_logits_are_those_of_the_formula(policy: Policy, encoded: Encoded, every: Tensor) -> None:
    """C tanh(f_t . W_k u_i / (C sqrt d)), written out; the network merges W_k into the MLP."""
    assert isinstance(policy, StatefulPolicy)
    clip, width = policy.config.logit_clip, policy.config.hidden
    query, u, state = encoded.query, encoded.candidates, policy.state
    with torch.no_grad():
        for weight in (state.last.bias, policy.start):
            weight.normal_()
        logits = policy.scores(encoded, every, range(3))
        for row, pointer in ((0, 7), (3, 41)):
            picked = u[row, every[row, pointer]]
            for step in range(3):
                mean, last = policy.start, policy.start
                if step:
                    mean, last = picked[:step].mean(0), picked[step - 1]
                seen = torch.cat([query[row], mean, last])
                out = state.last(torch.nn.functional.gelu(state.first(seen)))
                focus = query[row] + out + policy.step.weight[step]
                products = policy.key(u[row]) @ focus
                expected = clip * torch.tanh(products / (clip * math.sqrt(width)))
                found = logits[row, pointer, step]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
