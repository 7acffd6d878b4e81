"""The first section of the page: one plot, and one decision beside it."""

from collections.abc import Mapping

import pandas as pd

from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import STTR_AS_MANY, methods_in
from lever_plus.report.card import card
from lever_plus.report.decisions import Reader
from lever_plus.report.findings import best
from lever_plus.report.front import front_methods, front_svg
from lever_plus.report.page import plot
from lever_plus.report.tables import Summary


def opening(
    summary: Summary,
    scores: pd.DataFrame,
    examples: Mapping[int, Example],
    reader: Reader | None = None,
) -> str:
    """Return the plot, and a question that the best learned selector and similarity differ on.

    Args:
        summary: metrics/summary.json.
        scores: The table of `evaluate`.
        examples: All examples by id.
        reader: Knows what questions need, where somebody does.
    """
    methods = methods_in(summary)
    learned = best(summary, methods.names("trained"))
    similar = best(summary, set(methods.names("similarity")) - {STTR_AS_MANY})
    shown = front_methods(summary, learned["method"] if learned else None)
    drawn = plot(front_svg(summary, shown))
    if not (learned and similar):
        return drawn
    pair = (learned["method"], similar["method"])
    return f'<div class="front">{drawn}{card(scores, examples, methods, pair, reader)}</div>'
