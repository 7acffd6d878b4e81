"""What the variants gave: accuracies, paired differences, requests, spread of rewards in groups.

Computed from the score tables and what the variants' trainings said. The pipeline's own rows stand
in as variant `default`.
"""

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import typer
from pydantic import BaseModel, ConfigDict

from lever_plus.config.base import NonNegative, Whole
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import methods_in
from lever_plus.evaluation.scored import Table, accuracy, corrected, difference, rounded
from lever_plus.evaluation.statistics import Clusters
from lever_plus.evaluation.stored import read_summary
from lever_plus.evaluation.summary import check_complete, images_of
from lever_plus.experiments.ablation.variants import (
    DEFAULT,
    FACTS,
    SCORES,
    Variant,
    read_variants,
)
from lever_plus.files.json_files import read_json_as
from lever_plus.files.reading import check_file
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.report.curves import requests_frame
from lever_plus.report.plots import write_csv
from lever_plus.report.tables import Summary, known, markdown, notes, percent, points

Row = dict[str, Any]
COLUMNS: Final = {
    **{"method": "OTU", "seed": "iu", "query_id": "iu", "image_id": "iu", "shot": "iu"},
    "vqa_acc_score": "f",
}
"""Columns of a score table that are read here, and the kinds of numbers or texts in them."""


class Made(NamedTuple):
    """How a variant's methods were made.

    requests: {method: VLM requests to train all that it is made from, mean over seeds}.
    spread: Mean standard deviation of rewards inside groups; None where it is not known.
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
        """Keep both by variant, and the names of the methods that nothing trains."""
        self._scores, self.made, self._untrained = scores, made, untrained

    def __contains__(self, key: str) -> bool:
        """Whether <variant>/<method> is evaluated."""
        name, _, method = key.partition("/")
        return name in self._scores and method in set(self._scores[name]["method"])

    def of(self, key: str) -> tuple[Table, Clusters]:
        """Return what <variant>/<method> scored, and the image of every question."""
        if key not in self:
            raise UserError(f"ablations/variants.yaml compares with {key}, which is not evaluated.")
        name, _, method = key.partition("/")
        scores = self._scores[name]
        table = Table(scores[scores["method"] == method], trained=method not in self._untrained)
        return table, np.asarray(images_of(scores).loc[table.questions], dtype=np.int64)


def run(paths: Paths, resamples: int) -> Outcome:
    """Write metrics/ablations.json and the curve over requests, and print the tables."""
    found, summary = read_variants(paths.root), read_summary(paths.summary)
    variants, curve = found.variants, found.curve
    untrained = {m.name for m in methods_in(summary) if m.kind != "trained"}
    tables = Tables(
        {name: _scores(paths, name) for name in (DEFAULT, *variants)},
        {DEFAULT: _made_by_default(summary)}
        | {name: _made(paths, name, variant) for name, variant in variants.items()},
        untrained,
    )
    asked = dict.fromkeys(variant.asks for variant in variants.values())
    rows = [row for question in asked for row in _answers(variants, question, tables, resamples)]
    shown = {(row["variant"], row["method"]) for row in rows}
    drawn = [
        key
        for key in dict.fromkeys(f"{DEFAULT}/{r['method']}" for r in rows if r["asks"] == curve)
        if key in tables
    ]
    compared = dict.fromkeys([*drawn, *(row["versus"] for row in rows)])
    rows += [
        {**_row(name, method, None, tables, resamples), "asks": curve if key in drawn else ""}
        for key in compared
        for name, _, method in [key.partition("/")]
        if (name, method) not in shown
    ]
    ablations = {"curve": curve, "rows": rows}
    write_metrics(paths.ablations, ablations)
    write_csv(paths.plots / "accuracy_over_requests.csv", requests_frame(ablations))
    for question in asked:
        typer.echo(f"\n{question}\n\n{as_markdown(rows, question)}")
    return Outcome(f"{len(rows)} rows in {paths.ablations}")


def _answers(
    variants: Mapping[str, Variant], question: str, tables: Tables, resamples: int
) -> list[Row]:
    """Return the rows of the variants that ask a question; they are one table, and one family."""
    rows = [
        _row(name, method, variant, tables, resamples)
        for name, variant in variants.items()
        for method in variant.methods
        if variant.asks == question
    ]
    found = corrected([row["difference"] for row in rows])
    return [{**row, "difference": each} for row, each in zip(rows, found, strict=True)]


def as_markdown(rows: list[Row], question: str) -> str:
    """Return the table of one question: what answers it, and what that is compared with."""
    shown = [row for row in rows if row["asks"] == question]
    versus = {row["versus"] for row in shown}
    shown += [row for row in rows if f"{row['variant']}/{row['method']}" in versus]
    distinct = list({(row["variant"], row["method"]): row for row in shown}.values())
    shots = [str(shot) for shot in distinct[0]["shots"]]
    header = ["variant", "method", *shots, "mean [95 %]", "seeds", "requests"]
    header += ["difference [95 %]", "to", "reward std in groups"]
    told = notes([*distinct, *(row["difference"] for row in distinct if row["difference"])])
    return "\n".join([markdown(header, [_cells(row, shots) for row in distinct]), *told])


def _cells(row: Row, shots: list[str]) -> list[str]:
    seeds = [100 * value for value in row["seed_accuracies"]]
    return [
        row["variant"],
        row["method"],
        *(f"{100 * row['shots'][shot]:.1f}" if shot in row["shots"] else "" for shot in shots),
        percent(row),
        f"{len(seeds)} ({min(seeds):.1f}-{max(seeds):.1f})",
        known(row["vlm_requests"], ",.0f"),
        points(row["difference"]) if row["difference"] else "",
        row["versus"],
        known(row["reward_std"], ".3f"),
    ]


def _row(name: str, method: str, variant: Variant | None, tables: Tables, resamples: int) -> Row:
    table, images = tables.of(f"{name}/{method}")
    found = accuracy(table.at("mean"), images, resamples)
    versus = variant.compared(method) if variant else ""
    return {
        "asks": variant.asks if variant else "",
        "variant": name,
        "method": method,
        "shots": {str(shot): rounded(scored.scores.mean()) for shot, scored in table.each()},
        **found,
        "vlm_requests": tables.made[name].requests.get(method),
        "versus": versus,
        "difference": _difference(tables, f"{name}/{method}", versus, resamples)
        if versus
        else None,
        "reward_std": tables.made[name].spread,
    }


def _difference(tables: Tables, key: str, versus: str, resamples: int) -> Row:
    (table, images), (other, _) = tables.of(key), tables.of(versus)
    _check_pairs(table, other, key, versus)
    theirs = other.at("mean").of(other.places(table.questions))
    return difference(table.at("mean"), theirs, images, resamples)


def _check_pairs(table: Table, other: Table, key: str, versus: str) -> None:
    """Refuse to compare what was asked other questions, or with other demonstrations."""
    if set(table.questions) != set(other.questions):
        raise UserError(
            f"{key} was evaluated on {len(table.questions)} questions and {versus} on "
            f"{len(other.questions)}, not the same ones: run `make ablations` again."
        )
    if table.shots != other.shots and not other.zero_shot:
        raise UserError(
            f"{key} was evaluated at shots {table.shots} and {versus} at {other.shots}: a variant "
            "that changes pointer.shots can be compared with one that does too (versus)."
        )


def _scores(paths: Paths, name: str) -> pd.DataFrame:
    """Read a score table; UserError says what is wrong with it."""
    path = paths.scores if name == DEFAULT else paths.variant(name) / SCORES
    advice = "run `make ablations` again" if name != DEFAULT else "run `dvc repro evaluate`"
    check_file(path, advice)
    try:
        table = pd.read_parquet(path, columns=list(COLUMNS))
    # pyarrow has errors of many kinds for damaged files.
    except Exception as error:
        said = str(error).partition("\n")[0][:200]
        raise UserError(f"{path} is damaged ({said}): {advice}.") from error
    for column, kinds in COLUMNS.items():
        if table[column].dtype.kind not in kinds or table[column].isna().any():
            raise UserError(f"{path}: column {column} is damaged: {advice}.")
    if not len(table) or not table["vqa_acc_score"].between(0, 1).all():
        raise UserError(f"{path} has no scores, or some outside 0..1: {advice}.")
    try:
        check_complete(table)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return table


def _made_by_default(summary: Summary) -> Made:
    """Return what the summary says about the pipeline's methods."""
    rows = [*summary["rows"], *summary["means"]]
    return Made({r["method"]: r["vlm_requests"] for r in rows if "vlm_requests" in r}, None)


def _made(paths: Paths, name: str, variant: Variant) -> Made:
    """Return what a variant's facts say; UserError if they lack a method."""
    path, advice = paths.variant(name) / FACTS, "run `make ablations` again"
    seeds = list((read_json_as(_Facts, path, advice).model_extra or {}).values())
    for method in variant.methods:
        if not seeds or any(method not in seed.vlm_requests for seed in seeds):
            raise UserError(f"{path} does not say how many requests {method} took: {advice}.")
    requests = {
        method: rounded(fmean(seed.vlm_requests[method] for seed in seeds))
        for method in variant.methods
    }
    spreads = [seed.reward_std for seed in seeds if seed.reward_std is not None]
    return Made(requests, fmean(spreads) if spreads else None)


class _Seed(BaseModel):
    """What is known of one seed of a variant; other facts are not shown."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    vlm_requests: dict[str, Whole]
    reward_std: NonNegative | None = None


class _Facts(BaseModel):
    """A variant's facts: its stages, and a section a seed."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, _Seed]

    stages: tuple[str, ...]
