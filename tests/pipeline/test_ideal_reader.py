"""The numbers of the ideal reader: means over questions and seeds, with the usual intervals."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.statistics import bootstrap
from lever_plus.evaluation.summary import summarise
from lever_plus.house_words.ideal import KINDS, IdealReader
from lever_plus.pipeline.ideal_reader import open_reader, reader_numbers
from lever_plus.pipeline.paths import Paths
from tiny_world import REGISTRY, World

SEEDS = {"zero-shot": [0], "random": [0, 1, 2], "vote": [0], "oracle": [0]}
RESAMPLES = 200


@pytest.fixture
def reader(world: World, tmp_path: Path) -> IdealReader:
    paths = Paths(tmp_path)
    paths.source.mkdir(parents=True)
    (paths.source / "latent.json").write_bytes((world.folder / "latent.json").read_bytes())
    return open_reader(paths, world.examples)


@pytest.fixture
def scores(world: World) -> pd.DataFrame:
    """Scores of random pointers; two questions share each image, and oracle has other pointers."""
    rng, rows = np.random.default_rng(0), list[Row]()
    train = [e.question_id for e in world.splits["train"]]
    for method, seeds in SEEDS.items():
        for seed, (number, example) in product(seeds, enumerate(world.splits["test"])):
            if method == "oracle" and number > 4:
                continue
            longest = [int(i) for i in rng.permutation(train)[:3]]
            for shot in [0] if method == "zero-shot" else [1, 2, 3]:
                pointer = longest[-shot:] if method == "oracle" else longest[:shot]
                told = [] if method == "zero-shot" else pointer
                score = float(rng.choice([0.0, 0.6, 1.0]))
                said = ("x", int(score > 0), score, False)
                query = example.question_id
                rows.append(Row(method, seed, query, number // 2, shot, told, [], *said))
    return pd.DataFrame(rows)


def test_every_number_is_the_mean_of_what_the_reader_says(
    world: World, reader: IdealReader, scores: pd.DataFrame
) -> None:
    test = [e.question_id for e in world.splits["test"]]
    pool = tuple(e.question_id for e in world.splits["train"])[:9]
    summary = summarise(scores, REGISTRY, RESAMPLES)
    found = reader_numbers(reader, scores, summary, Pools(dict.fromkeys(test, pool), ""), RESAMPLES)
    assert found["questions"] == len(test) == 8
    needed = [reader.needed(query, pool, 3) for query in test]
    assert {name: row["share"] for name, row in found["needed"].items()} == {
        **{str(count): needed.count(count) / 8 for count in range(4)},
        "none": needed.count(None) / 8,
    }
    assert len(set(needed)) > 1
    places = [(row["method"], row["shots"]) for row in found["accuracy"]]
    assert places == [
        ("zero-shot", 0),
        *product(["random", "oracle"], [1, 2, 3]),  # a vote does not ask the VLM
    ]
    measured = {(row["method"], row["shots"]): row for row in summary["rows"]}
    for row in found["accuracy"]:
        part = scores[(scores["method"] == row["method"]) & (scores["shot"] == row["shots"])]
        values: dict[int, list[float]] = {}
        for each in part.itertuples():
            values.setdefault(each.query_id, []).append(
                reader.accuracy(each.query_id, each.pointer)
            )
        means = np.array([np.mean(v) for v in values.values()])
        images = part.drop_duplicates("query_id")["image_id"].to_numpy()
        expected = bootstrap(means, RESAMPLES, images)
        assert row["accuracy"] == pytest.approx(expected.mean, abs=1e-6)
        assert row["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-6)
        assert row["n"] == len(values)
        assert len(row["seed_accuracies"]) == row["seeds"] == len(SEEDS[row["method"]])
        theirs = measured[row["method"], row["shots"]]
        assert row["measured"] == {key: theirs[key] for key in ("accuracy", "ci95")}


def test_picks_are_counted_by_position_in_the_longest_pointers(
    world: World, reader: IdealReader, scores: pd.DataFrame
) -> None:
    test = [e.question_id for e in world.splits["test"]]
    pools = Pools(dict.fromkeys(test, (1_000_000,)), "")
    summary = summarise(scores, REGISTRY, RESAMPLES)
    rows = reader_numbers(reader, scores, summary, pools, RESAMPLES)["picks"]
    assert [(row["method"], row["position"]) for row in rows] == list(
        product(["random", "oracle"], [1, 2, 3])
    )
    for row in rows:
        part = scores[(scores["method"] == row["method"]) & (scores["shot"] == 3)]
        counts = Counter(
            reader.kinds(each.query_id, each.pointer)[row["position"] - 1]
            for each in part.itertuples()
        )
        for kind in ("complement", "duplicate", "harmful", "idle"):
            assert row[kind]["share"] == pytest.approx(counts[kind] / len(part), abs=1e-6)
            low, high = row[kind]["ci95"]
            assert 0 <= low <= row[kind]["share"] <= high <= 1
        assert row["n"] == (5 if row["method"] == "oracle" else 8)


def test_a_question_without_a_pick_at_a_position_is_left_out_of_it(
    world: World, reader: IdealReader
) -> None:
    """Two trainings stop after different numbers of picks; one question gets no demonstration."""
    train = [e.question_id for e in world.splits["train"]]
    test = [e.question_id for e in world.splits["test"]][:4]
    counts = {1: (0, 1, 3, 3), 2: (0, 2, 2, 3)}
    rows = [
        Row(
            "grpo-stop", seed, query, query, shot, train[: min(shot, count)], [], "x", 1, 1.0, False
        )
        for seed, of_seed in counts.items()
        for query, count in zip(test, of_seed, strict=True)
        for shot in (1, 2, 3)
    ]
    scores, pools = pd.DataFrame(rows), Pools(dict.fromkeys(test, (1_000_000,)), "")
    summary = summarise(scores, REGISTRY, RESAMPLES)
    picks = reader_numbers(reader, scores, summary, pools, RESAMPLES)["picks"]
    assert [(row["position"], row["n"], row["seeds"]) for row in picks] == [
        *((1, 3, 2), (2, 2, 2), (3, 1, 2))
    ]
    for row, asked in zip(picks, (test[1:], test[2:], test[3:]), strict=True):
        kinds = Counter(reader.kinds(query, train[:3])[row["position"] - 1] for query in asked)
        for kind in KINDS:
            assert row[kind]["share"] == pytest.approx(kinds[kind] / len(asked), abs=1e-6)


def test_what_stops_is_judged_by_what_it_shows(
    world: World, reader: IdealReader, scores: pd.DataFrame
) -> None:
    stops = scores.copy()
    mine = stops["method"] == "random"
    stops.loc[mine, "pointer"] = stops.loc[mine, "pointer"].map(lambda pointer: pointer[:2])
    pools = Pools({e.question_id: (1_000_000,) for e in world.splits["test"]}, "")
    found = reader_numbers(reader, stops, summarise(stops, REGISTRY, RESAMPLES), pools, RESAMPLES)
    reached = {
        row["shots"]: row["accuracy"] for row in found["accuracy"] if row["method"] == "random"
    }
    assert reached[1] != reached[2] == reached[3]


def test_an_example_whose_meaning_is_not_known_is_named(world: World, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.source.mkdir(parents=True)
    (paths.source / "latent.json").write_text("{}")
    with pytest.raises(UserError, match=r"meaning of question 1000000: run `dvc repro prepare`"):
        open_reader(paths, world.examples)
