"""metrics/summary.json: accuracies and paired differences, computed from the score table alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from lever_plus.errors import UserError
from lever_plus.evaluation.methods import Methods
from lever_plus.evaluation.statistics import (
    Clusters,
    Estimate,
    Scores,
    bootstrap,
    holm,
    over_seeds,
    paired,
    tally,
)

Row = dict[str, object]


def summarise(
    scores: pd.DataFrame,
    registry: Methods,
    resamples: int,
    versus: Sequence[str] | None = None,
) -> dict[str, list[Row]]:
    """Return the summary.

    Args:
        scores: The table of `evaluate`, one row a method, seed, question and shot.
        registry: What the methods are.
        resamples: Bootstrap resamples.
        versus: What all methods are compared with; None: SFT, and the first method on the RL data.

    Returns:
        methods: name, stage, kind and label of each; rows: accuracy of every method at every shot;
        means: over shots 1..K; differences: of every method to those of
        `versus`, paired by question, at every shot and over all ("mean"), with wins, losses and
        ties, and p-values corrected for the number of methods (Holm); gains: what each
        further demonstration adds to a method, paired by question with one fewer (zero-shot for the
        first).

    Raises:
        UserError: The table is not complete, has a method that the registry does not know, or
            methods that answered different questions.
    """
    check_complete(scores)
    methods = list(dict.fromkeys(scores["method"]))
    known = registry.part(methods)
    parts = {method: scores[scores["method"] == method] for method in methods}
    table = {method: per_question(part) for method, part in parts.items()}
    _check_comparable(table, known)
    images = images_of(scores)
    means = [
        {
            "method": method,
            **_accuracy(parts[method], None, table[method].mean(axis=1), images, resamples),
        }
        for method in methods
        if list(table[method]) != [0]
    ]
    differences = list(_differences(table, versus or registry.references, images, resamples))
    described: list[Row] = [asdict(method) for method in known]
    rows = shot_rows(scores, resamples)
    return {
        "methods": described,
        "rows": rows,
        "means": means,
        "differences": differences,
        "gains": list(_gains(table, images, resamples)),
    }


def shot_rows(scores: pd.DataFrame, resamples: int) -> list[Row]:
    """Return the mean score of every method at every shot, with its intervals.

    Args:
        scores: A complete table with the columns of `evaluate`'s; what is averaged is in
            `vqa_acc_score`.
        resamples: Bootstrap resamples.
    """
    images = images_of(scores)
    return [
        {"method": method, "shots": shot, **_accuracy(part, shot, values, images, resamples)}
        for method, part in scores.groupby("method", sort=False)
        for shot, values in _columns(per_question(part))
    ]


def accuracies(summary: Mapping[str, list[Row]]) -> dict[str, dict[str, object]]:
    """Return {method: {"shots_1": accuracy, ..., "mean": over shots 1..K}}; zero-shot: shots_0.

    Without lists, so that `dvc metrics show` and `dvc exp diff` can name every number.
    """
    found: dict[str, dict[str, object]] = {}
    for row in summary["rows"]:
        found.setdefault(str(row["method"]), {})[f"shots_{row['shots']}"] = row["accuracy"]
    for row in summary["means"]:
        found[str(row["method"])]["mean"] = row["accuracy"]
    return found


def images_of(scores: pd.DataFrame) -> "pd.Series[int]":
    """Return the image of every question, by query id: what the bootstrap resamples."""
    return scores.drop_duplicates("query_id").set_index("query_id")["image_id"]


def _columns(table: pd.DataFrame) -> "Iterator[tuple[int, pd.Series[float]]]":
    for shot in table.columns:
        yield int(shot), table[shot]


def per_question(scores: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies [question, shot], averaged over seeds."""
    return scores.pivot_table(index="query_id", columns="shot", values="vqa_acc_score")


def check_complete(scores: pd.DataFrame) -> None:
    """Refuse a table in which a method has not every question once for each of its seeds and shots.

    Raises:
        UserError: Names a method, shot and question.
    """
    for method, part in scores.groupby("method"):
        shots, seeds = part["shot"].unique(), part["seed"].unique()
        cells = pd.MultiIndex.from_product([shots, seeds], names=["shot", "seed"])
        counts = part.groupby(["query_id", "shot", "seed"]).size().unstack(["shot", "seed"])
        wrong = (counts.reindex(columns=cells) != 1).stack(["shot", "seed"], future_stack=True)
        for question, shot, seed in wrong.index[wrong.to_numpy()][:1]:
            raise UserError(
                f"method {method}, shot {shot}, seed {seed}: question {question} is missing or "
                "stands twice. Run `dvc repro evaluate` again."
            )


def _check_comparable(tables: Mapping[str, pd.DataFrame], known: Methods) -> None:
    """Refuse methods that answered other questions or shots; a ceiling may have some of them."""
    whole = [method for method in tables if known[method].kind != "ceiling"] or [*tables]
    first = tables[whole[0]].index
    shots = next((list(table) for table in tables.values() if list(table) != [0]), [0])
    for method, table in tables.items():
        other = table.index.difference(first)
        if method in whole:
            other = other.union(first.difference(table.index))
        if len(other):
            raise UserError(
                f"method {method} and method {whole[0]} did not answer the same questions (such as "
                f"{other[0]}). Run `dvc repro evaluate` again."
            )
        if list(table) not in ([0], shots):
            raise UserError(
                f"method {method} was evaluated at shots {list(table)}, others at {shots}. Run "
                "`dvc repro evaluate` again."
            )


def _accuracy(
    part: pd.DataFrame,
    shot: int | None,
    values: "pd.Series[float]",
    images: "pd.Series[int]",
    resamples: int,
) -> Row:
    part = part if shot is None else part[part["shot"] == shot]
    by_seed = part.groupby("seed")["vqa_acc_score"].mean()
    return {
        "accuracy": _round(values.mean()),
        **_interval(bootstrap(_array(values), resamples, _clusters(images, values))),
        "n": len(values),
        "seeds": len(by_seed),
        "seeds_ci95": _rounded(over_seeds(list(by_seed))),
        "seed_accuracies": [_round(value) for value in by_seed],
    }


def _differences(
    table: dict[str, pd.DataFrame],
    references: Sequence[str],
    images: "pd.Series[int]",
    resamples: int,
) -> Iterator[Row]:
    for reference in references:
        compared = [m for m, v in table.items() if m != reference and list(v) != [0]]
        if reference not in table or not compared:
            continue
        shots = [*table[reference].columns, "mean"]
        for shot in shots:
            rows = [_difference(table, m, reference, shot, images, resamples) for m in compared]
            corrected = holm([float(str(row["p"])) for row in rows])
            yield from (
                {**row, "p_holm": _round(p)} for row, p in zip(rows, corrected, strict=True)
            )


def _difference(
    table: dict[str, pd.DataFrame],
    method: str,
    reference: str,
    shot: int | str,
    images: "pd.Series[int]",
    resamples: int,
) -> Row:
    values = table[method]
    versus = table[reference].loc[values.index]
    mine, theirs = (v.mean(axis=1) if shot == "mean" else v[shot] for v in (values, versus))
    ours, others = _array(mine), _array(theirs)
    estimate = paired(ours, others, resamples, _clusters(images, mine))
    return {
        "method": method,
        "versus": reference,
        "shots": shot,
        "difference": _round(estimate.mean),
        **_interval(estimate),
        "n": len(ours),
        "separable": estimate.low > 0 or estimate.high < 0,
        "p": _round(estimate.p),
        "deviation": _round(float((ours - others).std(ddof=1))) if len(ours) > 1 else 0.0,
        **tally(ours, others)._asdict(),
    }


def _gains(
    table: dict[str, pd.DataFrame], images: "pd.Series[int]", resamples: int
) -> Iterator[Row]:
    without = next((values[0] for values in table.values() if list(values) == [0]), None)
    for method, values in table.items():
        if list(values) == [0]:
            continue
        before = None if without is None else without.loc[values.index]
        for shot, after in _columns(values):
            if before is not None:
                clusters = _clusters(images, after)
                estimate = paired(_array(after), _array(before), resamples, clusters)
                yield {
                    "method": method,
                    "shots": shot,
                    "difference": _round(estimate.mean),
                    **_interval(estimate),
                    "n": len(after),
                    "separable": estimate.low > 0 or estimate.high < 0,
                }
            before = after


def _clusters(images: "pd.Series[int]", values: "pd.Series[float]") -> Clusters:
    return np.asarray(images.loc[values.index], dtype=np.int64)


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [_round(value) for value in interval]


def _interval(estimate: Estimate) -> Row:
    return {"ci95": [_round(estimate.low), _round(estimate.high)]}


def _array(values: "pd.Series[float]") -> Scores:
    return np.asarray(values, dtype=np.float64)


def _round(value: float) -> float:
    return round(float(value), 6)
