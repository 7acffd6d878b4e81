"""What methods cost: demonstrations, prompt tokens, requests to the VLM, and time.

The first two are computed from the score table. Requests to the VLM that training or choosing a
method takes are counted while that happens. Milliseconds are measured, so they differ between
machines and runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pandas as pd

Row = dict[str, object]


@dataclass(frozen=True)
class Costs:
    """The costs of methods, one number per seed; filled while the methods are evaluated.

    Attributes:
        requests: {method: number of requests to the VLM for training or choosing it}, without a
            user's own selectors and methods that see the true answers.
        milliseconds: {method: time to select the demonstrations of one query}, without the time
            for its features.
    """

    requests: dict[str, list[int]] = field(default_factory=dict)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def timing(self) -> dict[str, float]:
        """Return {method: milliseconds per query}, as the mean over seeds."""
        return {method: round(fmean(each), 4) for method, each in self.milliseconds.items()}


def with_costs(
    summary: Mapping[str, list[Row]],
    scores: pd.DataFrame,
    requests: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, list[Row]]:
    """Return a summary with the costs added to its rows.

    Args:
        summary: See `summarise`.
        scores: The score table from which the summary was computed.
        requests: See `Costs`.

    Returns:
        The summary. Its rows and means also have `demonstrations` and `prompt_tokens` (None if not
        known): means over questions, seeds and the row's shots. If known, means, and rows without
        demonstrations, also have `vlm_requests`: the mean over seeds.
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
