"""What the variants gave: accuracies, paired differences, spread of rewards inside groups.

Computed from the score tables alone. The pipeline's own rows stand in as variant `default`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import typer

from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Clusters, bootstrap, paired
from lever_plus.evaluation.summary import images_of, per_question
from lever_plus.experiments.ablation.variants import Variant, read_variants
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.report.tables import markdown, percent, points

DEFAULT = "default"
Row = dict[str, Any]


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
    means = table.mean(axis=1).to_numpy()
    images = np.asarray(images_of(part).loc[table.index], dtype=np.int64)
    estimate = bootstrap(means, resamples, images)
    by_seed = part.groupby("seed")["vqa_acc_score"].mean()
    versus = variant.compared(method) if variant else ""
    return {
        "variant": name,
        "method": method,
        "shots": {str(shot): round(float(table[shot].mean()), 6) for shot in table},
        "accuracy": round(estimate.mean, 6),
        "ci95": [round(estimate.low, 6), round(estimate.high, 6)],
        "n": len(means),
        "seed_accuracies": [round(float(value), 6) for value in by_seed],
        "versus": versus,
        "difference": _difference(table, per_question(_of(tables, versus)), images, resamples)
        if versus
        else None,
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


def _of(tables: Mapping[str, pd.DataFrame], key: str) -> pd.DataFrame:
    name, method = key.split("/")
    if name not in tables or method not in set(tables[name]["method"]):
        raise UserError(f"ablations/variants.yaml compares with {key}, which is not evaluated.")
    table = tables[name]
    return table[table["method"] == method]


def _scores(paths: Paths, name: str) -> pd.DataFrame:
    path = paths.scores if name == DEFAULT else paths.variant(name) / "scores.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing: run `make ablations`.")
    return pd.read_parquet(path)


def _spread(paths: Paths, name: str) -> float | None:
    """Return the mean standard deviation of rewards inside groups; None if it is the default's."""
    if name == DEFAULT:
        return None
    facts = json.loads((paths.variant(name) / "facts.json").read_text(encoding="utf-8"))
    spreads = list(_values(facts, "reward_std"))
    return float(np.mean(spreads)) if spreads else None


def _values(facts: Mapping[str, Any], key: str) -> Iterator[float]:
    for part in facts.values():
        if isinstance(part, dict) and key in part:
            yield float(part[key])
