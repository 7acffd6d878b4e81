"""Makes the user's own selectors, which are evaluated with the methods of an experiment.

`evaluate.selectors` in params.yaml names their factories: each is "package.module:factory", or the
name of an entry point in the group "lever_plus.selectors". A factory gets a `Context` and returns a
selector, whose row in the tables has the factory's name.
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

    Attributes:
        features: Features of all queries and candidates of the experiment.
        vlm: The frozen VLM; its answers are kept in the answer store.
        seed: `seed` of params.yaml.
    """

    features: Features
    vlm: Vlm
    seed: int


def make_selector(name: str, context: Context) -> Selector:
    """Return the selector that a factory makes.

    Args:
        name: The factory, as in `evaluate.selectors`.
        context: What the factory gets.

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
    """Return the names of the selectors' rows: those of the factories, without modules."""
    return [factory.rpartition(":")[2] for factory in factories]
