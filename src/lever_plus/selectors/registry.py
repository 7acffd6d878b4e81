"""Selectors by name: a user's own, beside the methods of an experiment.

`evaluate.selectors` in params.yaml names factories: an entry point of the group
"lever_plus.selectors" of an installed package, or "package.module:factory". A factory gets a
`Context` and returns a selector; its row in the tables has the factory's name.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from lever_plus.config.evaluate import SELECTORS
from lever_plus.config.plugins import find
from lever_plus.errors import UserError
from lever_plus.features.sources import Features
from lever_plus.selectors.base import Selector
from lever_plus.vlm.request import Vlm

SETTING: Final = "evaluate.selectors"


class Context(NamedTuple):
    """What a factory may use.

    features: Of every query and candidate of the experiment; vlm: the frozen VLM, whose answers
    are kept; seed: that of params.yaml.
    """

    features: Features
    vlm: Vlm
    seed: int


def make_selector(name: str, context: Context) -> Selector:
    """Return the selector that a factory makes.

    Raises:
        UserError: There is no such factory, or what it returns has no method `select`.
    """
    made: Selector = find(SELECTORS, name, {}, what=SETTING)(context)
    if not callable(getattr(made, "select", None)):
        raise UserError(
            f"{SETTING}: {name} returned a {type(made).__name__}, which has no method "
            "select(query, pool, shots)."
        )
    return made


def selector_names(factories: Sequence[str]) -> list[str]:
    """Return the names of the rows: those of the factories, without their modules."""
    return [factory.rpartition(":")[2] for factory in factories]
