"""RL JSON of the older system: every variant is read, and what its numbers mean is not guessed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lever_plus.config.reward import RewardParams
from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.training.groups import groups_from_records
from lever_plus.training.rl_data.legacy_export import write_exchange
from lever_plus.training.rl_data.legacy_json import read_exchange, variant_of
from lever_plus.training.rl_data.records import Candidate, QueryRecord, Shot

POOLS = Pools(ids={7: (10, 11, 12, 13), 3: (13, 12, 10, 14)}, sha256="p" * 64)
Content = dict[str, Any]


def candidate(pointer: list[int], score: float = 0.6, **more: object) -> Content:
    return {
        "pointer": pointer,
        "gen_method": "beam",
        "vqa_pred_answer": "two",
        "vqa_correct": int(score > 0),
        "vqa_acc_score": score,
        **more,
    }


def plain(pointer: list[int], **more: Any) -> Content:
    return {"7": {"pointer_candidates": [candidate(pointer, **more)]}}


A = plain([2, 0])
B = plain([2, 0], vqa_eval_mode="vqaEval")
C = {"_meta": {"vqa_model": "qwen"}, **plain([12, 10], pointer_pos=[2, 0], eval_failed=False)}
D = {
    "7": {
        "candidate_pool_ids": [10, 11, 12, 13],
        "pointer_candidates": [candidate([2, 0], pointer_global=[12, 10])],
    }
}
E = plain([2, 0], gen_method="aug_diverse", vqa_eval_mode="val")
F = {"7": {"pointer_candidates": [{"pointer": [2, 0], "vqa_pred_answer": "a", "vqa_acc_score": 1}]}}
VARIANTS = {"A": A, "B": B, "C": C, "D": D, "E": E, "F": F}


def write(folder: Path, content: Content) -> Path:
    path = folder / "rl.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("letter", VARIANTS)
def test_a_variant_is_known_by_its_keys(letter: str) -> None:
    assert variant_of(VARIANTS[letter]) == letter


@pytest.mark.parametrize("letter", sorted(VARIANTS.keys() - {"D"}))
def test_without_an_index_space_it_is_refused_with_an_explanation(
    tmp_path: Path, letter: str
) -> None:
    with pytest.raises(UserError, match=f"is variant {letter}: .*--index-space global"):
        read_exchange(write(tmp_path, VARIANTS[letter]), None, POOLS)


def test_a_file_with_positions_and_ids_says_itself_what_its_pointers_count(tmp_path: Path) -> None:
    (record,) = read_exchange(write(tmp_path, D), None, POOLS).records
    assert record.candidates[0].pointer == (12, 10)


@pytest.mark.parametrize("lacking", ["pointer_global", "candidate_pool_ids"])
def test_positions_or_ids_alone_leave_it_open(tmp_path: Path, lacking: str) -> None:
    """If a candidate has no ids or a query no pool, another tool may have written the file."""
    content = json.loads(json.dumps(D))
    content["7"]["pointer_candidates"].append(candidate([1, 3], pointer_global=[11, 13]))
    holder = content["7"]["pointer_candidates"][1] if "global" in lacking else content["7"]
    del holder[lacking]
    with pytest.raises(UserError, match="is variant D: .*--index-space global"):
        read_exchange(write(tmp_path, content), None, POOLS)


def test_ids_that_are_not_at_the_positions_are_refused(tmp_path: Path) -> None:
    content = json.loads(json.dumps(D))
    content["7"]["pointer_candidates"][0]["pointer_global"] = [12, 11]
    with pytest.raises(UserError, match=r"but pointer_global is \[12, 11\]"):
        read_exchange(write(tmp_path, content), None, POOLS)


@pytest.mark.parametrize("letter", VARIANTS)
def test_pointers_become_example_ids(tmp_path: Path, letter: str) -> None:
    path = write(tmp_path, VARIANTS[letter])
    imported = read_exchange(path, "global" if letter == "C" else "pool", POOLS)
    (record,) = imported.records
    assert (record.query_id, record.candidates[0].pointer) == (7, (12, 10))
    assert [shot.shot for shot in record.candidates[0].shots] == [2]
    assert record.candidates[0].shots[0].vqa_correct == 1
    assert imported.meta.records == 1


def test_positions_outside_the_pool_are_no_positions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="query 7: pointer .* holds 12, but the pool has only 4"):
        read_exchange(write(tmp_path, C), "pool", POOLS)


def test_ids_outside_the_pool_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PointerError, match="query 7: example 2 of the pointer is not in its pool"):
        read_exchange(write(tmp_path, A), "global", POOLS)
    with pytest.raises(PointerError, match="query 7: pointer .* names an example twice"):
        read_exchange(write(tmp_path, plain([2, 2])), "pool", POOLS)


def test_two_kinds_of_index_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    pools = Pools(ids={7: (2, 0, 12, 10)}, sha256="q" * 64)
    content = json.loads(json.dumps(D))
    content["7"]["candidate_pool_ids"] = [2, 0, 12, 10]
    content["7"]["pointer_candidates"][0]["pointer_global"] = [12, 2]
    read_exchange(write(tmp_path, content), "pool", pools)
    with pytest.raises(UserError, match="but pointer_global is "):
        read_exchange(write(tmp_path, content), "global", pools)


def test_another_pool_than_the_file_s_is_refused(tmp_path: Path) -> None:
    pools = Pools(ids={7: (11, 10, 12, 13)}, sha256="q" * 64)
    with pytest.raises(UserError, match="query 7: candidate_pool_ids differ from"):
        read_exchange(write(tmp_path, D), "pool", pools)


@pytest.mark.parametrize("bad", [{"vqa_eval_mode": "fallback"}, {"eval_failed": True}], ids=str)
def test_scores_that_are_no_accuracy_are_left_out_and_counted(tmp_path: Path, bad: Content) -> None:
    content = plain([2, 0], **bad)
    content["7"]["pointer_candidates"].append(candidate([1, 3]))
    imported = read_exchange(write(tmp_path, content), "pool", POOLS)
    assert imported.skipped == 1
    assert [c.pointer for c in imported.records[0].candidates] == [(11, 13)]


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the six variants"):
        read_exchange(write(tmp_path, {"questions": []}), "pool", POOLS)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="bad.json is not valid JSON"):
        read_exchange(tmp_path / "bad.json", "pool", POOLS)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: c.pop("vqa_acc_score"), "vqa_acc_score is missing"),
        (lambda c: c.update(vqa_acc_score=3.0), "vqa_acc_score: input should be less than"),
        (lambda c: c.update(pointer=["x", 0]), r"pointer\.0: input should be a valid integer"),
        (lambda c: c.update(pointer=None), "pointer: input should be a valid tuple, not None"),
        (lambda c: c.update(pointer=[True, False]), r"pointer\.0: .* not True"),
        (lambda c: c.update(pointer=[2, 1.5]), r"pointer\.1: .* not 1\.5"),
        (lambda c: c.update(pointer=["2", "0"]), r"pointer\.0: .* not '2'"),
        (lambda c: c.update(vqa_correct="0"), "vqa_correct: it should be 0 or 1, not '0'"),
        (lambda c: c.update(vqa_correct=1.0), "vqa_correct: it should be 0 or 1, not 1.0"),
        (lambda c: c.update(vqa_correct=True), "vqa_correct: it should be 0 or 1, not True"),
        (lambda c: c.update(vqa_correct=0), "vqa_correct 0, but vqa_acc_score 0.6"),
        (lambda c: c.update(vqa_acc_score=0), "vqa_correct 1, but vqa_acc_score 0.0"),
        (lambda c: c.update(vqa_pred_answer=None), "vqa_pred_answer: .* not None"),
        (lambda c: c.update(vqa_eval_mode="guess"), "vqa_eval_mode: .* not 'guess'"),
        (lambda c: c.update(eval_failed="no"), "eval_failed: .* not 'no'"),
        (lambda c: c.update(gen_method="dream"), "gen_method: .* not 'dream'"),
        (lambda c: c.update(temperature=0), "temperature is 0.0, but it must be above 0"),
        (lambda c: c.update(beam_score=0.5), "a log-probability is not between"),
    ],
)
def test_a_damaged_candidate_names_file_and_query(
    tmp_path: Path, damage: Callable[[Content], object], reason: str
) -> None:
    content = json.loads(json.dumps(A))
    damage(content["7"]["pointer_candidates"][0])
    with pytest.raises(UserError, match=rf"rl.json: 7\.pointer_candidates\.0: .*{reason}"):
        read_exchange(write(tmp_path, content), "pool", POOLS)


def test_a_query_that_is_no_id_is_named(tmp_path: Path) -> None:
    for key in ("seven", "07", "+7", " 7", "7_0", "\u0667", "7" * 5_000):
        with pytest.raises(UserError, match=r"rl.json: .* is not a query id"):
            read_exchange(write(tmp_path, {key: A["7"]}), "pool", POOLS)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[]", "rl.json does not hold a JSON object"),
        ("null", "rl.json does not hold a JSON object"),
        ('{"7": null}', "rl.json: the file does not map"),
        ('{"7": {"pointer_candidates": null}}', "rl.json: the file does not map"),
        ('{"7": {"pointer_candidates": [null]}}', "rl.json: the file does not map"),
        ('{"7": {"pointer_candidates": []}, "7": {}}', "the key '7' occurs twice"),
        ('{"-0": {"pointer_candidates": []}}', "-0 is not a query"),
        ('{"-7": {"pointer_candidates": []}}', "-7 is not a query id"),
        ('{"7": {"pointer_candidates": [], "query": []}}', "rl.json: 7: query"),
        ('{"_meta": [], "7": {"pointer_candidates": []}}', "rl.json: _meta"),
        ('{"7": {"pointer_candidates": [], "candidate_pool_ids": [10.0]}}', "candidate_pool_ids.0"),
        ('{"7": {"pointer_candidates": [{"vqa_acc_score": NaN}]}}', "NaN is not a number"),
        ("{}", "nothing to import"),
        ("[" * 100_000, "rl.json: nested too deeply"),
    ],
)
def test_other_shapes_are_refused_with_their_place(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "rl.json").write_text(text)
    with pytest.raises(UserError, match=place):
        read_exchange(tmp_path / "rl.json", "pool", POOLS)


def test_positions_beside_pointers_must_be_theirs(tmp_path: Path) -> None:
    content = plain([12, 10], pointer_pos=[2, 1])
    with pytest.raises(UserError, match=r"query 7: .*\[2, 0\], but pointer_pos is \[2, 1\]"):
        read_exchange(write(tmp_path, content), "global", POOLS)


def test_an_export_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """It is written while the data are read, so a lack in them is found late."""
    path = tmp_path / "out.json"
    path.write_text("before")
    records = read_exchange(write(tmp_path, A), "pool", POOLS).records

    def damaged() -> Iterator[QueryRecord]:
        yield from records
        raise UserError("line 2 is damaged")

    with pytest.raises(UserError, match="line 2"):
        write_exchange(path, damaged())
    assert path.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "rl.json"]


def scored(pointer: tuple[int, ...], *scores: float, **more: Any) -> Candidate:
    """Return a candidate with an outcome at every shot."""
    shots = tuple(
        Shot(
            shot=number,
            answer=f"answer {number}",
            vqa_correct=1 if score else 0,
            vqa_acc_score=score,
            fallback=number == 3,
            vqa_gt_prob=score / 2,
            vqa_rel_score=None if number == 1 else 0.25,
        )
        for number, score in enumerate(scores, start=1)
    )
    known: dict[str, Any] = {"gen_method": "sample", "temperature": 1.3, "step_log_probs": None}
    return Candidate(pointer=pointer, shots=shots, **{**known, **more})


RECORDS = [
    QueryRecord(
        query_id=7,
        question_id=70,
        pool=POOLS.of(7),
        candidates=(
            scored((12, 10, 13), 0.3, 1.0, 0.0, step_log_probs=(-0.5, -0.1, -0.7)),
            scored((12, 10), 0.3, 1.0, gen_method="beam", temperature=None, log_prob=-2.5),
            scored((12, 10, 11), 0.3, 1.0, 0.9, gen_method="stochastic_beam"),
        ),
    ),
    QueryRecord(
        query_id=3, question_id=3, pool=POOLS.of(3), candidates=(scored((14, 13), 0.0, 0.6),)
    ),
]


def test_an_export_comes_back_as_it_was(tmp_path: Path) -> None:
    """Pools, every shot, the origin of every pointer and the log-probabilities of its picks."""
    assert write_exchange(tmp_path / "out.json", RECORDS) == 2
    again = read_exchange(tmp_path / "out.json", None, POOLS)
    assert (again.variant, again.skipped) == ("D", 0)
    assert again.records == RECORDS


def test_an_export_is_what_the_older_system_reads(tmp_path: Path) -> None:
    write_exchange(tmp_path / "out.json", RECORDS)
    group = json.loads((tmp_path / "out.json").read_text())["7"]
    assert group["candidate_pool_ids"] == [10, 11, 12, 13]
    assert group["query"] == {"query_id": 7, "question_id": 70}
    first = group["pointer_candidates"][0]
    assert (first["pointer"], first["pointer_global"]) == ([2, 0, 3], [12, 10, 13])
    own = {key: first[key] for key in ("vqa_pred_answer", "vqa_correct", "vqa_acc_score")}
    assert own == {"vqa_pred_answer": "answer 3", "vqa_correct": 0, "vqa_acc_score": 0.0}
    assert first["vqa_eval_mode"] == "fallback"


def test_an_export_cut_to_two_picks_has_the_scores_of_the_second(tmp_path: Path) -> None:
    """The older system trains on pairs; pointers that begin alike become the same pair."""
    write_exchange(tmp_path / "out.json", RECORDS, shot=2)
    cut = read_exchange(tmp_path / "out.json", None, POOLS).records
    assert [c.pointer for c in cut[0].candidates] == [(12, 10)] * 3
    for before, after in zip(RECORDS[0].candidates, cut[0].candidates, strict=True):
        assert after.shots == before.shots[:2]
    assert [c.step_log_probs for c in cut[0].candidates] == [(-0.5, -0.1), None, None]
    assert [c.log_prob for c in cut[0].candidates] == [None, -2.5, None]
    assert cut[1] == RECORDS[1]


def test_an_export_is_not_cut_where_there_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"query 7: pointer \[12, 10\] has no score at shot 3"):
        write_exchange(tmp_path / "out.json", RECORDS, shot=3)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: c.update(vqa_pred_answer="other"), "its last shot does not have"),
        (lambda c: c.update(vqa_eval_mode="vqaEval"), "its last shot does not have"),
        (lambda c: c["shots"].pop(), "its last shot does not have"),
        (lambda c: c["shots"].clear(), "shots: "),
        (lambda c: c["shots"].pop(0) and c["shots"].reverse(), "its last shot does not have"),
        (lambda c: c["shots"][0].update(shot=2), r"shots are \[2, 2, 3\]"),
        (lambda c: c["shots"][0].update(vqa_correct=0), "shot 1 has vqa_correct 0"),
        (lambda c: c["shots"][1].update(vqa_correct=True), r"shots\.1\.vqa_correct: .* not True"),
        (lambda c: c["shots"][1].pop("fallback"), r"shots\.1\.fallback is missing"),
        (lambda c: c["step_log_probs"].pop(), "those of its steps sum to"),
        (lambda c: c.update(step_log_probs=[-1.3], logprob_score=None), "differ in length"),
        (lambda c: c.update(logprob_score=-1.0), "those of its steps sum to -1.29"),
    ],
)
def test_a_damaged_export_is_refused(
    tmp_path: Path, damage: Callable[[Content], object], reason: str
) -> None:
    write_exchange(tmp_path / "out.json", RECORDS)
    content = json.loads((tmp_path / "out.json").read_text())
    damage(content["7"]["pointer_candidates"][0])
    with pytest.raises(UserError, match=rf"rl.json: 7\.pointer_candidates\.0: .*{reason}"):
        read_exchange(write(tmp_path, content), None, POOLS)


def test_candidates_without_a_known_origin_come_back_from_an_export(tmp_path: Path) -> None:
    first = read_exchange(write(tmp_path, F), "pool", POOLS)
    assert first.records[0].candidates[0].gen_method == "augmented"
    write_exchange(tmp_path / "out.json", first.records)
    assert read_exchange(tmp_path / "out.json", None, POOLS).records == first.records


@pytest.mark.invariant
def test_optional_scores_and_the_total_log_prob_come_through(tmp_path: Path) -> None:
    """Rewards of other modes need them."""
    scores = {"vqa_gt_prob": 0.25, "vqa_rel_score": 0.5, "temperature": 1.3}
    content = plain([2, 0], beam_score=None, logprob_score=-2.5, **scores)
    (record,) = read_exchange(write(tmp_path, content), "pool", POOLS).records
    (found,) = record.candidates
    assert (found.temperature, found.log_prob, found.total_log_prob) == (1.3, -2.5, -2.5)
    assert found.step_log_probs is None
    assert (found.shots[0].vqa_gt_prob, found.shots[0].vqa_rel_score) == (0.25, 0.5)
    (beam,) = read_exchange(write(tmp_path, plain([2, 0], beam_score=-1.5)), "pool", POOLS).records
    assert beam.candidates[0].total_log_prob == -1.5


def test_imported_data_train_on_the_last_shot(tmp_path: Path) -> None:
    """The older system's reward is that of two shots: weights 0 and 1."""
    imported = read_exchange(write(tmp_path, A), "pool", POOLS)
    reward = RewardParams(soft=1.0, clip=1.0, shot_weights=[0.0, 1.0])
    groups = groups_from_records(imported.records, POOLS, reward)
    assert groups.pointers.tolist() == [[[2, 0]]]
    assert groups.rewards.tolist() == [[[0.0, pytest.approx(0.6)]]]
