"""RL data and the older system's JSON get damaged: the place is named, or what is read is valid.

What is taken is checked by what must be true of any RL data, and against what the file says.
"""

import copy
import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from texts import VALUES, changed, damaged

from lever_plus.data.pools import Pools
from lever_plus.training.rl_data.headroom import measure
from lever_plus.training.rl_data.legacy_export import write_exchange
from lever_plus.training.rl_data.legacy_json import read_exchange
from lever_plus.training.rl_data.records import Meta, QueryRecord, read_rl_data, write_rl_data

POOLS = Pools(ids={1: (10, 11, 12, 13), 2: (13, 12, 10, 14)}, sha256="p" * 64)
IDENTITY = dict.fromkeys(("model", "revision", "dtype", "prompt_hash", "generation"), "m")
META = {
    **{"vlm": IDENTITY, "metric": "m", "pool_sha256": POOLS.sha256, "records": 2},
    **{"feature_space": "f", "policy_sha256": "s"},
}


def shot(number: int, score: float) -> dict[str, Any]:
    scored = {"vqa_correct": int(score > 0), "vqa_acc_score": score, "fallback": False}
    return {"shot": number, "answer": "rayé", **scored, "vqa_gt_prob": 0.5}


def candidate(pointer: list[int], *scores: float) -> dict[str, Any]:
    return {
        **{"pointer": pointer, "gen_method": "sample", "temperature": 1.3},
        "step_log_probs": [-0.5, -0.25],
        "shots": [shot(number, score) for number, score in enumerate(scores, start=1)],
    }


def record(query: int) -> dict[str, Any]:
    candidates = [candidate([12, 10], 0.3, 1.0), candidate([10, 13 if query == 1 else 14], 0.0, 0)]
    ids = {"query_id": query, "question_id": query}
    return {**ids, "pool": list(POOLS.of(query)), "candidates": candidates}


CONTENT = [record(1), record(2)]


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def parsed(text: str) -> Any:
    """Return what JSON says; numbers that only a float can hold become floats."""
    return json.loads(text, parse_int=lambda digits: (int if len(digits) < 20 else float)(digits))


def holds(records: list[QueryRecord]) -> None:
    """Assert what is true of all RL data."""
    assert len({r.query_id for r in records}) == len(records)
    for each in records:
        assert each.pool == POOLS.of(each.query_id)
        for found in each.candidates:
            assert len(set(found.pointer)) == len(found.pointer) == found.shots[-1].shot
            assert set(found.pointer) <= set(each.pool)
            assert all(type(number) is int for number in found.pointer)
            assert found.temperature is None or 0 < found.temperature < math.inf
            assert all(-math.inf < p <= 0 for p in found.step_log_probs or ())
            for scored in found.shots:
                assert type(scored.vqa_correct) is int
                assert scored.vqa_correct == (scored.vqa_acc_score > 0)
                assert 0 <= scored.vqa_acc_score <= 1
    assert 0 <= measure(records).accuracy <= 1


def read(folder: Path, name: str, content: bytes) -> None:
    """Read RL data with one file changed; what is taken must be what the file says."""
    (folder / name).write_bytes(content)
    meta, found = read_rl_data(folder, POOLS)
    records = list(found)
    holds(records)
    if name == "records.jsonl":
        texts = content.decode("utf-8-sig").split("\n")
        said = [parsed(text.removeprefix("\ufeff")) for text in texts if text.strip()]
        for one, two in zip(said, records, strict=True):
            kept = parsed(json.dumps(two.model_dump(exclude_unset=True)))
            assert kept == one, "something was converted"
    else:
        assert meta.records == len(records) == 2
        assert meta.pool_sha256 == POOLS.sha256


@pytest.fixture
def untouched(tmp_path: Path) -> Path:
    """Write RL data twice: those that get damaged, and others beside them."""
    for name in ("rl_data", "neighbour"):
        records = map(QueryRecord.model_validate, CONTENT)
        write_rl_data(tmp_path / name, Meta.model_validate(META), records)
    return tmp_path / "neighbour"


def bad(folder: Path, name: str, what: str, content: bytes) -> Bad:
    return Bad(what, lambda: read(folder, name, content), (name, str(folder)))


def test_damaged_records(tmp_path: Path, untouched: Path) -> None:
    rng, folder = random.Random(1), tmp_path / "rl_data"
    inputs = [*damaged(lines(CONTENT), rng, 150)]
    inputs += [(what, lines(rows)) for what, rows in changed(CONTENT, rng, 350)]
    counts = try_all("RL data", (bad(folder, "records.jsonl", *each) for each in inputs), untouched)
    assert counts["refused"] > 350


def test_every_value_of_a_record_replaced(tmp_path: Path, untouched: Path) -> None:
    """Every field gets every bad value, such as numbers as texts, true as 1, 1.0 as 1."""
    folder = tmp_path / "rl_data"

    def inputs() -> Iterator[Bad]:
        for part in ("record", "candidate", "shot"):
            for value in (*VALUES, 1.0, 0.5, 2, 30.0, "0", "-1.0", [True], [1.5], ["1"], 10**400):
                rows = copy.deepcopy(CONTENT)
                holder = rows[1]
                if part != "record":
                    holder = holder["candidates"][0]
                if part == "shot":
                    holder = holder["shots"][1]
                for key, kept in list(holder.items()):
                    holder[key] = value
                    content = lines(rows)
                    holder[key] = kept
                    yield bad(folder, "records.jsonl", f"{key} is {value!r:.40}", content)

    try_all("RL data, every field", inputs(), untouched)


def test_damaged_meta(tmp_path: Path, untouched: Path) -> None:
    rng, folder = random.Random(2), tmp_path / "rl_data"
    inputs = [*damaged(json.dumps(META).encode(), rng, 70)]
    inputs += [(what, json.dumps(rows).encode()) for what, rows in changed(META, rng, 70)]
    try_all("RL data, meta", (bad(folder, "meta.json", *each) for each in inputs), untouched)


OLD = {
    "_meta": {"vqa_model": "qwen", "task_gen_args": {"num_beams": 3}},
    "1": {
        "candidate_pool_ids": [10, 11, 12, 13],
        "query": {"query_id": 1, "question_id": 1},
        "pointer_candidates": [
            {
                **{"pointer": [2, 0], "pointer_global": [12, 10], "pointer_pos": [2, 0]},
                **{"gen_method": "beam", "beam_score": -1.5, "temperature": None},
                **{"vqa_pred_answer": "two", "vqa_correct": 1, "vqa_acc_score": 0.6},
                **{"vqa_eval_mode": "vqaEval", "eval_failed": False, "vqa_gt_prob": 0.5},
            },
            {
                **{"pointer": [3, 1], "gen_method": "sample", "logprob_score": -0.75},
                **{"vqa_pred_answer": "rayé", "vqa_correct": 1, "vqa_acc_score": 1.0},
                **{"vqa_gt_prob": 0.5, "step_log_probs": [-0.5, -0.25]},
                "shots": [shot(1, 0.0), shot(2, 1.0)],
            },
            {"pointer": [1, 3], "vqa_pred_answer": "a", "vqa_acc_score": 0, "vqa_correct": 0},
        ],
    },
    "2": {"pointer_candidates": [{"pointer": [0, 1], "vqa_acc_score": 1, "vqa_correct": 1}]},
}


def import_old(path: Path, content: bytes) -> None:
    """Import, compare with what the file says, and export and import again."""
    path.write_bytes(content)
    found = read_exchange(path, "pool", POOLS)
    holds(found.records)
    said = json.loads(content.decode("utf-8-sig"))
    for each in found.records:
        pool, given = POOLS.of(each.query_id), said[str(each.query_id)]["pointer_candidates"]
        modes = ("fallback", "error")
        given = [c for c in given if c.get("vqa_eval_mode") not in modes]
        given = [c for c in given if not c.get("eval_failed")]
        for one, two in zip(given, each.candidates, strict=True):
            assert [pool[i] for i in one["pointer"]] == list(two.pointer)
            assert one["vqa_acc_score"] == two.shots[-1].vqa_acc_score
            assert one.get("vqa_correct") in (None, two.shots[-1].vqa_correct)
            assert one.get("vqa_pred_answer", "") == two.shots[-1].answer
    out = path.with_name("again.json")
    write_exchange(out, found.records)
    assert read_exchange(out, None, POOLS).records == found.records
    out.unlink()


def test_damaged_json_of_the_older_system(tmp_path: Path, untouched: Path) -> None:
    rng, path = random.Random(3), tmp_path / "old.json"
    inputs = [*damaged(json.dumps(OLD, ensure_ascii=False).encode(), rng, 120)]
    inputs += [(what, json.dumps(rows).encode()) for what, rows in changed(OLD, rng, 300)]
    inputs += [(f"all is {value!r:.40}", json.dumps(value).encode()) for value in VALUES]
    tries = (
        Bad(what, lambda content=content: import_old(path, content), (path.name,))  # type: ignore[misc]
        for what, content in inputs
    )
    assert try_all("import-rl", tries, untouched)["refused"] > 200


def test_every_value_of_an_old_candidate_replaced(tmp_path: Path, untouched: Path) -> None:
    path = tmp_path / "old.json"

    def inputs() -> Iterator[Bad]:
        candidates = OLD["1"]["pointer_candidates"]  # type: ignore[index]
        for number, key in [(n, key) for n in (0, 1) for key in candidates[n]]:
            for value in (
                *VALUES,
                1.0,
                "0",
                "true",
                [True, False],
                [1.5, 2],
                ["1", "2"],
                3,
                -(10**400),
            ):
                rows: Any = copy.deepcopy(OLD)
                rows["1"]["pointer_candidates"][number][key] = value
                content = json.dumps(rows).encode()
                yield Bad(
                    f"{key} is {value!r:.40}",
                    lambda content=content: import_old(path, content),  # type: ignore[misc]
                    (path.name,),
                )

    try_all("import-rl, every field", inputs(), untouched)
