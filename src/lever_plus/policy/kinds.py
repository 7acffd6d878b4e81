"""The kinds of selectors: which configuration builds which network."""

from typing import Any

from lever_plus.params_training import StatefulPolicyParams, V2PolicyParams
from lever_plus.policy.network import Selector, SelectorConfig
from lever_plus.policy.stateful import StatefulSelector
from lever_plus.policy.v2 import V2Selector

KINDS: dict[str, type[Selector]] = {"stateful": StatefulSelector, "v2": V2Selector}


def build_selector(config: SelectorConfig) -> Selector:
    """Build an untrained selector."""
    return KINDS[config.kind](config)


def configure(params: StatefulPolicyParams | V2PolicyParams, **sizes: Any) -> SelectorConfig:
    """Return the configuration of a selector: what params.yaml says, and the sizes of the data.

    Args:
        params: Kind, width and what else the kind has.
        sizes: The other fields of `SelectorConfig`.
    """
    return SelectorConfig(**params.model_dump(), **sizes)
