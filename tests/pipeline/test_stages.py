"""Every stage on the formula world: who is asked, what is trained, and that each part is wired.

Nothing is chosen on test questions, trained policies are between random and the best there is, and
every number of the tables is that of the checkpoint and the setting that it names.
"""

import hashlib
import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.pipeline import rl_data
from lever_plus.pipeline.paths import HISTORY, weights_of
from lever_plus.pipeline.searches import read_searches
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.decoding import beam, sample
from lever_plus.selectors.baselines import fixed_candidates
from lever_plus.tracking.history import read_history
from lever_plus.training.environment import Environment
from lever_plus.training.rl_data.records import read_rl_data, write_rl_data
from lever_plus.vlm.request import Request
from pipeline.formula import accuracy, card_of, likelihood, reachable, splits_of
from pipeline.formula_world import INSTRUCTIONS, KilledError, Ran, World

METHODS = {
    "sft": ("sft", "sft-beams"),
    "rce": ("rce", "rce-seed", "agro"),
    "grpo": ("grpo", "grpo-stop"),
}
"""{stage: what it trains}."""
TRAINED = [*itertools.product(itertools.chain(*METHODS.values()), (1, 2))]


def table(world: World) -> pd.DataFrame:
    return pd.read_parquet(world.paths.scores)


def metrics(world: World, name: str) -> Any:
    return json.loads((world.paths.metrics / name).read_text())


def of_training(world: World, method: str, seed: int) -> Any:
    """Return what its stage's metrics file says about one training."""
    (stage,) = (stage for stage, methods in METHODS.items() if method in methods)
    return metrics(world, f"{stage}/seed{seed}.json")[method]


def weights(workspace: Workspace, folder: Path) -> Tensor:
    return torch.cat([w.detach().flatten() for w in workspace.load_policy(folder).parameters()])


def rows_of(world: World, method: str, seed: int) -> list[dict[str, Any]]:
    return list(read_history(world.paths.trained(method, seed) / HISTORY))


def accuracies(workspace: Workspace, folder: Path, questions: list[Example]) -> np.ndarray:
    """Return what the greedy pointers of a checkpoint give by the formula, [questions, shots]."""
    pools = workspace.pools_of(questions)
    queries = [question.query for question in questions]
    found = workspace.selector(folder).select_all(queries, pools, 2)
    pairs = list(zip(questions, found, strict=True))
    return np.array([[accuracy(s.examples[:k], q) for k in (1, 2)] for q, s in pairs])


def pointer_rows(world: World, method: str, seed: int) -> dict[int, tuple[int, ...]]:
    part = table(world)
    part = part[(part["method"] == method) & (part["seed"] == seed) & (part["shot"] == 2)]
    return {query: tuple(p) for query, p in zip(part["query_id"], part["pointer"], strict=True)}


@pytest.mark.parametrize(
    ("stage", "asked"),
    [
        ("prepare", set()),
        ("in_context", set()),
        ("embed", set()),
        ("pool", set()),
        ("sft_data", {"train"}),
        ("sft", {"dev"}),
        ("rl_data", {"train"}),
        ("rce", {"dev"}),
        ("grpo", {"train", "dev"}),
        ("evaluate", {"test", "dev"}),
        ("report", set()),
    ],
)
def test_a_stage_asks_questions_of_its_own_splits_and_shows_training_examples(
    ran: Ran, stage: str, asked: set[str]
) -> None:
    queries, shown = splits_of(ran.asked[stage])
    assert queries == asked
    assert shown == ({"train"} if asked else set())


def test_training_questions_are_the_first_that_params_yaml_counts(ran: Ran) -> None:
    workspace = ran.world.workspace()
    for stage, count in (("sft_data", 48), ("rl_data", 72), ("grpo", 72)):
        asked = {request.query for request in ran.asked[stage]}
        train = {e.query for e in workspace.of_split("train")}
        assert asked & train == {e.query for e in workspace.of_split("train", count)}


def drawn_pointers(workspace: Workspace) -> list[tuple[Example, ...]]:
    pools = [workspace.pools.of(query) for query in workspace.queries("dev")]
    drawn = fixed_candidates(pools, 2, 6, 1)
    return [tuple(workspace.examples[i] for i in pointer) for pointer in drawn]


def test_evaluation_asks_dev_for_the_fixed_pointers_and_instructions_alone(ran: Ran) -> None:
    workspace = ran.world.workspace()
    wanted = {
        Request(pointer[:shot], example.query)
        for pointer in drawn_pointers(workspace)
        for example in workspace.of_split("dev")
        for shot in (0, 1, 2)
    }
    assert {r for r in ran.asked["evaluate"] if card_of(r.query).split == "dev"} == wanted


def test_the_fixed_pointer_is_the_best_on_dev_of_those_that_were_drawn(ran: Ran) -> None:
    workspace = ran.world.workspace()
    pointers = drawn_pointers(workspace)

    def best(split: str) -> tuple[int, ...]:
        means = [
            np.mean([accuracy(p[:k], e) for e in workspace.of_split(split) for k in (1, 2)])
            for p in pointers
        ]
        return tuple(e.question_id for e in pointers[int(np.argmax(means))])

    assert best("dev") not in (best("test"), best("train"))
    assert set(pointer_rows(ran.world, "fixed", 0).values()) == {best("dev")}


def test_the_instruction_is_the_first_of_the_best_on_dev(ran: Ran) -> None:
    """Another pointer is best on test, and a later one is equally good on dev."""
    world, workspace = ran.world, ran.world.workspace()
    texts = ["", *INSTRUCTIONS]

    def means(split: str) -> list[float]:
        asked = workspace.of_split(split)
        return [float(np.mean([accuracy((), e, text) for e in asked])) for text in texts]

    dev, test = means("dev"), means("test")
    assert (dev.index(max(dev)), dev.count(max(dev)), test.index(max(test))) == (2, 2, 1)
    rows = metrics(world, "diagnostics.json")["instructions"]
    assert [row["instruction"] for row in rows] == texts
    assert [row["accuracy"] for row in rows] == pytest.approx(dev, abs=1e-6)
    assert [row["chosen"] for row in rows] == [False, False, True, False]
    assert metrics(world, "accuracy.json")["instructed"] == {
        "shots_0": pytest.approx(test[2], abs=1e-6)
    }
    html = (world.paths.report / "index.html").read_text()
    assert all(f"<td>{text}</td>" in html for text in texts)


def test_without_instructions_there_is_no_such_method(ran: Ran, tmp_path: Path) -> None:
    moved = {"evaluate": tmp_path / "evaluate"}
    world = ran.world.changed({"evaluate": {"instructions": []}}, moved, tmp_path)
    shutil.copytree(ran.world.paths.metrics, world.paths.metrics)
    world.run("evaluate")
    methods = {row["name"] for row in metrics(world, "summary.json")["methods"]}
    before = {row["name"] for row in metrics(ran.world, "summary.json")["methods"]}
    assert before - methods == {"instructed"}
    assert metrics(world, "diagnostics.json")["instructions"] == []


def test_the_searches_have_the_infoscore_of_the_formula(ran: Ran) -> None:
    workspace, params = ran.world.workspace(), ran.world.params
    found = read_searches(ran.world.paths.searches)
    assert list(found) == workspace.queries("train", params.data.sft_queries)
    for query, scored in found.items():
        asked = workspace.examples[query]
        base = np.exp(likelihood(Request((), asked.query, asked.answer)))
        for each in scored:
            for last, score in zip(each.candidates, each.info_scores, strict=True):
                shown = tuple(workspace.examples[i] for i in (*each.prefix, last))
                gain = np.exp(likelihood(Request(shown, asked.query, asked.answer))) - base
                assert score == pytest.approx(gain, abs=1e-5)
        assert [len(each.prefix) for each in scored] == [0] + [1] * params.sft_data.beam
        (first, *others) = scored
        best = sorted(zip(first.info_scores, first.candidates, strict=True), reverse=True)
        kept = [first.info_scores[first.candidates.index(*each.prefix)] for each in others]
        assert kept == [score for score, _ in best[: len(others)]]


@pytest.mark.parametrize(("place", "step", "kept"), [(-1, -0.1, False), (2, 0.01, True)])
def test_all_scores_of_the_searches_teach_and_to_beams_those_that_were_kept(
    ran: Ran, tmp_path: Path, place: int, step: float, kept: bool
) -> None:
    """Another score of one whole sequence, by its place among them; three are kept."""
    folder, searches = tmp_path / "sft_data", ran.world.paths.searches
    shutil.copytree(searches.parent, folder)
    first, *others = searches.read_text().splitlines()
    row = json.loads(first)
    whole = [each["info_scores"] for each in row["scored"] if len(each["prefix"]) == 1]
    places = [(scores, i) for scores in whole for i in range(len(scores))]
    places.sort(key=lambda found: found[0][found[1]], reverse=True)
    scores, number = places[place]
    scores[number] += step
    (folder / searches.name).write_text("\n".join([json.dumps(row), *others]) + "\n")
    moved = {"sft_data": folder, "sft": tmp_path / "sft"}
    other = ran.world.changed({}, moved, tmp_path)
    other.run("sft", seed=1)
    workspace = ran.world.workspace()
    for method, taught in {"sft": True, "sft-beams": kept}.items():
        mine, theirs = (world.paths.trained(method, 1) for world in (ran.world, other))
        assert weights(workspace, mine).equal(weights(workspace, theirs)) is not taught


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rl_data_are_scored_by_the_formula_and_come_from_the_seed_s_sft_policy(
    ran: Ran, seed: int
) -> None:
    world, workspace = ran.world, ran.world.workspace()
    proposer = world.paths.trained("sft", seed)
    meta, records = read_rl_data(world.paths.rl_data(seed), workspace.pools)
    own = weights_of(proposer).read_bytes()
    assert meta.policy_sha256 == hashlib.sha256(own).hexdigest()
    asked = [workspace.examples[record.query_id] for record in records]
    decoded = workspace.selector(proposer).decode(
        [example.query for example in asked],
        workspace.pools_of(asked),
        2,
        lambda policy, encoded, shots: beam(policy, encoded, shots, 3),
    )
    counts = {"beam": 3, "sample": 5, "random": 3}
    for record, example, beams in zip(records, asked, decoded, strict=True):
        assert Counter(c.gen_method for c in record.candidates) == counts
        temperatures = Counter(c.temperature for c in record.candidates)
        assert temperatures == {None: 6, 1.0: 3, 1.3: 2}
        for candidate in record.candidates:
            shown = [workspace.examples[i] for i in candidate.pointer]
            given = [shot.vqa_acc_score for shot in candidate.shots]
            assert given == [accuracy(shown[:k], example) for k in (1, 2)]
        listed = [c.pointer for c in record.candidates if c.gen_method == "beam"]
        assert listed == [tuple(e.question_id for e in b.examples) for b in beams]


def test_rl_data_made_part_by_part_are_the_same_and_no_part_asks_more(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    score = Environment.score

    def counted(self: Environment, queries: list[int], *rest: Any) -> Any:
        sizes.append(len(set(queries)))
        return score(self, queries, *rest)

    monkeypatch.setattr(rl_data, "PART", 10)
    monkeypatch.setattr(Environment, "score", counted)
    moved = ran.world.changed({}, {"rl_data": tmp_path / "rl_data"}, tmp_path)
    moved.run("rl_data", seed=1)
    assert sizes == [10] * 7 + [2]
    for name in ("records.jsonl", "meta.json", "schema.json"):
        whole = (ran.world.paths.rl_data(1) / name).read_bytes()
        assert (moved.paths.rl_data(1) / name).read_bytes() == whole


def test_what_is_drawn_for_the_rl_data_is_drawn_with_the_training_seed(ran: Ran) -> None:
    """Random candidates do not depend on the policy that proposes the others."""
    drawn = [
        [c.pointer for r in records for c in r.candidates if c.gen_method == "random"]
        for seed in (1, 2)
        for _, records in [read_rl_data(ran.world.paths.rl_data(seed), ran.world.workspace().pools)]
    ]
    assert len(drawn[0]) == len(drawn[1]) == 3 * 72
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("method", "seed"), TRAINED)
def test_a_training_changes_its_policy_and_reaches_more_than_its_start(
    ran: Ran, method: str, seed: int
) -> None:
    world, workspace = ran.world, ran.world.workspace()
    dev = workspace.of_split("dev")
    best, random = reachable(dev, workspace.pools_of(dev), 2).mean(axis=1)
    mine = accuracies(workspace, world.paths.trained(method, seed), dev).mean()
    rows = [row for row in rows_of(world, method, seed) if "dev_reward" in row]
    assert mine == pytest.approx(max(rows, key=lambda row: row["dev_reward"])["dev_accuracy"])
    assert random + 0.25 < mine < best
    assert max(row["dev_reward"] for row in rows) > rows[0]["dev_reward"]
    if method not in (*METHODS["sft"], "grpo-stop"):  # which has a head that its start lacks
        start = world.paths.trained("rce" if method == "grpo" else "sft", seed)
        moved = weights(workspace, world.paths.trained(method, seed)) - weights(workspace, start)
        assert moved.abs().max() > 1e-3


def test_no_two_trainings_give_the_same_policy(ran: Ran) -> None:
    workspace = ran.world.workspace()
    found = [weights(workspace, ran.world.paths.trained(*each)) for each in TRAINED]
    for one, other in itertools.combinations(found, 2):
        assert not one.equal(other)


def test_a_training_starts_from_the_best_epoch_of_the_one_before(ran: Ran) -> None:
    world = ran.world
    for seed in (1, 2):
        imitation = metrics(world, f"sft/seed{seed}.json")
        best = imitation["sft"]["dev_reward"]
        assert best != imitation["sft-beams"]["dev_reward"]
        for method in METHODS["rce"]:
            assert rows_of(world, method, seed)[0]["dev_reward"] == pytest.approx(best)
        off_line = metrics(world, f"rce/seed{seed}.json")
        assert rows_of(world, "grpo", seed)[0]["dev_reward"] == pytest.approx(
            off_line["rce"]["dev_reward"]
        )
        assert off_line["rce"]["dev_reward"] != off_line["agro"]["dev_reward"]


def test_a_seed_s_chain_reads_nothing_of_another_seed(ran: Ran, tmp_path: Path) -> None:
    """If the outputs of seed 1 are missing, seed 2 still gives the same bytes."""
    chain = ("sft", "rl_data", "rce", "grpo")
    alone = ran.world.changed({}, {stage: tmp_path / stage for stage in chain}, tmp_path)
    first, again = (world.paths.trained("sft", 2) for world in (ran.world, alone))
    shutil.copytree(first, again)
    for stage in chain[1:]:
        alone.run(stage, seed=2)
    for stage in chain:
        assert [path.name for path in (tmp_path / stage).iterdir()] == ["seed2"]
    whole, own = ran.world.paths, alone.paths
    assert own.records(2).read_bytes() == whole.records(2).read_bytes()
    for method in (*METHODS["rce"], *METHODS["grpo"]):
        mine = weights_of(own.trained(method, 2)).read_bytes()
        assert mine == weights_of(whole.trained(method, 2)).read_bytes()


def test_a_metrics_file_says_which_epoch_is_best_on_dev(ran: Ran) -> None:
    """Its reward is the checkpoint's by the reward formula: hard and soft at both shots."""
    workspace = ran.world.workspace()
    dev = workspace.of_split("dev")
    for method, seed in TRAINED:
        said = of_training(ran.world, method, seed)
        if method == "grpo-stop":  # it pays for demonstrations
            continue
        soft = accuracies(workspace, ran.world.paths.trained(method, seed), dev)
        assert said["dev_reward"] == pytest.approx((soft + (soft > 0)).mean(), abs=1e-5)
        rows = {row["epoch"]: row for row in rows_of(ran.world, method, seed)}
        assert rows[said["best_epoch"]]["dev_reward"] == pytest.approx(said["dev_reward"])


def test_metrics_files_count_what_was_asked(ran: Ran) -> None:
    """The formula has no store in front of it, so it sees every request."""
    for stage, methods in METHODS.items():
        trained = [one for one in TRAINED if one[0] in methods]
        said = [of_training(ran.world, *one)["vlm_requests"] for one in trained]
        assert sum(said) == len(ran.asked[stage])
        assert [rows_of(ran.world, *one)[-1]["vlm_requests"] for one in trained] == said
    for stage, names in {
        "sft_data": ["sft_data.json"],
        "rl_data": [f"rl_data/seed{seed}.json" for seed in (1, 2)],
    }.items():
        said = [metrics(ran.world, name)["vlm_requests"] for name in names]
        assert sum(said) == len(ran.asked[stage])


def test_what_a_method_costs_is_all_that_it_is_made_of(ran: Ran) -> None:
    means = metrics(ran.world, "summary.json")["means"]
    said = {row["method"]: row.get("vlm_requests") for row in means}

    def own(method: str) -> float:
        each = [of_training(ran.world, method, seed)["vlm_requests"] for seed in (1, 2)]
        return float(np.mean(each))

    searched = len(ran.asked["sft_data"])
    lists = searched + own("sft") + len(ran.asked["rl_data"]) / 2
    for method in METHODS["sft"]:
        assert said[method] == searched + own(method)
    for method in METHODS["rce"]:
        assert said[method] == lists + own(method)
    start = ran.world.params.grpo.start
    assert said["grpo"] == lists + own(start) + own("grpo")
    assert said["grpo-stop"] == said["grpo"] + own("grpo-stop")
    on_dev = [r for r in ran.asked["evaluate"] if card_of(r.query).split == "dev"]
    assert said["fixed"] == sum(bool(r.demonstrations) for r in on_dev)
    assert said["random"] == said["sttr"] == said["vote"] == 0
    without = [r for r in metrics(ran.world, "summary.json")["rows"] if r["shots"] == 0]
    assert [(r["method"], r["demonstrations"], r["vlm_requests"]) for r in without] == [
        ("zero-shot", 0, 0),
        ("instructed", 0, sum(not r.demonstrations for r in on_dev)),
    ]
    assert said["oracle"] is said["best-of-4"] is None
    stopping = ("grpo-stop", "sttr-as-many")
    assert {row["demonstrations"] for row in means if row["method"] not in stopping} == {1.5}
    (of_stop, of_similarity) = (
        next(row["demonstrations"] for row in means if row["method"] == name) for name in stopping
    )
    assert of_stop == of_similarity < 1.5
    # A formula has no tokens; the vote has no prompt.
    tokens = {row["method"]: row["prompt_tokens"] for row in means}
    assert {method for method, value in tokens.items() if value is not None} == {"vote"}
    assert tokens["vote"] == 0


def test_selections_are_timed_where_no_true_answer_is_seen(ran: Ran) -> None:
    timing = metrics(ran.world, "timing.json")
    methods = {row["method"] for row in metrics(ran.world, "summary.json")["means"]}
    assert timing.keys() == methods - {"vote", "oracle", "best-of-4"}
    assert all(0 < milliseconds < 1000 for milliseconds in timing.values())


def test_the_evaluation_needs_to_know_what_training_asked(ran: Ran, tmp_path: Path) -> None:
    """The SFT policies exist, but their metrics files do not."""
    moved = {"sft": ran.world.paths.of("sft"), "evaluate": tmp_path / "evaluate"}
    world = ran.world.changed({}, moved, tmp_path)
    with pytest.raises(UserError, match=r"sft/seed1\.json.*dvc repro evaluate"):
        world.run("evaluate")


def test_every_rce_schedule_trains_with_its_own_tau(ran: Ran) -> None:
    for method, (start, end) in {"rce": (0.4, 0.1), "rce-seed": (2.0, 0.5)}.items():
        for seed in (1, 2):
            taus = [row["tau"] for row in rows_of(ran.world, method, seed)[1:]]
            assert np.mean(taus) == pytest.approx((start + end) / 2)
            assert taus == sorted(taus, reverse=True)


def test_grpo_starts_from_the_method_that_params_yaml_names(ran: Ran, tmp_path: Path) -> None:
    other = ran.world.changed({"grpo": {"start": "agro"}}, {"grpo": tmp_path}, tmp_path)
    other.run("grpo")
    for seed in (1, 2):
        best = metrics(ran.world, f"rce/seed{seed}.json")["agro"]["dev_reward"]
        assert rows_of(other, "grpo", seed)[0]["dev_reward"] == pytest.approx(best)


def test_only_candidates_of_the_named_generators_are_trained_on(ran: Ran, tmp_path: Path) -> None:
    """A training gives the same result as without the other trainings."""
    filtered = ran.world.changed(
        {"rl": {"filter_gen_methods": ["beam", "random"]}}, {"rce": tmp_path / "rce"}, tmp_path
    )
    filtered.run("rce", seed=1)
    workspace = ran.world.workspace()
    meta, records = read_rl_data(ran.world.paths.rl_data(1), workspace.pools)
    kept = [
        r.model_copy(
            update={"candidates": tuple(c for c in r.candidates if c.gen_method != "sample")}
        )
        for r in records
    ]
    write_rl_data(tmp_path / "rl_data" / "seed1", meta, kept)
    moved = {"rce": tmp_path / "rce-by-hand", "rl_data": tmp_path / "rl_data"}
    by_hand = ran.world.changed({}, moved, tmp_path)
    by_hand.run("rce", seed=1)
    for method in METHODS["rce"]:
        mine = weights(workspace, filtered.paths.trained(method, 1))
        assert mine.equal(weights(workspace, by_hand.paths.trained(method, 1)))
        assert not mine.equal(weights(workspace, ran.world.paths.trained(method, 1)))


@pytest.mark.parametrize("stage", ["rce", "grpo"])
def test_constant_groups_are_trained_on_where_params_yaml_keeps_them(
    ran: Ran, stage: str, tmp_path: Path
) -> None:
    kept = ran.world.changed(
        {"rl": {"constant_groups": "keep"}}, {stage: tmp_path / stage}, tmp_path
    )
    kept.run(stage, seed=1)
    for method in ("rce", "rce-seed", "agro") if stage == "rce" else ("grpo",):
        mine, other = (rows_of(world, method, 1)[1] for world in (kept, ran.world))
        assert mine["frac_reward_zero_std"] == other["frac_reward_zero_std"] > 0
        assert mine["loss"] != other["loss"]


@pytest.mark.parametrize(("method", "seed"), TRAINED)
def test_the_rows_of_a_method_and_seed_are_those_of_its_own_checkpoint(
    ran: Ran, method: str, seed: int
) -> None:
    world, workspace = ran.world, ran.world.workspace()
    test = workspace.of_split("test")
    price = world.params.pointer.price if method == "grpo-stop" else None
    found = workspace.selector(world.paths.trained(method, seed), price).select_all(
        [e.query for e in test], workspace.pools_of(test), 2
    )
    own = {
        e.question_id: tuple(shown.question_id for shown in selection.examples)
        for e, selection in zip(test, found, strict=True)
    }
    assert pointer_rows(world, method, seed) == own
    assert all(pointer_rows(world, *other) != own for other in TRAINED if other != (method, seed))


def test_best_of_n_is_the_best_of_n_samples_at_temperature_one(ran: Ran) -> None:
    world, workspace = ran.world, ran.world.workspace()
    few = workspace.of_split("test", 10)
    generator = torch.Generator().manual_seed(1)
    groups = workspace.selector(world.paths.trained("sft", 1)).decode(
        [e.query for e in few],
        workspace.pools_of(few),
        2,
        lambda policy, encoded, shots: sample(policy, encoded, shots, 4, 1.0, generator),
    )
    part = table(world)
    part = part[part["method"] == "best-of-4"].set_index(["query_id", "shot"])
    assert len(part) == 20
    for example, group in zip(few, groups, strict=True):
        for shot in (1, 2):
            given = [accuracy(s.examples[:shot], example) for s in group]
            best = group[given.index(max(given))].examples[:shot]
            row = part.loc[example.question_id, shot]
            assert row["vqa_acc_score"] == max(given)
            assert list(row["pointer"]) == [e.question_id for e in best]


def test_every_score_and_accuracy_is_that_of_the_formula(ran: Ran) -> None:
    world, workspace = ran.world, ran.world.workspace()
    scores, summary = table(world), metrics(world, "summary.json")
    asked = scores[scores["method"] != "vote"]
    for row in asked.itertuples():
        shown = [workspace.examples[i] for i in row.pointer]
        text = INSTRUCTIONS[1] if row.method == "instructed" else ""
        assert row.vqa_acc_score == accuracy(shown, workspace.examples[row.query_id], text)
        assert row.vqa_correct == (row.vqa_acc_score > 0)
    counts = asked.drop_duplicates(["method", "query_id"]).groupby("method").size()
    assert dict(counts) == {
        method: 10 if method in ("best-of-4", "oracle") else 30 for method in counts.index
    }
    assert set(scores["query_id"]) == set(workspace.queries("test"))
    for row in summary["rows"]:
        part = scores[(scores["method"] == row["method"]) & (scores["shot"] == row["shots"])]
        assert row["accuracy"] == pytest.approx(part["vqa_acc_score"].mean(), abs=1e-6)
    for row in summary["means"]:
        part = scores[scores["method"] == row["method"]]
        assert row["accuracy"] == pytest.approx(part["vqa_acc_score"].mean(), abs=1e-6)
        assert metrics(world, "accuracy.json")[row["method"]]["mean"] == row["accuracy"]


def test_the_ceilings_and_the_random_baseline_are_where_the_formula_has_them(ran: Ran) -> None:
    world, workspace = ran.world, ran.world.workspace()
    test, scores = workspace.of_split("test"), table(ran.world)
    _, random = reachable(test, workspace.pools_of(test), 2)
    drawn = scores[scores["method"] == "random"]
    assert drawn["vqa_acc_score"].mean() == pytest.approx(random.mean(), abs=0.1)
    assert pointer_rows(world, "random", 0) != pointer_rows(world, "random", 1)
    few = test[:10]
    best, _ = reachable(few, workspace.pools_of(few), 2)
    found = scores[scores["method"] == "oracle"].groupby("shot")["vqa_acc_score"].mean()
    assert found[1] == pytest.approx(best[0])
    assert random[1] + 0.4 < found[2] <= best[1] + 1e-9  # a search may miss the best


@pytest.mark.parametrize("stage", ["sft", "rce", "grpo"])
def test_a_resumed_training_ends_with_the_bytes_of_one_that_was_not_stopped(
    ran: Ran, stage: str, tmp_path: Path
) -> None:
    world = ran.world.changed({}, {stage: tmp_path / stage}, tmp_path)
    world.killed_after = 2
    with pytest.raises(KilledError):
        world.run(stage, 2)
    world.killed_after = -1
    asked = world.run(stage, 2)
    assert len(asked) < len(world.run(stage, 2))  # the first epochs were not run again
    first, again = (each.paths.of(stage) / "seed2" for each in (ran.world, world))
    files = {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()} == files
    name = f"{stage}/seed2.json"
    assert metrics(world, name) == metrics(ran.world, name)  # what it asked before the end as well


def test_a_killed_training_leaves_no_policy_of_an_earlier_one(ran: Ran, tmp_path: Path) -> None:
    """A history and a policy together say that a training has ended."""
    world = ran.world.changed({}, {"sft": tmp_path / "sft"}, tmp_path)
    world.run("sft", 1)
    policy = weights_of(world.paths.trained("sft", 1))
    assert policy.is_file()
    world.killed_after = 2
    with pytest.raises(KilledError):
        world.run("sft", 1)
    assert policy.with_name(HISTORY).is_file()
    assert not policy.exists()


def test_the_report_draws_and_describes_every_training(ran: Ran) -> None:
    paths = ran.world.paths
    curve = pd.read_csv(paths.plots / "accuracy_over_shots.csv", dtype={"shots": str})
    for row in curve[curve["method"] == "grpo"].itertuples():
        assert row.accuracy == metrics(ran.world, "accuracy.json")["grpo"][f"shots_{row.shots}"]
    cards = sorted(path.stem for path in (paths.report / "model_cards").glob("*.md"))
    assert len(cards) == len(TRAINED)
    page = (paths.report / "index.html").read_text()
    assert all(method in page for method, _ in TRAINED)


def test_the_curve_of_prices_is_what_the_selectors_choose(ran: Ran) -> None:
    """A higher price never shows more, and the rows of the tables are those of pointer.price."""
    world, workspace = ran.world, ran.world.workspace()
    test = workspace.of_split("test")
    rows = metrics(world, "stop.json")["rows"]
    shown = [row["demonstrations"] for row in rows]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[-1]
    for row in rows:
        counts, scores = [], []
        for seed in (1, 2):
            selector = workspace.selector(world.paths.trained("grpo-stop", seed), row["price"])
            chosen = selector.select_all([e.query for e in test], workspace.pools_of(test), 2)
            counts += [len(selection.examples) for selection in chosen]
            scores += [accuracy(c.examples, e) for c, e in zip(chosen, test, strict=True)]
        assert row["demonstrations"] == pytest.approx(np.mean(counts), abs=1e-5)
        assert row["accuracy"] == pytest.approx(np.mean(scores), abs=1e-5)
    (mine,) = (row for row in rows if row["price"] == world.params.pointer.price)
    assert mine["accuracy"] == metrics(world, "accuracy.json")["grpo-stop"]["shots_2"]


def test_stop_starts_from_the_grpo_policy_of_its_seed(ran: Ran) -> None:
    for seed in (1, 2):
        first = rows_of(ran.world, "grpo-stop", seed)[0]["dev_accuracy"]
        workspace = ran.world.workspace()
        start = ran.world.paths.trained("grpo", seed)
        dev = workspace.of_split("dev")
        assert first == pytest.approx(accuracies(workspace, start, dev).mean())


def test_paths_are_those_of_the_world_alone(ran: Ran) -> None:
    """Nothing depends on the working directory: only the world's own root has outputs."""
    moved = replace(ran.world.paths, root=Path("nowhere"))
    assert not moved.prepare.exists()
    assert {p.name for p in ran.world.paths.root.iterdir()} == {
        *("data", "params.yaml", "dvc.yaml"),
        *("artifacts", "metrics", "plots", "cache"),
    }
