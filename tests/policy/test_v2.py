"""The v2 policy: scores are static, so a pointer is a ranking without replacement."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from lever_plus.policy.v2 import attended

Features = tuple[Tensor, Tensor]
pytestmark = pytest.mark.parametrize("config", ["v2"], indirect=True)


def first_step(policy: Policy, encoded: Encoded) -> Tensor:
    """Return the probabilities of the first pick, [B, K]."""
    nothing = torch.zeros(len(encoded.query), 1, 0, dtype=torch.long)
    return policy.step_log_probs(encoded, nothing)[:, 0, 0].exp()


@pytest.mark.invariant
def test_a_pointer_has_the_probability_of_plackett_and_luce(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    """prod_t p(a_t) / (1 - sum of p over earlier picks): earlier picks count only as masked."""
    first = first_step(policy, encoded)
    picked = first.unsqueeze(1).expand(-1, 60, -1).gather(-1, every)
    left = 1 - (picked.cumsum(-1) - picked)
    expected = (picked / left).log()
    assert_close(policy.log_probs(encoded, every), expected, rtol=0, atol=1e-10)


@pytest.mark.invariant
def test_odds_of_two_candidates_are_the_same_after_any_picks(
    policy: Policy, encoded: Encoded
) -> None:
    picks = torch.tensor([[0, 1], [1, 0], [4, 0]]).expand(4, -1, -1)
    steps = policy.step_log_probs(encoded, picks)
    odds = (steps[..., 2] - steps[..., 3]).flatten(1)
    assert_close(odds, odds[:, :1].expand(-1, 9), rtol=0, atol=1e-12)
    assert odds.abs().max() > 0.1


@pytest.mark.invariant
def test_logits_are_bounded_by_one_over_the_temperature(policy: Policy, features: Features) -> None:
    queries, pools = features
    encoded = policy.encode(queries, 1e4 * pools)
    logits = policy.scores(encoded, torch.zeros(4, 1, 0, dtype=torch.long), range(1))
    largest = 1 / policy.config.temperature
    assert logits.abs().max() <= largest + 1e-9
    assert logits.abs().max() > 0.8 * largest


def test_a_lower_temperature_sharpens_the_choice(
    config: PolicyConfig, policy: Policy, features: Features
) -> None:
    sharp = build_policy(replace(config, temperature=config.temperature / 4)).double().eval()
    sharp.load_state_dict(policy.state_dict())
    logits = first_step(policy, policy.encode(*features)).log()
    sharper = first_step(sharp, sharp.encode(*features))
    assert_close(sharper, (4 * logits).softmax(-1), rtol=0, atol=1e-10)


def test_the_score_of_a_candidate_depends_on_the_others_of_its_pool(
    policy: Policy, features: Features
) -> None:
    """The query attends to the pool, so another pool gives other odds."""
    queries, pools = features
    other = pools.clone()
    other[:, 4] += 2.0
    one, two = (first_step(policy, policy.encode(queries, each)).log() for each in (pools, other))
    odds = (one[:, 0] - one[:, 1]) - (two[:, 0] - two[:, 1])
    assert odds.abs().min() > 1e-4


def test_every_layer_attends(config: PolicyConfig, features: Features) -> None:
    torch.manual_seed(0)
    deep = build_policy(replace(config, layers=3)).double().eval()
    pointers = torch.tensor(list(permutations(range(5), 3))).expand(4, -1, -1)
    deep.log_probs(deep.encode(*features), pointers[:, :1]).sum().backward()
    names = {name.split(".")[1] for name, _ in deep.named_parameters() if "attention" in name}
    assert names == {"0", "1", "2"}
    for name, parameter in deep.named_parameters():
        if "out_proj.weight" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-9, name


def test_attention_is_that_of_torch(config: PolicyConfig) -> None:
    attention = torch.nn.MultiheadAttention(config.hidden, 1, batch_first=True).double()
    for bias in (attention.in_proj_bias, attention.out_proj.bias):
        torch.nn.init.normal_(bias)
    query = torch.randn(5, config.hidden).double()
    pool = torch.randn(5, 7, config.hidden).double()
    valid = torch.arange(7) < torch.tensor([7, 3, 1, 5, 7])[:, None]
    expected, _ = attention(query.unsqueeze(1), pool, pool, key_padding_mask=~valid)
    found = attended(attention, query, pool, valid)
    torch.testing.assert_close(found, expected.squeeze(1), rtol=1e-12, atol=1e-12)


def test_untrained_projections_are_nearly_the_identity(config: PolicyConfig) -> None:
    fresh = build_policy(config)
    for name in ("query_out", "candidate_out"):
        off = fresh.get_parameter(f"{name}.weight") - torch.eye(config.hidden)
        assert 0 < off.abs().max() < 0.06
        assert fresh.get_parameter(f"{name}.bias").equal(torch.zeros(config.hidden))


def test_a_picked_candidate_is_impossible_and_not_only_unlikely(
    policy: Policy, encoded: Encoded
) -> None:
    """A finite penalty instead would let a peaked policy repeat itself."""
    steps = policy.step_log_probs(encoded, torch.tensor([[2, 4]]).expand(4, 1, -1))
    assert (steps[:, 0, 1, 2] == -math.inf).all()
    assert (steps[:, 0, 2, [2, 4]] == -math.inf).all()
