"""The tables of the ablations: accuracies, paired differences, requests, spread of rewards.

They are computed from the variants' score tables and facts. The pipeline's own rows have the
variant name `default`.
"""

from collections.abc import Sequence
from typing import Any, Final

import typer

from lever_plus.errors import UserError
from lever_plus.evaluation.scored import Table, accuracy, corrected, difference, rounded
from lever_plus.experiments.ablation.stored import Tables, read_tables
from lever_plus.experiments.ablation.variants import DEFAULT, Variants, read_variants
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.report.curves import requests_frame
from lever_plus.report.plots import write_csv
from lever_plus.report.tables import known, markdown, notes, percent, points

Row = dict[str, Any]
DIFFERENCES: Final = ("difference", "to_trained_there")
"""Differences of a row: from what its variant is compared with, and, for a transfer, from the same
method trained at the place where the transfer uses it."""


def run(paths: Paths, resamples: int) -> Outcome:
    """Write metrics/ablations.json and the data of the curve over requests; print the tables.

    Args:
        paths: Paths of the project.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: A result is missing, damaged, or can't be compared.
    """
    variants = read_variants(paths.root)
    tables, curve = read_tables(paths, variants), variants.curve
    asked = dict.fromkeys(variant.asks for variant in variants.whole.values())
    rows = [row for question in asked for row in _answers(variants, question, tables, resamples)]
    shown = {(row["variant"], row["method"]) for row in rows}
    drawn = [
        key
        for key in dict.fromkeys(f"{DEFAULT}/{r['method']}" for r in rows if r["asks"] == curve)
        if key in tables
    ]
    compared = dict.fromkeys([*drawn, *(row["versus"] for row in rows if row["versus"])])
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


def _answers(variants: Variants, question: str, tables: Tables, resamples: int) -> list[Row]:
    """Return the rows of the variants that ask a question.

    They form one table, and one family of comparisons for the correction.
    """
    asking = {n: variant for n, variant in variants.whole.items() if variant.asks == question}
    rows = [
        _row(name, method, variants, tables, resamples)
        for name, variant in asking.items()
        for method in variant.methods
    ]
    compared = [(row, key) for row in rows for key in DIFFERENCES if row[key]]
    found = corrected([row[key] for row, key in compared])
    for (row, key), each in zip(compared, found, strict=True):
        row[key] = each
    return rows


def as_markdown(rows: list[Row], question: str) -> str:
    """Return the table of one question in Markdown: its rows, and those they are compared with."""
    shown = [row for row in rows if row["asks"] == question]
    versus = {row["versus"] for row in shown}
    shown += [row for row in rows if f"{row['variant']}/{row['method']}" in versus]
    distinct = list({(row["variant"], row["method"]): row for row in shown}.values())
    shots = sorted({shot for row in distinct for shot in row["shots"]}, key=int)
    header = ["variant", "method", *shots, "mean [95 %]", "seeds", "requests"]
    header += ["difference [95 %]", "compared with"]
    lines = [_cells(row, shots) for row in distinct]
    if any(row["to_trained_there"] for row in distinct):
        header.append("minus one trained there [95 %]")
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
        known(row["vlm_requests"], ",.0f"),
        points(row["difference"]) if row["difference"] else "",
        row["versus"],
        known(row["reward_std"], ".3f"),
    ]


def _row(name: str, method: str, variants: Variants | None, tables: Tables, resamples: int) -> Row:
    key = f"{name}/{method}"
    table, images = tables.of(key)
    found = accuracy(table.at("mean"), images, resamples)
    versus = variants.compared(name, method) if variants else ""
    there = variants.trained_there(name, method) if variants else ""
    return {
        "asks": variants.whole[name].asks if variants else "",
        "variant": name,
        "method": method,
        "shots": {str(shot): rounded(scored.scores.mean()) for shot, scored in table.each()},
        **found,
        "vlm_requests": tables.made[name].requests.get(method),
        "versus": versus,
        "difference": _difference(tables, key, versus, resamples) if versus else None,
        "policies": variants.policies_of(name, method) if variants else "",
        "used": variants.place(name) if variants else "",
        "to_trained_there": _difference(tables, key, there, resamples) if there else None,
        "reward_std": tables.made[name].spread,
    }


def _difference(tables: Tables, key: str, versus: str, resamples: int) -> Row:
    (table, images), (other, _) = tables.of(key), tables.of(versus)
    _check_pairs(table, other, key, versus)
    theirs = other.at("mean").of(other.places(table.questions))
    return difference(table.at("mean"), theirs, images, resamples)


def _check_pairs(table: Table, other: Table, key: str, versus: str) -> None:
    """Refuse to compare methods on different questions or at different shots."""
    if set(table.questions) != set(other.questions):
        raise UserError(
            f"{key} was evaluated on {len(table.questions)} questions, and {versus} on "
            f"{len(other.questions)} that are not the same: run `make ablations` again."
        )
    if table.shots != other.shots and not (table.zero_shot or other.zero_shot):
        raise UserError(
            f"{key} was evaluated at shots {table.shots}, but {versus} at {other.shots}: let "
            "`versus` name a variant with the same pointer.shots."
        )
