"""The residual policy: untrained it equals `v2` to the last bit; training adds a correction."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu
from torch.testing import assert_close

from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from lever_plus.policy.residual import ResidualPolicy

Features = tuple[Tensor, Tensor]
pytestmark = pytest.mark.parametrize("config", ["residual"], indirect=True)


@pytest.mark.invariant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untrained_it_is_the_v2_policy_with_its_weights_to_the_last_bit(
    config: PolicyConfig, features: Features, every: Tensor, dtype: torch.dtype
) -> None:
    """At every step, after any picks, whether steps are computed together or one by one."""
    fresh = build_policy(replace(config, layers=2)).to(dtype).eval()
    assert isinstance(fresh, ResidualPolicy)
    static = build_policy(replace(config, kind="v2", layers=2)).to(dtype).eval()
    static.load_state_dict(fresh.static.state_dict())
    queries, pools = (part.to(dtype) for part in features)
    valid = torch.tensor([[True] * 5, [True] * 4 + [False]] * 2)
    one, other = (policy.encode(queries, pools, valid) for policy in (fresh, static))
    pointers = every[:, (every[0] < 4).all(-1)]
    found = fresh.step_log_probs(one, pointers)
    assert found.equal(static.step_log_probs(other, pointers))
    for picks in range(3):
        alone = fresh.next_log_probs(one, pointers[..., :picks])
        assert alone.equal(static.next_log_probs(other, pointers[..., :picks]))
    assert found.exp().amax() > 0.3


@pytest.mark.invariant
def test_logits_are_those_of_the_formula(policy: Policy, encoded: Encoded, every: Tensor) -> None:
    """The formula of the module's docstring, written out."""
    assert isinstance(policy, ResidualPolicy)
    with torch.no_grad():
        logits = policy.scores(encoded, every, range(3))
        for row, pointer in ((0, 7), (3, 41)):
            focus, picked = encoded.query[row], encoded.keys[row, every[row, pointer]]
            for step in range(3):
                added = torch.zeros_like(focus)
                if step:
                    seen = torch.cat([focus, picked[:step].mean(0), picked[step - 1]])
                    hidden = gelu(policy.seen(seen) + policy.step.weight[step])
                    added = policy.correction(hidden)
                    assert added.norm() > 0.1
                products = encoded.keys[row] @ (focus + added)
                expected = products / policy.config.temperature
                assert_close(logits[row, pointer, step], expected, rtol=0, atol=1e-12)


def test_the_first_pick_is_that_of_its_static_part_after_any_training(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    assert isinstance(policy, ResidualPolicy)
    first = policy.next_log_probs(encoded, every[..., :0])
    assert_close(first, policy.static.next_log_probs(encoded, every[..., :0]), rtol=0, atol=1e-12)


def test_pointers_of_one_pick_have_no_later_steps(
    config: PolicyConfig, features: Features, every: Tensor
) -> None:
    single = build_policy(replace(config, shots=1)).double().eval()
    found = single.log_probs(single.encode(*features), every[..., :1])
    assert found.shape == (4, 60, 1)
