"""Files that stages write for later ones get damaged: a sentence, or the right content."""

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from doors import Bad, try_all
from texts import changed, damaged, json_lines

from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.evaluation.ablations import read_ablations
from lever_plus.evaluation.costs import with_costs
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.stored import (
    read_diagnostics,
    read_scores,
    read_stop,
    read_summary,
    read_timing,
)
from lever_plus.evaluation.summary import summarise
from lever_plus.house_words.maker import read_twins
from lever_plus.metric.check import compare
from lever_plus.pipeline.report import read_in_context
from lever_plus.pipeline.searches import check_searches, read_searches, write_searches
from lever_plus.report.curves import requests_frame, shown_frame
from lever_plus.report.sections import IN_CONTEXT
from lever_plus.report.tables import (
    STOP_UNITS,
    accuracy_rows,
    cost_rows,
    difference_rows,
    method_rows,
    paired_rows,
    stop_rows,
)
from lever_plus.report.transfer import transfer_section
from lever_plus.selectors.infoscore import ScoredPrefix
from tiny_world import REGISTRY


def table() -> pd.DataFrame:
    rows = [
        Row(method, 1, query, query, shot, list(range(9, 9 - shot, -1)), [], "x", 1, 0.6, False, 9)
        for method in ("sft", "rce")
        for query in (1, 2, 3)
        for shot in (1, 2)
    ]
    return pd.DataFrame(rows)


def files(path: Path, inputs: Iterable[tuple[str, bytes]], read: Callable[[], None]) -> list[Bad]:
    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            read()

        return Bad(name, run, (path.name,))

    return [bad(*each) for each in inputs]


def texts(content: Any, rng: random.Random, lines: bool = False) -> list[tuple[str, bytes]]:
    """Return damaged JSON bytes and changed content; lists are written one object on a line."""

    def written(content: Any) -> bytes:
        if lines and isinstance(content, list):
            return json_lines(content)
        return json.dumps(content).encode()

    found = list(damaged(written(content), rng, 60))
    return found + [(name, written(other)) for name, other in changed(content, rng, 150)]


def test_score_tables(tmp_path: Path) -> None:
    path, rng = tmp_path / "scores.parquet", random.Random(1)
    table().to_parquet(path, index=False)
    content = path.read_bytes()

    def read() -> None:
        scores = read_scores(path)
        assert len(scores) >= 1
        assert scores["vqa_acc_score"].between(0, 1).all()
        summarise(scores, REGISTRY, 100)

    inputs = files(path, damaged(content, rng, 60), read)

    def other(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Bad:
        def run() -> None:
            change(table()).to_parquet(path, index=False)
            read()

        return Bad(name, run, (path.name, "method "))

    for column in Row._fields:
        for value in (None, -1, 2, 0.5, float("nan"), "x", [1], True, 10**12):
            inputs.append(
                other(
                    f"{column} is {value}", lambda t, c=column, v=value: t.assign(**{c: [v] * 12})
                )
            )
        inputs.append(other(f"no {column}", lambda t, c=column: t.drop(columns=c)))
    inputs.append(other("a row twice", lambda t: pd.concat([t, t[:1]])))
    inputs.append(other("a row is missing", lambda t: t[1:]))
    inputs.append(other("no row", lambda t: t[:0]))
    try_all("scores.parquet", inputs)


def test_summaries(tmp_path: Path) -> None:
    path, rng = tmp_path / "summary.json", random.Random(2)
    summary = with_costs(summarise(table(), REGISTRY, 100), table(), {"rce": [9]})

    def read() -> None:
        found = read_summary(path)
        list(cost_rows(found, {"rce": 0.5}))
        for rows in (accuracy_rows, difference_rows, paired_rows):
            list(rows(found))
        if "methods" in found:
            list(method_rows(found))

    path.write_text(json.dumps(summary))
    read()
    try_all("summary.json", files(path, texts(summary, rng), read))


COPY: Final = {
    **{"method": "sft", "shots": 1, "copied": 0.5, "copied_last": 0.5, "shown": 0.1},
    **{"accuracy_shown": None, "accuracy_not_shown": 0.2},
}
DIFFERENCE: Final = {
    **{"difference": 0.1, "ci95": [0.0, 0.2], "n": 3, "trainings": 3, "one_training": False},
    **{"spread": {"trainings": 0.01, "questions": 0.2, "noise": 0.1}, "p": 0.1, "p_holm": 0.2},
    **{"separable": False, "trainings_needed": 5},
}
ABLATION: Final = {
    **{"variant": "v", "method": "rce", "shots": {"1": 0.5}, "accuracy": 0.5, "ci95": [0.4, 0.6]},
    **{"n": 3, "one_training": True, "seed_accuracies": [0.5], "versus": "default/rce"},
    **{"reward_std": None, "difference": DIFFERENCE, "asks": "?", "vlm_requests": 5.0},
}
CARRIED: Final = {**ABLATION, "policies": "w", "used": "w", "to_trained_there": DIFFERENCE}


STOP: Final = {
    "price_per": "demonstration",
    "rows": [
        {
            **{"price": 0.06, "accuracy": 0.5, "ci95": [0.4, 0.6], "one_training": False},
            **{"n": 3, "seeds": 1, "seed_accuracies": [0.5], "shots": 4},
            **{"demonstrations": 1.5, "prompt_tokens": 70.5},
        }
    ],
}


def test_diagnostics_and_ablations(tmp_path: Path) -> None:
    order = {"questions": 3, "orders": 2, "sets": 8, "order_spread": 0.1, "set_spread": 0.2}
    path, rng = tmp_path / "diagnostics.json", random.Random(3)
    inputs = files(
        path, texts({"order": order, "copy": [COPY]}, rng), lambda: _has(read_diagnostics(path))
    )
    other = tmp_path / "ablations.json"
    content = {"curve": "?", "rows": [ABLATION, CARRIED]}
    inputs += files(other, texts(content, rng), lambda: _shown_ablations(read_ablations(other)))
    table = tmp_path / "in_context.json"
    inputs += files(
        table, texts(dict.fromkeys(IN_CONTEXT, 0.5), rng), lambda: _has(read_in_context(table))
    )
    stop = tmp_path / "stop.json"
    inputs += files(stop, texts(STOP, rng), lambda: _shown(read_stop(stop)))
    timing = tmp_path / "timing.json"
    inputs += files(
        timing, texts({"random": 0.5, "sft": 2}, rng), lambda: _has(read_timing(timing))
    )
    try_all("other metrics", inputs)


def _shown_ablations(ablations: dict[str, Any]) -> None:
    _has(ablations)
    rows = ablations["rows"]
    assert len(requests_frame(ablations)) <= len(rows)
    used = [row for row in rows if row["policies"] not in ("", row["variant"])]
    assert bool(transfer_section(rows)) == bool(used)


def _shown(stop: dict[str, Any]) -> None:
    _has(stop)
    frame = shown_frame({"rows": []}, stop["rows"])
    assert len(frame) == len(stop_rows(stop["rows"]))
    assert stop["price_per"] in STOP_UNITS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": 0.06}, "has a price twice"),
        ({"demonstrations": 4.5}, "a row has more demonstrations than shots"),
        ({"n": 0}, "rows.1.n"),
    ],
)
def test_prices_that_cannot_be_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "stop.json"
    path.write_text(json.dumps(STOP))
    assert read_stop(path) == STOP
    path.write_text('{"rows": []}')
    assert read_stop(path)["rows"] == []
    (price,) = STOP["rows"]
    path.write_text(json.dumps({"rows": [price, {**price, "price": 0.1, **changes}]}))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_stop(path)
    assert "run `dvc repro evaluate`" in str(caught.value)


def _has(content: dict[str, Any]) -> None:
    json.dumps(content, allow_nan=False)


POOLS: Final = Pools(dict.fromkeys((1, 2), (10, 11, 12, 13)), "0")
SEARCH: Final = (
    ScoredPrefix((), (10, 11, 12, 13), (0.25, -0.5, 0.125, 0.0)),
    ScoredPrefix((10,), (11, 12, 13), (0.5, 0.25, -0.125)),
    ScoredPrefix((12,), (10, 11, 13), (0.0, 1.0, -1.0)),
)
"""For two examples, keeping two prefixes."""


def test_searches(tmp_path: Path) -> None:
    path, rng = tmp_path / "searches.jsonl", random.Random(4)
    whole = {query: list(SEARCH) for query in POOLS.ids}
    write_searches(path, whole, {}, POOLS)

    def read() -> None:
        found = read_searches(path)
        check_searches(path, found, [1, 2], POOLS, beam=2, shots=2)
        for each in (each for scored in found.values() for each in scored):
            assert len(each.info_scores) == len(each.candidates)
            assert {*each.prefix, *each.candidates} == {10, 11, 12, 13}
            assert all(-1 <= score <= 1 for score in each.info_scores)

    read()
    assert read_searches(path) == whole
    lines = path.read_bytes().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    inputs = texts(rows, rng, lines=True)
    inputs += [("half is missing", lines[0]), ("a line twice", b"".join([*lines, lines[0]]))]
    try_all("searches.jsonl", files(path, inputs, read))
    path.write_bytes(b"".join(lines))
    meta = path.with_name("meta.json")
    meta.write_text('{"pool_sha256": "1", "vlm": {}}')
    with pytest.raises(Exception, match="was made from other pools: run `dvc repro sft_data`"):
        read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({2: SEARCH[1]}, "query 2 has a prefix twice"),
        ({0: SEARCH[1], 1: SEARCH[0]}, "query 2 does not have the 3 prefixes of a search for 2 ex"),
        ({2: ScoredPrefix((12, 10), (11, 13), (0.0, 0.0))}, "does not have the 3 prefixes of a"),
        ({1: ScoredPrefix((10,), (11, 12), (0.5, 0.25))}, "after [10] the candidates are not the"),
        ({1: ScoredPrefix((9,), (11, 12, 13), (0.5, 0.25, 0.0))}, "after [9] the candidates are n"),
        ({1: ScoredPrefix((10,), (11, 12, 13), (0.5, 0.25))}, "3 candidates and 2 scores"),
        ({1: ScoredPrefix((10,), (11, 10, 12), (0.5, 0.2, 0.1))}, "it names an example twice"),
        ({1: ScoredPrefix((10,), (11, 12, 13), (0.5, 0.25, 1.5))}, "less than or equal to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_search_that_is_not_the_one_that_was_asked_for_is_refused(
    tmp_path: Path, changes: dict[int, ScoredPrefix], message: str
) -> None:
    path = tmp_path / "searches.jsonl"
    other = [changes.get(number, each) for number, each in enumerate(SEARCH)]
    write_searches(path, {1: SEARCH, 2: other}, {}, POOLS)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        check_searches(path, read_searches(path), [1, 2], POOLS, beam=2, shots=2)
    assert "run `dvc repro sft_data`" in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "beam", "shots", "message"),
    [
        ([1, 2, 3], 2, 2, "1 SFT queries are missing (first: 3)"),
        ([2], 2, 2, "1 queries are not SFT queries (first: 1)"),
        ([1, 2], 3, 2, "the 4 prefixes of a search for 2 examples that keeps 3"),
        ([1, 2], 1, 2, "the 2 prefixes of a search for 2 examples that keeps 1"),
        ([1, 2], 2, 1, "the 1 prefixes of a search for 1 examples that keeps 2"),
        ([1, 2], 99, 4, "the 41 prefixes of a search for 4 examples that keeps 99"),
    ],
)
def test_searches_with_other_settings_are_refused(
    tmp_path: Path, queries: list[int], beam: int, shots: int, message: str
) -> None:
    """A pool of four has 1, 4, 12 and 24 prefixes of 0, 1, 2 and 3 picks: a search has no more."""
    path = tmp_path / "searches.jsonl"
    searches = dict.fromkeys((1, 2), SEARCH)
    write_searches(path, searches, {}, POOLS)
    with pytest.raises(UserError, match=re.escape(message)):
        check_searches(path, searches, queries, POOLS, beam, shots)


def test_meanings(tmp_path: Path) -> None:
    path, rng = tmp_path / "latent.json", random.Random(5)
    latent = {
        "attribute": "ink",
        "language": "german",
        "attribute_word": "fennow",
        "style_word": "German",
        "needs": ["attribute"],
        "values": {"digit": 9, "ink": 5, "pattern": 4, "corner": 3},
    }
    content = {"1000000": latent, "1000001": latent}

    def read() -> None:
        for number, twin in read_twins(tmp_path).items():
            assert number >= 0
            assert twin == ("ink", "german")

    try_all("latent.json", files(path, texts(content, rng), read))


def test_predictions_and_annotations(tmp_path: Path) -> None:
    predictions, annotations = tmp_path / "p.json", tmp_path / "a.json"
    rng = random.Random(6)
    given = [{"question_id": i, "answer": "yes"} for i in (1, 2)]
    human = {
        "annotations": [{"question_id": i, "answers": [{"answer": "yes"}] * 10} for i in (1, 2)]
    }

    def run(first: bytes, second: bytes) -> None:
        predictions.write_bytes(first)
        annotations.write_bytes(second)
        found = compare(predictions, annotations)
        assert found.n == 2
        assert all(0 <= accuracy <= 1 for accuracy in found.accuracy.values())

    good = json.dumps(given).encode(), json.dumps(human).encode()
    run(*good)
    inputs = [
        Bad(name, lambda c=content: run(c, good[1]), ("p.json", "a.json"))
        for name, content in texts(given, rng)
    ]
    inputs += [
        Bad(name, lambda c=content: run(good[0], c), ("p.json", "a.json"))
        for name, content in texts(human, rng)
    ]
    try_all("metric check", inputs)
