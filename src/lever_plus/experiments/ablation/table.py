"""What the variants gave: accuracies, paired differences, spread of rewards inside groups.

Computed from the score tables alone. The pipeline's own rows stand in as variant `default`.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import typer
from pydantic import BaseModel, ConfigDict

from lever_plus.config.base import NonNegative
from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Clusters, bootstrap, paired
from lever_plus.evaluation.summary import check_complete, images_of, per_question
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
from lever_plus.report.tables import markdown, percent, points

Row = dict[str, Any]
COLUMNS: Final = {
    **{"method": "OTU", "seed": "iu", "query_id": "iu", "image_id": "iu", "shot": "iu"},
    "vqa_acc_score": "f",
}
"""Columns of a score table that are read here, and the kinds of numbers or texts in them."""


def run(paths: Paths, resamples: int) -> Outcome:
    """Write metrics/ablations.json and print the tables."""
    variants = read_variants(paths.root).variants
    tables = {name: _scores(paths, name) for name in (DEFAULT, *variants)}
    rows = [
        _row(paths, name, method, variant, tables, resamples)
        for name, variant in variants.items()
        for method in variant.methods
    ]
    asked = dict.fromkeys(variant.asks for variant in variants.values())
    shown = {(row["variant"], row["method"]) for row in rows}
    compared = dict.fromkeys(row["versus"] for row in rows)
    rows += [
        _row(paths, name, method, None, tables, resamples)
        for name, _, method in (key.partition("/") for key in compared)
        if (name, method) not in shown
    ]
    write_metrics(paths.ablations, {"rows": rows})
    for question in asked:
        typer.echo(f"\n{question}\n\n{as_markdown(rows, variants, question)}")
    return Outcome(f"{len(rows)} rows in {paths.ablations}")


def as_markdown(rows: list[Row], variants: Mapping[str, Variant], question: str) -> str:
    """Return the table of one question: its variants, and what they are compared with."""
    names = [name for name, variant in variants.items() if variant.asks == question]
    shown = [row for row in rows if row["variant"] in names]
    versus = {row["versus"] for row in shown}
    shown += [row for row in rows if f"{row['variant']}/{row['method']}" in versus]
    distinct = list({(row["variant"], row["method"]): row for row in shown}.values())
    shots = [str(shot) for shot in distinct[0]["shots"]]
    header = ["variant", "method", *shots, "mean [95 %]", "seeds", "difference [95 %]", "to"]
    return markdown([*header, "reward std in groups"], [_cells(row) for row in distinct])


def _cells(row: Row) -> list[str]:
    seeds = [100 * value for value in row["seed_accuracies"]]
    return [
        row["variant"],
        row["method"],
        *(f"{100 * value:.1f}" for value in row["shots"].values()),
        percent(row),
        f"{len(seeds)} ({min(seeds):.1f}-{max(seeds):.1f})",
        points(row["difference"]) if row["difference"] else "",
        row["versus"],
        "" if row["reward_std"] is None else f"{row['reward_std']:.3f}",
    ]


def _row(
    paths: Paths,
    name: str,
    method: str,
    variant: Variant | None,
    tables: Mapping[str, pd.DataFrame],
    resamples: int,
) -> Row:
    part = _of(tables, f"{name}/{method}")
    table = per_question(part)
    if table.isna().any(axis=None):
        raise UserError(f"{name}/{method}: a shot lacks questions: run `make ablations` again.")
    means = table.mean(axis=1).to_numpy()
    images = np.asarray(images_of(part).loc[table.index], dtype=np.int64)
    estimate = bootstrap(means, resamples, images)
    by_seed = part.groupby("seed")["vqa_acc_score"].mean()
    versus = variant.compared(method) if variant else ""
    other = per_question(_of(tables, versus)) if versus else None
    if other is not None:
        _check_pairs(table, other, f"{name}/{method}", versus)
    return {
        "variant": name,
        "method": method,
        "shots": {str(shot): round(float(table[shot].mean()), 6) for shot in table},
        "accuracy": round(estimate.mean, 6),
        "ci95": [round(estimate.low, 6), round(estimate.high, 6)],
        "n": len(means),
        "seed_accuracies": [round(float(value), 6) for value in by_seed],
        "versus": versus,
        "difference": None if other is None else _difference(table, other, images, resamples),
        "reward_std": _spread(paths, name),
    }


def _difference(table: pd.DataFrame, other: pd.DataFrame, images: Clusters, resamples: int) -> Row:
    mine, theirs = (t.mean(axis=1) for t in (table, other.loc[table.index]))
    found = paired(mine.to_numpy(), theirs.to_numpy(), resamples, images)
    return {
        "difference": round(found.mean, 6),
        "ci95": [round(found.low, 6), round(found.high, 6)],
        "separable": found.low > 0 or found.high < 0,
    }


def _check_pairs(table: pd.DataFrame, other: pd.DataFrame, key: str, versus: str) -> None:
    """Refuse to compare what was asked other questions, or with other demonstrations."""
    if set(table.index) != set(other.index):
        raise UserError(
            f"{key} was evaluated on {len(table)} questions and {versus} on {len(other)}, not the "
            "same ones: run `make ablations` again."
        )
    if list(table) != list(other) and list(other) != [0]:
        raise UserError(
            f"{key} was evaluated at shots {list(table)} and {versus} at {list(other)}: a variant "
            "that changes pointer.shots can be compared with one that does too (versus)."
        )


def _of(tables: Mapping[str, pd.DataFrame], key: str) -> pd.DataFrame:
    name, _, method = key.partition("/")
    if name not in tables or method not in set(tables[name]["method"]):
        raise UserError(f"ablations/variants.yaml compares with {key}, which is not evaluated.")
    table = tables[name]
    return table[table["method"] == method]


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


def _spread(paths: Paths, name: str) -> float | None:
    """Return the mean standard deviation of rewards inside groups; None if it is the default's."""
    if name == DEFAULT:
        return None
    facts = read_json_as(_Facts, paths.variant(name) / FACTS, "run `make ablations` again")
    seeds = (facts.model_extra or {}).values()
    spreads = [seed.reward_std for seed in seeds if seed.reward_std is not None]
    return float(np.mean(spreads)) if spreads else None


class _Seed(BaseModel):
    """What is known of one seed of a variant; other facts are not shown."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    reward_std: NonNegative | None = None


class _Facts(BaseModel):
    """A variant's facts: its stages, and a section a seed."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, _Seed]

    stages: tuple[str, ...]
