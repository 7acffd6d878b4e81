"""RL data are read as they were written; damage or another pool is noticed and named."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.training.rl_data.records import (
    Candidate,
    Meta,
    QueryRecord,
    Shot,
    read_rl_data,
    write_rl_data,
)

POOLS = Pools(ids=dict.fromkeys((1, 2, 3), (10, 11, 12, 13)), sha256="p" * 64)
META = Meta(
    vlm={
        "model": "TinyVlm",
        "revision": "r",
        "dtype": "float32",
        "prompt_hash": "h",
        "generation": "greedy, 5 tokens",
    },
    metric="VQA accuracy, convention community",
    pool_sha256=POOLS.sha256,
    feature_space="e" * 64,
    policy_sha256="s" * 64,
    records=3,
)
Line = dict[str, Any]


def record(query: int, answer: str = "café") -> QueryRecord:
    shots = (
        Shot(shot=1, answer=answer, vqa_correct=0, vqa_acc_score=0.0, fallback=False),
        Shot(shot=2, answer="2", vqa_correct=1, vqa_acc_score=0.3, fallback=False),
    )
    return QueryRecord(
        query_id=query,
        question_id=query,
        pool=POOLS.of(1),
        candidates=(
            Candidate(
                pointer=(11, 10),
                gen_method="sample",
                temperature=1.3,
                step_log_probs=(-1.25, -0.125),
                shots=shots,
            ),
            Candidate(
                pointer=(12, 13),
                gen_method="beam",
                temperature=None,
                step_log_probs=(-0.5, -0.75),
                shots=shots,
            ),
        ),
    )


RECORDS = [record(query) for query in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rl_data"
    write_rl_data(folder, META, RECORDS)
    return folder


def read(folder: Path) -> tuple[Meta, list[QueryRecord]]:
    meta, records = read_rl_data(folder, POOLS)
    return meta, list(records)


def change(folder: Path, edit: Callable[[Line], object], line: int = 2) -> None:
    """Edit one line of the records; the first is line 1."""
    path = folder / "records.jsonl"
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    edit(lines[line - 1])
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


@pytest.mark.invariant
def test_what_was_written_comes_back(folder: Path) -> None:
    assert read(folder) == (META, RECORDS)


@pytest.mark.invariant
def test_optional_scores_come_back_and_are_absent_where_not_asked_for(tmp_path: Path) -> None:
    """Origin, temperature, step log-probs or the total, and the scores beside hard and soft."""
    first, second = RECORDS[1].candidates
    shots = tuple(
        shot.model_copy(update={"vqa_gt_prob": 1 / 3, "vqa_rel_score": 0.1}) for shot in first.shots
    )
    drawn = {"gen_method": "stochastic_beam", "temperature": 0.7, "shots": shots}
    found = {"gen_method": "retrieval", "step_log_probs": None, "log_prob": -3.25}
    rich = (first.model_copy(update=drawn), second.model_copy(update=found))
    records = [RECORDS[0], RECORDS[1].model_copy(update={"candidates": rich}), RECORDS[2]]
    write_rl_data(tmp_path, META, records)
    assert read(tmp_path)[1] == records
    lines = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    keys = ("vqa_gt_prob", "vqa_rel_score", "log_prob")
    assert [all(f'"{key}"' in line for key in keys) for line in lines] == [False, True, False]
    assert not any(f'"{key}"' in lines[0] for key in keys)


@pytest.mark.parametrize("field", ["vqa_gt_prob", "vqa_rel_score"])
def test_an_optional_score_out_of_range_is_named(folder: Path, field: str) -> None:
    change(folder, lambda row: row["candidates"][0]["shots"][0].update({field: 1.5}))
    with pytest.raises(UserError, match=rf"line 2: candidates\.0\.shots\.0\.{field}: "):
        read(folder)


def test_equal_data_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write_rl_data(tmp_path / "again", *read_rl_data(folder, POOLS))
    names = {path.name for path in folder.iterdir()}
    assert names == {"meta.json", "records.jsonl", "schema.json"}
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_line_holds_origin_and_scores_of_every_candidate(folder: Path) -> None:
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0])["candidates"][0] == {
        "pointer": [11, 10],
        "gen_method": "sample",
        "temperature": 1.3,
        "step_log_probs": [-1.25, -0.125],
        "shots": [
            {
                "shot": 1,
                "answer": "café",
                "vqa_correct": 0,
                "vqa_acc_score": 0.0,
                "fallback": False,
            },
            {"shot": 2, "answer": "2", "vqa_correct": 1, "vqa_acc_score": 0.3, "fallback": False},
        ],
    }


def test_the_schema_describes_the_lines(folder: Path) -> None:
    """A line has the keys that the schema requires; those it allows beside them are optional."""
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    line = json.loads((folder / "records.jsonl").read_text(encoding="utf-8").splitlines()[0])
    candidate = line["candidates"][0]
    definitions = schema["$defs"]
    for value, described, optional in (
        (line, schema, set()),
        (candidate, definitions["Candidate"], {"log_prob"}),
        (candidate["shots"][0], definitions["Shot"], {"vqa_gt_prob", "vqa_rel_score"}),
    ):
        assert value.keys() == set(described["required"])
        assert described["properties"].keys() == set(described["required"]) | optional
        assert described["additionalProperties"] is False
    assert definitions["Candidate"]["properties"]["gen_method"]["enum"] == [
        "beam",
        "sample",
        "stochastic_beam",
        "random",
        "retrieval",
        "augmented",
    ]


def test_meta_says_what_the_data_were_made_with(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert meta.keys() == set(Meta.model_json_schema()["required"])
    assert Meta.model_validate(meta) == META
    assert meta["vlm"]["prompt_hash"] == "h"


@pytest.mark.parametrize("name", ["meta.json", "records.jsonl"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match="holds no RL data"):
        read(folder)


def test_data_for_other_pools_are_refused(folder: Path) -> None:
    other = Pools(ids=POOLS.ids, sha256="q" * 64)
    with pytest.raises(UserError, match="made for pools pppppppppppp, but .* is qqqqqqqqqqqq"):
        read_rl_data(folder, other)


def test_a_line_cut_off_in_the_middle_is_named(folder: Path) -> None:
    path = folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"records\.jsonl, line 3 is not valid JSON"):
        read(folder)


def test_missing_lines_are_noticed(folder: Path) -> None:
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(UserError, match=r"holds 2 records, .*meta.json says 3"):
        read(folder)


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda row: row.update(extra=1), "unknown key extra"),
        (lambda row: row["candidates"][1].update(reward=1), r"unknown key candidates\.1\.reward"),
        (
            lambda row: row["candidates"][0].pop("temperature"),
            r"candidates\.0\.temperature is missing",
        ),
        (lambda row: row["candidates"][0].update(gen_method="x"), r"candidates\.0\.gen_method"),
        (
            lambda row: row["candidates"][0]["shots"][1].update(vqa_acc_score=30.0),
            r"candidates\.0\.shots\.1\.vqa_acc_score",
        ),
        (
            lambda row: row["candidates"][0]["shots"][1].update(vqa_acc_score=None),
            r"candidates\.0\.shots\.1\.vqa_acc_score",
        ),
        (
            lambda row: row["candidates"][0]["shots"][0].update(vqa_correct=2),
            r"candidates\.0\.shots\.0\.vqa_correct",
        ),
    ],
)
def test_a_line_against_the_schema_is_named_with_its_key(
    folder: Path, edit: Callable[[Line], object], place: str
) -> None:
    change(folder, edit)
    with pytest.raises(UserError, match=rf"records\.jsonl, line 2: {place}: "):
        read(folder)


@pytest.mark.invariant
def test_an_item_outside_the_pool_is_named_with_its_query(folder: Path) -> None:
    change(folder, lambda row: row["candidates"][1].update(pointer=[12, 99]))
    with pytest.raises(KeyError) as caught:
        read(folder)
    assert isinstance(caught.value, PointerError)
    assert isinstance(caught.value, UserError)
    assert "query 2: example 99" in str(caught.value)


def test_an_item_named_twice_is_refused(folder: Path) -> None:
    change(folder, lambda row: row["candidates"][0].update(pointer=[12, 12]), line=3)
    with pytest.raises(PointerError, match=r"query 3: pointer \(12, 12\) names an example twice"):
        read(folder)


def test_a_query_without_a_pool_is_refused(folder: Path) -> None:
    change(folder, lambda row: row.update(query_id=4))
    with pytest.raises(PointerError, match="query 4 has no pool"):
        read(folder)


@pytest.mark.parametrize(
    "separator",
    ["\u2028", "\u0085", "\x1c", "\n"],
)
def test_an_answer_may_hold_any_line_separator(tmp_path: Path, separator: str) -> None:
    """Only a line feed ends a record; JSON leaves most other separators as they are."""
    records = [record(query, f"one{separator}two") for query in (1, 2, 3)]
    write_rl_data(tmp_path, META, records)
    assert read(tmp_path)[1] == records


def test_damaged_meta_is_refused_and_named(folder: Path) -> None:
    path = folder / "meta.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"meta\.json"):
        read(folder)


def test_a_file_cut_off_inside_a_letter_is_refused_and_named(folder: Path) -> None:
    path = folder / "records.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex("é".encode()) + 1])
    with pytest.raises(UserError, match=r"records\.jsonl"):
        read(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda row: row["candidates"][0]["shots"].pop(),
        lambda row: row["candidates"][0]["shots"].reverse(),
        lambda row: row["candidates"][0]["step_log_probs"].pop(),
        lambda row: row["candidates"].clear(),
    ],
    ids=["a shot is missing", "shots out of order", "a log-prob is missing", "no candidates"],
)
def test_a_candidate_without_one_score_a_shot_is_refused(
    folder: Path, edit: Callable[[Line], object]
) -> None:
    """The k-th score is read as that of shot k, so there must be one for each pick, in order."""
    change(folder, edit)
    with pytest.raises(UserError, match=r"records\.jsonl, line 2"):
        read(folder)


def first(row: Line) -> Line:
    candidate: Line = row["candidates"][0]
    return candidate


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda row: first(row)["shots"][1].update(vqa_acc_score=0), "vqa_correct 1, but vqa_acc"),
        (lambda row: first(row)["shots"][0].update(vqa_correct=1), "vqa_correct 1, but vqa_acc"),
        (lambda row: first(row)["shots"][1].update(vqa_correct=True), "0 or 1, not True"),
        (lambda row: first(row)["shots"][1].update(vqa_correct=1.0), "0 or 1, not 1.0"),
        (lambda row: first(row)["shots"][1].update(shot=2.0), r"shots\.1\.shot: .* not 2\.0"),
        (
            lambda row: first(row)["shots"][1].update(vqa_acc_score=True),
            "vqa_acc_score: .* not True",
        ),
        (lambda row: first(row)["shots"][1].update(answer=2), "answer: .* not 2"),
        (
            lambda row: first(row).update(step_log_probs=[-1.0, 0.5]),
            "a log-probability is not between",
        ),
        (lambda row: first(row).update(log_prob=-1.375), "both log_prob and step_log_probs"),
        (
            lambda row: first(row).update(temperature=0),
            "temperature is 0.0, but it must be",
        ),
        (lambda row: first(row).update(temperature="1.0"), "temperature: .* not '1.0'"),
        (lambda row: first(row).update(pointer=[11.0, 10]), r"pointer\.0: .* not 11\.0"),
        (lambda row: first(row).update(pointer=["11", 10]), r"pointer\.0: .* not '11'"),
        (
            lambda row: first(row).update(pointer=[11, 10, 12]),
            "must rise to 3, the pointer's length",
        ),
        (lambda row: first(row).update(pointer=[11, 99]), "query 2: example 99"),
        (lambda row: row.update(query_id=True), "query_id: .* not True"),
        (lambda row: row.update(query_id=1), "query 1 is already in an earlier line"),
        (lambda row: row.update(pool=[11, 10, 12, 13]), "query 2 has a different pool"),
        (
            lambda row: row["candidates"][1].update(pointer=[11, 10]),
            "occurs twice",
        ),
    ],
)
def test_a_line_that_can_not_be_right_is_named(
    folder: Path, edit: Callable[[Line], object], reason: str
) -> None:
    def edited(row: Line) -> None:
        edit(row)
        if row["candidates"][1]["pointer"] == [11, 10]:  # the same pointer, with another answer
            row["candidates"][1]["shots"][0]["answer"] = "another"

    change(folder, edited)
    with pytest.raises(UserError, match=rf"records\.jsonl, line 2: .*{reason}"):
        read(folder)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "-1e999"])
def test_numbers_that_are_none_are_refused_by_line(folder: Path, text: str) -> None:
    path = folder / "records.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("-1.25", text, 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"records\.jsonl, line 1 is not valid JSON"):
        read(folder)


def test_a_key_twice_is_refused_by_line(folder: Path) -> None:
    path = folder / "records.jsonl"
    text = path.read_text(encoding="utf-8").replace('"query_id": 3', '"query_id": 2, "query_id": 3')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"line 3 is not valid JSON \(the key 'query_id' occurs"):
        read(folder)


def test_the_same_candidate_twice_is_no_harm(tmp_path: Path) -> None:
    """Two generators may propose one pointer; groups keep the first."""
    one, two = RECORDS[0].candidates
    again = RECORDS[0].model_copy(update={"candidates": (one, two, one)})
    write_rl_data(tmp_path, META, [again, *RECORDS[1:]])
    assert read(tmp_path)[1][0] == again


def test_what_can_not_be_written_whole_leaves_what_was_there(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="2 records, but meta says 3"):
        write_rl_data(folder, META, RECORDS[:2])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_records_are_read_one_at_a_time(tmp_path: Path) -> None:
    """Ten times as many records take no more memory."""

    def peak(count: int) -> int:
        ids = range(1, count + 1)
        pools = Pools(ids=dict.fromkeys(ids, POOLS.of(1)), sha256=POOLS.sha256)
        meta = META.model_copy(update={"records": count})
        write_rl_data(tmp_path, meta, map(record, ids))
        tracemalloc.start()
        assert sum(1 for _ in read_rl_data(tmp_path, pools)[1]) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    whole = len(json.dumps(RECORDS[0].model_dump())) * 900
    assert peak(1_000) - peak(100) < whole / 4
