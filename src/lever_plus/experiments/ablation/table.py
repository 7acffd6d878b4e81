"""What the variants gave: accuracies, paired differences, spread of rewards inside groups.

Computed from the score tables alone. The pipeline's own rows stand in as variant `default`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import typer
from pydantic import BaseModel, ConfigDict

from lever_plus.config.base import NonNegative
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
    Variants,
    read_variants,
)
from lever_plus.files.json_files import read_json_as
from lever_plus.files.reading import check_file
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.report.tables import markdown, notes, percent, points

Row = dict[str, Any]
COLUMNS: Final = {
    **{"method": "OTU", "seed": "iu", "query_id": "iu", "image_id": "iu", "shot": "iu"},
    "vqa_acc_score": "f",
}
"""Columns of a score table that are read here, and the kinds of numbers or texts in them."""
DIFFERENCES: Final = ("difference", "to_trained_there")
"""Differences of a row: to what its variant is compared with, and to the same method trained where
a transfer uses it."""


class Tables:
    """The score tables of the variants, and of the pipeline."""

    def __init__(self, scores: Mapping[str, pd.DataFrame], untrained: Collection[str]) -> None:
        """Keep the tables by variant, and the names of the methods that nothing trains."""
        self._scores, self._untrained = scores, untrained

    def of(self, key: str) -> tuple[Table, Clusters]:
        """Return what <variant>/<method> scored, and the image of every question."""
        name, _, method = key.partition("/")
        if name not in self._scores or method not in set(self._scores[name]["method"]):
            raise UserError(f"ablations/variants.yaml compares with {key}, which is not evaluated.")
        scores = self._scores[name]
        table = Table(scores[scores["method"] == method], trained=method not in self._untrained)
        return table, np.asarray(images_of(scores).loc[table.questions], dtype=np.int64)


def run(paths: Paths, resamples: int) -> Outcome:
    """Write metrics/ablations.json and print the tables."""
    variants = read_variants(paths.root)
    untrained = {m.name for m in methods_in(read_summary(paths.summary)) if m.kind != "trained"}
    tables = Tables({name: _scores(paths, name) for name in (DEFAULT, *variants.whole)}, untrained)
    asked = dict.fromkeys(variant.asks for variant in variants.whole.values())
    rows = [
        row for question in asked for row in _answers(paths, variants, question, tables, resamples)
    ]
    shown = {(row["variant"], row["method"]) for row in rows}
    compared = dict.fromkeys(row["versus"] for row in rows if row["versus"])
    rows += [
        _row(paths, name, method, None, tables, resamples)
        for name, _, method in (key.partition("/") for key in compared)
        if (name, method) not in shown
    ]
    write_metrics(paths.ablations, {"rows": rows})
    for question in asked:
        typer.echo(f"\n{question}\n\n{as_markdown(rows, variants, question)}")
    return Outcome(f"{len(rows)} rows in {paths.ablations}")


def _answers(
    paths: Paths, variants: Variants, question: str, tables: Tables, resamples: int
) -> list[Row]:
    """Return the rows of the variants that ask a question; they are one table, and one family."""
    asking = {n: variant for n, variant in variants.whole.items() if variant.asks == question}
    rows = [
        _row(paths, name, method, variants, tables, resamples)
        for name, variant in asking.items()
        for method in variant.methods
    ]
    compared = [(row, key) for row in rows for key in DIFFERENCES if row[key]]
    found = corrected([row[key] for row, key in compared])
    for (row, key), each in zip(compared, found, strict=True):
        row[key] = each
    return rows


def as_markdown(rows: list[Row], variants: Variants, question: str) -> str:
    """Return the table of one question: its variants, and what they are compared with."""
    names = [name for name, variant in variants.whole.items() if variant.asks == question]
    shown = [row for row in rows if row["variant"] in names]
    versus = {row["versus"] for row in shown}
    shown += [row for row in rows if f"{row['variant']}/{row['method']}" in versus]
    distinct = list({(row["variant"], row["method"]): row for row in shown}.values())
    shots = sorted({shot for row in distinct for shot in row["shots"]}, key=int)
    header = ["variant", "method", *shots, "mean [95 %]", "seeds", "difference [95 %]", "to"]
    lines = [_cells(row, shots) for row in distinct]
    if any(row["to_trained_there"] for row in distinct):
        header.append("to one trained there [95 %]")
        for row, line in zip(distinct, lines, strict=True):
            line.insert(-1, points(row["to_trained_there"]) if row["to_trained_there"] else "")
    told = notes([*distinct, *(row[k] for row in distinct for k in DIFFERENCES if row[k])])
    return "\n".join([markdown([*header, "reward std in groups"], lines), *told])


def _cells(row: Row, shots: Sequence[str]) -> list[str]:
    seeds = [100 * value for value in row["seed_accuracies"]]
    return [
        row["variant"],
        row["method"],
        *(f"{100 * row['shots'][shot]:.1f}" if shot in row["shots"] else "" for shot in shots),
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
    variants: Variants | None,
    tables: Tables,
    resamples: int,
) -> Row:
    key = f"{name}/{method}"
    table, images = tables.of(key)
    found = accuracy(table.at("mean"), images, resamples)
    versus = variants.compared(name, method) if variants else ""
    there = variants.trained_there(name, method) if variants else ""
    return {
        "variant": name,
        "method": method,
        "shots": {str(shot): rounded(scored.scores.mean()) for shot, scored in table.each()},
        **found,
        "versus": versus,
        "difference": _difference(tables, key, versus, resamples) if versus else None,
        "policies": variants.policies_of(name, method) if variants else "",
        "used": variants.place(name) if variants else "",
        "to_trained_there": _difference(tables, key, there, resamples) if there else None,
        "reward_std": _spread(paths, name),
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
    if table.shots != other.shots and not (table.zero_shot or other.zero_shot):
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
