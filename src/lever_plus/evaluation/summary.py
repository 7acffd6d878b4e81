"""metrics/summary.json: accuracies and paired differences, computed from the score table."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from lever_plus.errors import UserError
from lever_plus.evaluation.methods import ZERO_SHOT, Methods
from lever_plus.evaluation.scored import Row, Table, accuracy, corrected, difference
from lever_plus.evaluation.statistics import Clusters, tally

Tables = dict[str, Table]


def summarise(
    scores: pd.DataFrame,
    registry: Methods,
    resamples: int,
    versus: Sequence[str] | None = None,
) -> dict[str, list[Row]]:
    """Return the summary of a score table.

    Args:
        scores: The score table of `evaluate`, one row per method, seed, question and shot.
        registry: The methods.
        resamples: Number of bootstrap resamples.
        versus: The methods that all others are compared with; None for SFT and the first method
            trained on the RL data.

    Returns:
        methods: name, stage, kind and label of each.
        rows: the accuracy of each method at each shot.
        means: the mean accuracy of each method over shots 1..K.
        differences: each method minus each of `versus`, paired by question, at each shot and for
        the mean over shots, with wins, losses and ties, and p-values corrected (Holm) for all
        comparisons at that shot.
        gains: how much each further demonstration adds to a method, paired by question (for the
        first: compared with zero-shot), corrected for all of that method.
        Intervals of methods with several trainings cover these, see `scored`.

    Raises:
        UserError: The table is incomplete, has a method that is not in the registry, or has methods
            that answered different questions.
    """
    check_complete(scores)
    known = registry.part(dict.fromkeys(scores["method"]))
    tables = _tables(scores, known.names("trained"))
    _check_comparable(tables, known)
    images = images_of(scores)
    means = [
        {"method": method, **accuracy(table.at("mean"), _clusters(images, table), resamples)}
        for method, table in tables.items()
        if not table.zero_shot
    ]
    differences = list(_differences(tables, versus or registry.references, images, resamples))
    described: list[Row] = [asdict(method) for method in known]
    return {
        "methods": described,
        "rows": _shot_rows(tables, images, resamples),
        "means": means,
        "differences": differences,
        "gains": list(_gains(tables, images, resamples)),
    }


def shot_rows(scores: pd.DataFrame, resamples: int, trained: Collection[str] = ()) -> list[Row]:
    """Return the mean score of each method at each shot, with its interval.

    Args:
        scores: A complete table with the columns of the score table; `vqa_acc_score` is averaged.
        resamples: Number of bootstrap resamples.
        trained: Names of methods whose seeds are those of trainings.
    """
    return _shot_rows(_tables(scores, trained), images_of(scores), resamples)


def _shot_rows(tables: Tables, images: "pd.Series[int]", resamples: int) -> list[Row]:
    return [
        {"method": method, "shots": shot, **accuracy(scored, _clusters(images, table), resamples)}
        for method, table in tables.items()
        for shot, scored in table.each()
    ]


def _tables(scores: pd.DataFrame, trained: Collection[str]) -> Tables:
    """Return {method: its scores}, in the order of the score table."""
    return {
        str(method): Table(part, trained=method in trained)
        for method, part in scores.groupby("method", sort=False)
    }


def accuracies(summary: Mapping[str, list[Row]]) -> dict[str, dict[str, object]]:
    """Return {method: {"shots_1": accuracy, ..., "mean": mean over shots 1..K}}.

    Zero-shot has "shots_0". There are no lists, so that `dvc metrics show` and `dvc exp diff` can
    show each number.
    """
    found: dict[str, dict[str, object]] = {}
    for row in summary["rows"]:
        found.setdefault(str(row["method"]), {})[f"shots_{row['shots']}"] = row["accuracy"]
    for row in summary["means"]:
        found[str(row["method"])]["mean"] = row["accuracy"]
    return found


def images_of(scores: pd.DataFrame) -> "pd.Series[int]":
    """Return the image id of each question, by question id."""
    return scores.drop_duplicates("query_id").set_index("query_id")["image_id"]


def check_complete(scores: pd.DataFrame) -> None:
    """Refuse a table unless each method has each question once for each of its seeds and shots.

    Raises:
        UserError: A row is missing or occurs twice; the message names method, shot and question.
    """
    for method, part in scores.groupby("method"):
        shots, seeds = part["shot"].unique(), part["seed"].unique()
        cells = pd.MultiIndex.from_product([shots, seeds], names=["shot", "seed"])
        counts = part.groupby(["query_id", "shot", "seed"]).size().unstack(["shot", "seed"])
        wrong = (counts.reindex(columns=cells) != 1).stack(["shot", "seed"], future_stack=True)
        for question, shot, seed in wrong.index[wrong.to_numpy()][:1]:
            raise UserError(
                f"method {method}, shot {shot}, seed {seed}: question {question} is missing or "
                "occurs twice. Run `dvc repro evaluate` again."
            )


def _check_comparable(tables: Tables, known: Methods) -> None:
    """Refuse methods with different questions or shots; a ceiling may lack some questions."""
    whole = [method for method in tables if known[method].kind != "ceiling"] or [*tables]
    first = tables[whole[0]].questions
    shots = next((table.shots for table in tables.values() if not table.zero_shot), [0])
    for method, table in tables.items():
        other = table.questions.difference(first)
        if method in whole:
            other = other.union(first.difference(table.questions))
        if len(other):
            raise UserError(
                f"method {method} and method {whole[0]} did not answer the same questions (such as "
                f"{other[0]}). Run `dvc repro evaluate` again."
            )
        if table.shots not in ([0], shots):
            raise UserError(
                f"method {method} was evaluated at shots {table.shots}, others at {shots}. Run "
                "`dvc repro evaluate` again."
            )


def _differences(
    tables: Tables, references: Sequence[str], images: "pd.Series[int]", resamples: int
) -> Iterator[Row]:
    """Yield the rows of all references at one shot, then at the next; each shot is one table."""
    known = [reference for reference in references if reference in tables]
    pairs = [
        (method, reference)
        for reference in known
        for method, table in tables.items()
        if method != reference and not table.zero_shot
    ]
    shots: list[int | str] = [*tables[known[0]].shots, "mean"] if pairs else []
    for shot in shots:
        rows = [_difference(tables, *pair, shot, images, resamples) for pair in pairs]
        yield from corrected(rows, [frozenset(pair) for pair in pairs])


def _difference(
    tables: Tables,
    method: str,
    reference: str,
    shot: int | str,
    images: "pd.Series[int]",
    resamples: int,
) -> Row:
    table, other = tables[method], tables[reference]
    ours, theirs = table.at(shot), other.at(shot).of(other.places(table.questions))
    return {
        "method": method,
        "versus": reference,
        "shots": shot,
        **difference(ours, theirs, _clusters(images, table), resamples),
        **tally(ours.by_question, theirs.by_question)._asdict(),
    }


def _gains(tables: Tables, images: "pd.Series[int]", resamples: int) -> Iterator[Row]:
    """Yield what each further demonstration adds; the rows of a method are one table."""
    without = tables.get(ZERO_SHOT)
    for method, table in tables.items():
        if table.zero_shot:
            continue
        rows: list[Row] = []
        before = None if without is None else without.at(0).of(without.places(table.questions))
        for shot, after in table.each():
            if before is not None:
                added = difference(after, before, _clusters(images, table), resamples)
                rows.append({"method": method, "shots": shot, **added})
            before = after
        yield from corrected(rows)


def _clusters(images: "pd.Series[int]", table: Table) -> Clusters:
    return np.asarray(images.loc[table.questions], dtype=np.int64)
