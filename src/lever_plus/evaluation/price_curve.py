"""The accuracy of a policy that can stop, at different prices of a demonstration."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lever_plus.evaluation.scored import Table, accuracy
from lever_plus.evaluation.summary import images_of

Row = dict[str, Any]


def price_rows(scores: Mapping[float, pd.DataFrame], resamples: int) -> list[Row]:
    """Return one row per price: accuracy with its interval over trainings and images, and costs.

    Args:
        scores: {price: the score table of all trainings at that price}; only the largest shot is
            used.
        resamples: Number of bootstrap resamples, if there is only one training.

    Returns:
        Rows with price, shots, the fields of `accuracy`, and the means of demonstrations and
        prompt_tokens (None if not known).
    """
    return [{"price": price, **_row(table, resamples)} for price, table in scores.items()]


def _row(scores: pd.DataFrame, resamples: int) -> Row:
    most = int(scores["shot"].max())
    asked = scores[scores["shot"] == most]
    table = Table(asked, trained=True)
    images = np.asarray(images_of(asked).loc[table.questions], dtype=np.int64)
    tokens = asked["prompt_tokens"]
    return {
        **accuracy(table.at(most), images, resamples),
        "shots": most,
        "demonstrations": round(float(asked["pointer"].map(len).mean()), 6),
        "prompt_tokens": None if tokens.isna().any() else round(float(tokens.mean()), 6),
    }
