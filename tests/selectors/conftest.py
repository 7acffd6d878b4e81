"""The identity task, and a policy for it as a selector."""

import pytest
import torch

from identity_task import IdentityTask, make_task
from lever_plus.policy.kinds import KINDS, with_stop
from lever_plus.policy.network import Policy
from lever_plus.selectors.learned import LearnedSelector

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def task() -> IdentityTask:
    return make_task()


@pytest.fixture(params=KINDS)
def learned(request: pytest.FixtureRequest, task: IdentityTask) -> LearnedSelector:
    """A random policy of every kind, far from uniform, which is given in training mode."""
    policy = far_from_indifferent(task.policy(dropout=0.5, kind=request.param))
    return LearnedSelector(policy.train(), task.environment.features)


@pytest.fixture
def stopping(task: IdentityTask) -> Policy:
    """A random policy with a stop head for prices up to 0.2, which stops anywhere."""
    return far_from_indifferent(with_stop(task.policy(), 0.2))


def far_from_indifferent(policy: Policy) -> Policy:
    """Change the weights at random, always in the same way."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy
