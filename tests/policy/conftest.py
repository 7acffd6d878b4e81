"""A policy small enough to enumerate: 60 pointers of 3 picks from pools of 5, in float64."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from lever_plus.policy.kinds import KINDS
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from tiny_world import random_policy

torch.set_num_threads(1)

POOL, SHOTS, QUERIES = 5, 3, 4


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> PolicyConfig:
    """A policy of every kind; a test of only some kinds names them by an indirect parameter."""
    return PolicyConfig(
        request.param, query_size=4, candidate_size=6, hidden=8, shots=SHOTS, temperature=0.5
    )


@pytest.fixture
def policy(config: PolicyConfig) -> Policy:
    """A random policy whose probabilities are far from uniform."""
    return random_policy(config)


@pytest.fixture
def features(config: PolicyConfig) -> tuple[Tensor, Tensor]:
    """Features of the queries and of their pools."""
    generator = torch.Generator().manual_seed(5)
    queries = torch.randn(QUERIES, config.query_size, generator=generator, dtype=torch.float64)
    pools = torch.randn(
        QUERIES, POOL, config.candidate_size, generator=generator, dtype=torch.float64
    )
    return queries, pools


@pytest.fixture
def encoded(policy: Policy, features: tuple[Tensor, Tensor]) -> Encoded:
    return policy.encode(*features)


@pytest.fixture
def every() -> Tensor:
    """All possible pointers for every query: [QUERIES, 60, SHOTS]."""
    return torch.tensor(list(permutations(range(POOL), SHOTS))).expand(QUERIES, -1, -1)
