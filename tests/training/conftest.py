"""Fixtures of the training tests: a world small enough to enumerate, in float64, and a task."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from identity_task import IdentityTask, make_task
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from tiny_world import random_policy

torch.set_num_threads(1)

POOL, SHOTS = 5, 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def policy() -> Policy:
    """A random policy over 60 pointers, well away from uniform."""
    config = PolicyConfig("stateful", query_size=4, candidate_size=6, hidden=8, shots=SHOTS)
    return random_policy(config)


@pytest.fixture
def encoded(policy: Policy) -> Encoded:
    """One query with a pool of five."""
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    pool = torch.randn(1, POOL, 6, generator=generator, dtype=torch.float64)
    return policy.encode(query, pool)


@pytest.fixture
def reference(policy: Policy) -> Policy:
    """A policy near `policy`."""
    other = build_policy(policy.config).double().eval()
    torch.manual_seed(11)
    moved = {k: v + 0.1 * torch.randn_like(v) for k, v in policy.state_dict().items()}
    other.load_state_dict(moved)
    return other


@pytest.fixture
def reference_encoded(reference: Policy) -> Encoded:
    """The query and pool of `encoded`, encoded by the reference."""
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    return reference.encode(
        query, torch.randn(1, POOL, 6, generator=generator, dtype=torch.float64)
    )


@pytest.fixture
def every() -> Tensor:
    """All possible pointers: [1, 60, SHOTS]."""
    return torch.tensor([list(permutations(range(POOL), SHOTS))])


@pytest.fixture
def rewards(every: Tensor) -> Tensor:
    """Random accuracies of every pointer, [1, 60, SHOTS]; shot k depends on the first k picks."""
    generator = torch.Generator().manual_seed(7)
    tables = [torch.rand([POOL] * shot, generator=generator).double() for shot in (1, 2, 3)]
    picks = every.unbind(-1)
    return torch.stack([table[picks[: table.ndim]] for table in tables], dim=-1)


@pytest.fixture
def task() -> IdentityTask:
    return make_task()
