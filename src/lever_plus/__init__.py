"""Lever-Plus: learn which in-context demonstrations a frozen vision-language model should see."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lever_plus.data.examples import Example, Query
    from lever_plus.data.pool_files import read_pool
    from lever_plus.errors import UserError
    from lever_plus.evaluation.compare import Evaluation, evaluate
    from lever_plus.metric import normalize_answer, vqa_accuracy
    from lever_plus.selectors.base import Selection, Selector
    from lever_plus.selectors.learned import LearnedSelector, load_selector
    from lever_plus.selectors.live_pool import LivePool
    from lever_plus.vlm.open import open_vlm

_PLACES = {
    "Evaluation": "evaluation.compare",
    "Example": "data.examples",
    "LearnedSelector": "selectors.learned",
    "LivePool": "selectors.live_pool",
    "Query": "data.examples",
    "Selection": "selectors.base",
    "Selector": "selectors.base",
    "UserError": "errors",
    "evaluate": "evaluation.compare",
    "load_selector": "selectors.learned",
    "normalize_answer": "metric",
    "open_vlm": "vlm.open",
    "read_pool": "data.pool_files",
    "vqa_accuracy": "metric",
}
"""Modules are imported when a name of theirs is first used: `import lever_plus` loads no torch."""

__all__ = [
    "Evaluation",
    "Example",
    "LearnedSelector",
    "LivePool",
    "Query",
    "Selection",
    "Selector",
    "UserError",
    "evaluate",
    "load_selector",
    "normalize_answer",
    "open_vlm",
    "read_pool",
    "vqa_accuracy",
]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
