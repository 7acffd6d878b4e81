"""The kinds of policies, and building one from its configuration."""

from dataclasses import replace
from typing import Any

from lever_plus.config.policy import PolicyParams
from lever_plus.policy.network import Policy, PolicyConfig, PricePer
from lever_plus.policy.residual import ResidualPolicy
from lever_plus.policy.stateful import StatefulPolicy
from lever_plus.policy.v2 import V2Policy

KINDS: dict[str, type[Policy]] = {
    "residual": ResidualPolicy,
    "stateful": StatefulPolicy,
    "v2": V2Policy,
}


def build_policy(config: PolicyConfig) -> Policy:
    """Build an untrained policy."""
    return KINDS[config.kind](config)


def configure(params: PolicyParams, **sizes: Any) -> PolicyConfig:
    """Return the configuration of a policy, from params.yaml and the sizes of the data.

    Args:
        params: The section `policy`.
        **sizes: The other fields of `PolicyConfig`.
    """
    return PolicyConfig(**params.model_dump(), **sizes)


def with_stop(
    policy: Policy, highest_price: float, price_per: PricePer = "demonstration"
) -> Policy:
    """Return a policy with the same weights and an untrained stop head, in eval mode.

    Args:
        policy: A policy without a stop head.
        highest_price: The highest price that the head will be trained with, above 0.
        price_per: What the price is paid for.

    Raises:
        ValueError: The policy has a stop head already.
    """
    if policy.stop is not None:
        raise ValueError("the policy has a stop head already")
    priced = replace(policy.config, highest_price=highest_price, price_per=price_per)
    other = build_policy(priced)
    head = {
        f"stop.{name}": value for name, value in other.get_submodule("stop").state_dict().items()
    }
    other.load_state_dict({**policy.state_dict(), **head}, strict=True)
    return other.eval()


def with_dropout(policy: Policy, rate: float) -> Policy:
    """Return a policy with the same weights and another rate of dropout, in eval mode."""
    other = build_policy(replace(policy.config, dropout=rate))
    other.load_state_dict(policy.state_dict(), strict=True)
    return other.eval()
