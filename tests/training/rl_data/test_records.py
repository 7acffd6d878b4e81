"""RL data come back as they were written, and damage or another pool is noticed and named."""

import json
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
        pool=POOLS.of(query),
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


def change(folder: Path, edit: Callable[[Line], object], line: int = 2) -> None:
    """Edit one line of the records; the first is line 1."""
    path = folder / "records.jsonl"
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    edit(lines[line - 1])
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


@pytest.mark.invariant
def test_what_was_written_comes_back(folder: Path) -> None:
    assert read_rl_data(folder, POOLS) == (META, RECORDS)


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
    assert read_rl_data(tmp_path, POOLS)[1] == records
    lines = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    keys = ("vqa_gt_prob", "vqa_rel_score", "log_prob")
    assert [all(f'"{key}"' in line for key in keys) for line in lines] == [False, True, False]
    assert not any(f'"{key}"' in lines[0] for key in keys)


@pytest.mark.parametrize("field", ["vqa_gt_prob", "vqa_rel_score"])
def test_an_optional_score_out_of_range_is_named(folder: Path, field: str) -> None:
    change(folder, lambda row: row["candidates"][0]["shots"][0].update({field: 1.5}))
    with pytest.raises(UserError, match=rf"line 2: candidates\.0\.shots\.0\.{field}: "):
        read_rl_data(folder, POOLS)


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
        read_rl_data(folder, POOLS)


def test_data_for_other_pools_are_refused(folder: Path) -> None:
    other = Pools(ids=POOLS.ids, sha256="q" * 64)
    with pytest.raises(UserError, match="made for pools pppppppppppp, not qqqqqqqqqqqq"):
        read_rl_data(folder, other)


def test_a_line_cut_off_in_the_middle_is_named(folder: Path) -> None:
    path = folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"records\.jsonl, line 3: the line: Invalid JSON"):
        read_rl_data(folder, POOLS)


def test_missing_lines_are_noticed(folder: Path) -> None:
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(UserError, match=r"holds 2 records, .* promises 3"):
        read_rl_data(folder, POOLS)


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda row: row.update(extra=1), "extra"),
        (lambda row: row["candidates"][1].update(reward=1), r"candidates\.1\.reward"),
        (lambda row: row["candidates"][0].pop("temperature"), r"candidates\.0\.temperature"),
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
        read_rl_data(folder, POOLS)


@pytest.mark.invariant
def test_an_item_outside_the_pool_is_named_with_its_query(folder: Path) -> None:
    change(folder, lambda row: row["candidates"][1].update(pointer=[12, 99]))
    with pytest.raises(KeyError) as caught:
        read_rl_data(folder, POOLS)
    assert isinstance(caught.value, PointerError)
    assert isinstance(caught.value, UserError)
    assert "query 2: example 99" in str(caught.value)


def test_an_item_named_twice_is_refused(folder: Path) -> None:
    change(folder, lambda row: row["candidates"][0].update(pointer=[12, 12]), line=3)
    with pytest.raises(PointerError, match=r"query 3: pointer \(12, 12\) names an example twice"):
        read_rl_data(folder, POOLS)


def test_a_query_without_a_pool_is_refused(folder: Path) -> None:
    change(folder, lambda row: row.update(query_id=4))
    with pytest.raises(PointerError, match="query 4 has no pool"):
        read_rl_data(folder, POOLS)


@pytest.mark.parametrize(
    "separator",
    ["\u2028", "\u0085", "\x1c", "\n"],
)
def test_an_answer_may_hold_any_line_separator(tmp_path: Path, separator: str) -> None:
    """Only a line feed ends a record; JSON leaves most other separators as they are."""
    records = [record(query, f"one{separator}two") for query in (1, 2, 3)]
    write_rl_data(tmp_path, META, records)
    assert read_rl_data(tmp_path, POOLS)[1] == records


def test_damaged_meta_is_refused_and_named(folder: Path) -> None:
    path = folder / "meta.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"meta\.json"):
        read_rl_data(folder, POOLS)


def test_a_file_cut_off_inside_a_letter_is_refused_and_named(folder: Path) -> None:
    path = folder / "records.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex("é".encode()) + 1])
    with pytest.raises(UserError, match=r"records\.jsonl"):
        read_rl_data(folder, POOLS)


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
        read_rl_data(folder, POOLS)
