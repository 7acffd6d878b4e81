"""The identity task, and a policy for it as a selector."""

import pytest
import torch

from identity_task import IdentityTask, make_task
from lever_plus.policy.kinds import KINDS
from lever_plus.selectors.learned import LearnedSelector

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def task() -> IdentityTask:
    return make_task()


@pytest.fixture(params=KINDS)
def learned(request: pytest.FixtureRequest, task: IdentityTask) -> LearnedSelector:
    """A random policy of every kind, far from indifferent, handed over in training mode."""
    policy = task.policy(dropout=0.5, kind=request.param)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return LearnedSelector(policy.train(), task.environment.features)
