"""What the ideal reader makes of the evaluated pointers, for the report (embedded data only)."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from lever_plus.data.examples import Example
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import VOTE, methods_in
from lever_plus.evaluation.summary import images_of, shot_rows
from lever_plus.house_words.ideal import KINDS, IdealReader
from lever_plus.house_words.maker import read_latent
from lever_plus.pipeline.paths import Paths

Row = dict[str, Any]


def open_reader(paths: Paths, examples: Mapping[int, Example]) -> IdealReader:
    """Return the reader; raise UserError if the hidden meaning of an example is not known."""
    hidden = read_latent(paths.source)
    unknown = sorted(examples.keys() - hidden.keys())
    if unknown:
        raise UserError(
            f"{paths.source} does not have the hidden meaning of question {unknown[0]}: run `dvc "
            "repro prepare`."
        )
    return IdealReader(hidden, examples)


def reader_numbers(
    reader: IdealReader,
    scores: pd.DataFrame,
    summary: Mapping[str, Any],
    pools: Pools,
    resamples: int,
) -> dict[str, Any]:
    """Return what the reader says about the test questions and every method's pointers.

    Args:
        reader: The ideal reader.
        scores: The table of `evaluate`; methods that do not ask the VLM are left out.
        summary: metrics/summary.json, which has the measured accuracies.
        pools: The pools of the test questions.
        resamples: Number of bootstrap resamples.

    Returns:
        questions: number of test questions; needed: {number of demonstrations: share of questions
        that need this many, with its interval}, where "none" is the share for which all shots are
        not enough; accuracy: rows like those of the summary, with the reader's accuracy and the
        measured one; picks: for every method and position of its longest pointers, the share of
        each kind of pick with its interval, and the number n of questions.
    """
    asked = scores[scores["method"] != VOTE]
    ideal = [
        reader.accuracy(int(query), [int(i) for i in pointer])
        for query, pointer in zip(asked["query_id"], asked["pointer"], strict=True)
    ]
    trained = methods_in(summary).names("trained")
    rows = shot_rows(asked.assign(vqa_acc_score=ideal), resamples, trained)
    measured = {
        (row["method"], row["shots"]): {key: row[key] for key in ("accuracy", "ci95")}
        for row in summary["rows"]
    }
    return {
        "questions": asked["query_id"].nunique(),
        "needed": _needed(reader, asked, pools, resamples),
        "accuracy": [{**row, "measured": measured[row["method"], row["shots"]]} for row in rows],
        "picks": _picks(reader, asked, resamples, trained),
    }


def _needed(
    reader: IdealReader, scores: pd.DataFrame, pools: Pools, resamples: int
) -> dict[str, Row]:
    """Return the share of questions that need each number of demonstrations."""
    most = int(scores["shot"].max())
    questions = images_of(scores).reset_index().assign(seed=0, shot=0)
    asked = [int(query) for query in questions["query_id"]]
    counts = [reader.needed(query, pools.of(query), most) for query in asked]
    found = {}
    for count in (*range(most + 1), None):
        name = "none" if count is None else str(count)
        right = [float(each == count) for each in counts]
        (row,) = shot_rows(questions.assign(method=name, vqa_acc_score=right), resamples)
        found[name] = _share(row)
    return found


def _picks(
    reader: IdealReader, scores: pd.DataFrame, resamples: int, trained: Collection[str]
) -> list[Row]:
    """Return the share of each kind of pick, one row per method and position.

    A method that stops may have no pick at a position: a question is left out there if any training
    of the method has none.
    """
    last = scores.groupby("method")["shot"].transform("max")
    longest = scores[(scores["shot"] == last) & (scores["shot"] > 0)]
    kinds = [
        reader.kinds(int(query), [int(i) for i in pointer])
        for query, pointer in zip(longest["query_id"], longest["pointer"], strict=True)
    ]
    picks = longest.loc[longest.index.repeat([len(each) for each in kinds])].assign(
        shot=[place for each in kinds for place in range(1, len(each) + 1)],
        kind=[kind for each in kinds for kind in each],
    )
    seeds = longest.groupby("method")["seed"].nunique()
    found = picks.groupby(["method", "shot", "query_id"])["seed"].transform("size")
    everywhere = picks[found == picks["method"].map(seeds)]
    return [
        _pick(at_position, resamples, trained)
        for _, of_method in everywhere.groupby("method", sort=False)
        for _, at_position in of_method.groupby("shot")
    ]


def _pick(picks: pd.DataFrame, resamples: int, trained: Collection[str]) -> Row:
    """Return the share of each kind among a method's picks at one position."""
    rows: dict[str, Row] = {}
    for kind in KINDS:
        of_kind = (picks["kind"] == kind).astype(float)
        (rows[kind],) = shot_rows(picks.assign(vqa_acc_score=of_kind), resamples, trained)
    row = rows[KINDS[0]]
    whole = {"method": row["method"], "position": row["shots"], "n": row["n"]}
    shares = {kind: _share(each) for kind, each in rows.items()}
    return {**whole, "seeds": row["seeds"], **shares}


def _share(row: Row) -> Row:
    return {"share": row["accuracy"], "ci95": row["ci95"]}
