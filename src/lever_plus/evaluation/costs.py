"""What a method costs beside its accuracy: demonstrations and prompt tokens, and what it took.

The first two follow from the score table. Requests to the VLM before the first question are counted
where a method is trained or chosen; milliseconds are measured, so that they are another machine's
elsewhere, and never the same twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pandas as pd

Row = dict[str, object]


@dataclass(frozen=True)
class Costs:
    """What methods took, each with a number a seed: filled while they are evaluated.

    Attributes:
        requests: {method: requests to the VLM to train or choose it}; a user's own selectors are
            not in it, nor what sees the true answers.
        milliseconds: {method: time to select the demonstrations of one query}, features given.
    """

    requests: dict[str, list[int]] = field(default_factory=dict)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def timing(self) -> dict[str, float]:
        """Return {method: milliseconds}, the mean over seeds."""
        return {method: round(fmean(each), 4) for method, each in self.milliseconds.items()}


def with_costs(
    summary: Mapping[str, list[Row]],
    scores: pd.DataFrame,
    requests: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, list[Row]]:
    """Return a summary whose accuracies have their costs beside them.

    Args:
        summary: See `summarise`.
        scores: The table that it was made of.
        requests: See `Costs`.

    Returns:
        The same, with `demonstrations` and `prompt_tokens` (None: not known) in rows and means,
        each the mean over questions, seeds and the row's shots, and `vlm_requests` in means, and in
        rows without demonstrations, where they are known: the mean over seeds.
    """
    rows = [
        {
            **row,
            **_shown(scores[scores["shot"] == row["shots"]], row),
            **({} if row["shots"] else _asked(row, requests)),
        }
        for row in summary["rows"]
    ]
    means = [{**row, **_shown(scores, row), **_asked(row, requests)} for row in summary["means"]]
    return {**summary, "rows": rows, "means": means}


def _shown(scores: pd.DataFrame, row: Row) -> Row:
    part = scores[scores["method"] == row["method"]]
    tokens = part["prompt_tokens"]
    return {
        "demonstrations": round(float(part["pointer"].map(len).mean()), 6),
        "prompt_tokens": None if tokens.isna().any() else round(float(tokens.mean()), 6),
    }


def _asked(row: Row, requests: Mapping[str, Sequence[int]] | None) -> Row:
    known = (requests or {}).get(str(row["method"]))
    return {} if known is None else {"vlm_requests": round(fmean(known), 6)}
