"""The results of variants, of transfers and of the pipeline itself, checked while they are read.

The pipeline counts as the variant `default`.
"""

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from lever_plus.config.base import NonNegative, Whole
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import methods_in
from lever_plus.evaluation.scored import Table, rounded
from lever_plus.evaluation.statistics import Clusters
from lever_plus.evaluation.stored import read_summary
from lever_plus.evaluation.summary import check_complete, images_of
from lever_plus.experiments.ablation.variants import (
    DEFAULT,
    FACTS,
    SCORES,
    VARIANTS,
    Transfer,
    Variant,
    Variants,
)
from lever_plus.files.json_files import read_json_as
from lever_plus.files.reading import check_file
from lever_plus.pipeline.paths import Paths
from lever_plus.report.tables import Summary

COLUMNS: Final = {
    **{"method": "OTU", "seed": "iu", "query_id": "iu", "image_id": "iu", "shot": "iu"},
    "vqa_acc_score": "f",
}
"""Columns of a score table that are read here, with the NumPy kinds that each may have."""


class Made(NamedTuple):
    """How a variant's methods were made.

    Attributes:
        requests: {method: VLM requests that training it took, together with everything that it
            starts from}, mean over seeds.
        spread: Mean standard deviation of rewards inside groups; None if it is not known.
    """

    requests: Mapping[str, float]
    spread: float | None


class Tables:
    """The score tables of the variants, and of the pipeline."""

    def __init__(
        self,
        scores: Mapping[str, pd.DataFrame],
        made: Mapping[str, Made],
        untrained: Collection[str],
    ) -> None:
        """Keep scores and facts by variant, and the names of the untrained methods."""
        self._scores, self.made, self._untrained = scores, made, untrained

    def __contains__(self, key: str) -> bool:
        """Whether <variant>/<method> is evaluated."""
        name, _, method = key.partition("/")
        return name in self._scores and method in set(self._scores[name]["method"])

    def of(self, key: str) -> tuple[Table, Clusters]:
        """Return the scores of <variant>/<method>, and the image of every question.

        Raises:
            UserError: It is not evaluated.
        """
        if key not in self:
            raise UserError(
                f"{VARIANTS} compares with {key}, but that is not evaluated: run it, or correct "
                "`versus`."
            )
        name, _, method = key.partition("/")
        scores = self._scores[name]
        table = Table(scores[scores["method"] == method], trained=method not in self._untrained)
        return table, np.asarray(images_of(scores).loc[table.questions], dtype=np.int64)


def read_tables(paths: Paths, variants: Variants) -> Tables:
    """Read the results of the pipeline and of all variants and transfers.

    Raises:
        UserError: A file is missing, damaged or not complete.
    """
    summary = read_summary(paths.summary)
    untrained = {m.name for m in methods_in(summary) if m.kind != "trained"}
    made = {name: _made(paths, name, variant) for name, variant in variants.variants.items()}
    used = {name: _made_elsewhere(t, made[t.policies]) for name, t in variants.transfers.items()}
    return Tables(
        {name: _scores(paths, name) for name in (DEFAULT, *variants.whole)},
        {DEFAULT: _made_by_default(summary), **made, **used},
        untrained,
    )


def _scores(paths: Paths, name: str) -> pd.DataFrame:
    """Read a score table; raise UserError if it is missing, damaged or not complete."""
    path = paths.scores if name == DEFAULT else paths.variant(name) / SCORES
    advice = "run `make ablations` again" if name != DEFAULT else "run `dvc repro evaluate`"
    check_file(path, advice)
    try:
        table = pd.read_parquet(path, columns=list(COLUMNS))
    # pyarrow raises many kinds of errors for damaged files.
    except Exception as error:
        said = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is damaged ({said}): {advice}.") from error
    for column, kinds in COLUMNS.items():
        if table[column].dtype.kind not in kinds or table[column].isna().any():
            raise UserError(f"{path}: column {column} is damaged: {advice}.")
    if not len(table) or not table["vqa_acc_score"].between(0, 1).all():
        raise UserError(f"{path} has no scores, or scores outside 0..1: {advice}.")
    try:
        check_complete(table)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return table


def _made_by_default(summary: Summary) -> Made:
    """Return how the pipeline's methods were made, from its summary."""
    rows = [*summary["rows"], *summary["means"]]
    return Made({r["method"]: r["vlm_requests"] for r in rows if "vlm_requests" in r}, None)


def _made(paths: Paths, name: str, variant: Variant) -> Made:
    """Return how a variant's methods were made; raise UserError if its facts lack a method."""
    path, advice = paths.variant(name) / FACTS, "run `make ablations` again"
    seeds = list((read_json_as(_Facts, path, advice).model_extra or {}).values())
    requests = dict.fromkeys(variant.baselines, 0.0)
    for method in variant.trained:
        if not seeds or any(method not in seed.vlm_requests for seed in seeds):
            raise UserError(f"{path} does not say how many requests {method} took: {advice}.")
        requests[method] = rounded(fmean(seed.vlm_requests[method] for seed in seeds))
    spreads = [seed.reward_std for seed in seeds if seed.reward_std is not None]
    return Made(requests, fmean(spreads) if spreads else None)


def _made_elsewhere(transfer: Transfer, source: Made) -> Made:
    """Return how a transfer's methods were made; its policies come from a variant."""
    requests = {method: source.requests[method] for method in transfer.trained}
    return Made({**dict.fromkeys(transfer.baselines, 0.0), **requests}, None)


class _Seed(BaseModel):
    """The facts about one seed of a variant that are read here; others are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    vlm_requests: dict[str, Whole]
    reward_std: NonNegative | None = None


class _Facts(BaseModel):
    """A variant's facts: the stages that it ran, and a section for each seed."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, _Seed]

    stages: tuple[str, ...]
