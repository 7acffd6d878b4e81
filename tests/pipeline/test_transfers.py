"""Policies of one variant used with another VLM and other pools, on the formula world."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.data.pools import read_pools
from lever_plus.errors import UserError
from lever_plus.experiments.ablation import table, transfer, variant
from lever_plus.metric.vqa import vqa_accuracy
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.policy.checkpoint import read_config
from lever_plus.selectors.baselines import SimilaritySelector
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from pipeline.formula import FormulaVlm, accuracy, likelihood, reply
from pipeline.formula_world import Ran, World, project_with

OTHER: Final[dict[str, Any]] = {"vlm": {"path": "other"}}
FEWER: Final[dict[str, Any]] = {"pool": {"size": 8}}
ALL: Final[dict[str, Any]] = {"asks": "Does it carry over?", "methods": ["sttr", "sft"]}
LEARNED: Final[dict[str, Any]] = {**ALL, "methods": ["sft"]}
VARIANTS: Final[dict[str, Any]] = {
    "seeds": [1, 2],
    "variants": {
        "here": {
            **ALL,
            "versus": "here/sttr",
            "methods": ["zero-shot", "sttr", "sft", "grpo-stop"],
        },
        "there": {**ALL, "versus": "there/sttr", "params": OTHER},
    },
    "transfers": {
        "to-there": {**LEARNED, "policies": "here", "versus": "there/sttr", "params": OTHER},
        "to-here": {**LEARNED, "policies": "there", "versus": "here/sttr"},
        "fewer": {
            **{**ALL, "policies": "here", "versus": "fewer/sttr", "params": FEWER},
            "methods": ["sttr", "sft", "grpo-stop"],
        },
    },
}
ROW: Final = ["method", "seed", "query_id", "shot", "pointer", "answer", "vqa_acc_score"]


def backwards(shown: Sequence[Example], asked: Query) -> str:
    """Return the answer of a VLM that heeds the first demonstration as the other does the last."""
    return reply(shown[::-1], asked)


class OtherVlm(FormulaVlm):
    """Another VLM, which answers by another formula."""

    def __init__(self) -> None:
        """Start without requests."""
        super().__init__()
        self.identity = VlmIdentity(**{**self.identity, "model": "other"})

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        return self._asked(requests, lambda r: backwards(r.demonstrations, r.query), done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        return self._asked(
            requests, lambda r: likelihood(r._replace(demonstrations=r.demonstrations[::-1])), done
        )


@dataclass(frozen=True)
class Carried:
    """A project whose variants and transfers have run, and what each printed."""

    world: World
    said: dict[str, str]

    def scores(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.world.paths.variant(name) / "scores.parquet")

    def vlm(self, name: str) -> StoredVlm:
        """Return the VLM of a variant; both keep their answers in one store."""
        backend = OtherVlm() if name in ("there", "to-there") else FormulaVlm()
        return StoredVlm(backend, Store(self.world.paths.cache / "answers.sqlite"))

    def run(self, name: str) -> str:
        paths = self.world.paths
        if name in VARIANTS["transfers"]:
            return transfer.run(name, paths, self.vlm(name)).text
        return variant.run(
            name, paths, lambda _name, _paths, seed: self.world.track("v", seed), self.vlm(name)
        ).text


@pytest.fixture(scope="module")
def carried(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    root = tmp_path_factory.mktemp("transfers") / "project"
    found = Carried(project_with(VARIANTS, ran, root), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        for name in (*VARIANTS["variants"], *VARIANTS["transfers"]):
            found.said[name] = found.run(name)
    return found


@pytest.fixture
def copy(carried: Carried, tmp_path: Path) -> Carried:
    """A copy of the same project, for tests that change it."""
    root = tmp_path / "project"
    shutil.copytree(carried.world.paths.root, root)
    return Carried(World(Paths(root), carried.world.params), {})


def of(scores: pd.DataFrame, *methods: str) -> list[list[Any]]:
    """Return what methods chose, said and scored."""
    rows = scores[scores["method"].isin(methods)][ROW].values.tolist()
    return [[list(cell) if cell is row[4] else cell for cell in row] for row in rows]


def test_a_variant_without_changes_is_the_pipeline(ran: Ran, carried: Carried) -> None:
    """Its policies are copies; its rows, also those of baselines, equal those of evaluate."""
    assert carried.said["here"].startswith("here: stages run again: nothing; 2 seeds")
    pipeline, paths = ran.world.paths, carried.world.paths
    for method in ("sft", "grpo-stop"):
        for seed in (1, 2):
            mine = weights_of(paths.variant("here", method, seed)).read_bytes()
            assert mine == weights_of(pipeline.trained(method, seed)).read_bytes()
    evaluated = pd.read_parquet(pipeline.scores)
    for method in VARIANTS["variants"]["here"]["methods"]:
        assert of(carried.scores("here"), method) == of(evaluated, method)


def test_a_variant_with_another_vlm_is_trained_and_scored_by_it_alone(carried: Carried) -> None:
    assert carried.said["there"].startswith("there: stages run again: sft_data, sft")
    paths, examples = carried.world.paths, carried.world.workspace().examples
    for seed in (1, 2):
        here, there = (paths.variant(name, "sft", seed) for name in ("here", "there"))
        assert read_config(here).vlm["model"] == "formula"
        assert read_config(there).vlm["model"] == "other"
        assert weights_of(here).read_bytes() != weights_of(there).read_bytes()
    for row in carried.scores("there").itertuples():
        example = examples[row.query_id]
        said = backwards([examples[i] for i in row.pointer], example.query)
        assert row.answer == said
        assert row.vqa_acc_score == vqa_accuracy(said, example.answers)
    same = of(carried.scores("here"), "sttr"), of(carried.scores("there"), "sttr")
    assert [row[:5] for row in same[0]] == [row[:5] for row in same[1]]
    assert same[0] != same[1]


@pytest.mark.parametrize(("name", "source"), [("to-there", "here"), ("to-here", "there")])
def test_policies_before_another_vlm_choose_the_same_and_get_its_answers(
    carried: Carried, name: str, source: str
) -> None:
    assert carried.said[name].startswith(f"{name}: policies of {source}, 2 seeds in ")
    examples = carried.world.workspace().examples
    mine, theirs = of(carried.scores(name), "sft"), of(carried.scores(source), "sft")
    assert [row[:5] for row in mine] == [row[:5] for row in theirs]
    assert mine != theirs
    says = backwards if name == "to-there" else reply
    for _, _, query, _, pointer, answer, _ in mine:
        assert answer == says([examples[i] for i in pointer], examples[query].query)


def test_other_pools_are_those_of_the_stage_and_all_methods_choose_from_them(
    carried: Carried, tmp_path: Path
) -> None:
    other = carried.world.changed(FEWER, {"pool": tmp_path}, tmp_path)
    other.run("pool")
    pools, scores = read_pools(other.paths.pools), carried.scores("fewer")
    assert set(scores["method"]) == {"sttr", "sft", "grpo-stop"}
    for row in scores.itertuples():
        assert len(pools.of(row.query_id)) == 8
        assert set(row.pointer) <= set(pools.of(row.query_id))
    examples = carried.world.workspace().examples
    assert all(
        row.vqa_acc_score == accuracy([examples[i] for i in row.pointer], examples[row.query_id])
        for row in scores.itertuples()
    )
    workspace, test = other.workspace(), other.workspace().of_split("test")
    nearest = SimilaritySelector(workspace.features)
    chosen = nearest.select_all([e.query for e in test], workspace.pools_of(test), 2)
    expected = [[example.question_id for example in selection.examples] for selection in chosen]
    plain = scores[(scores["method"] == "sttr") & (scores["shot"] == 2)]
    assert [list(pointer) for pointer in plain["pointer"]] == expected
    before = carried.world.workspace().pools
    assert any(not set(row.pointer) <= set(before.of(row.query_id)) for row in scores.itertuples())


def test_policies_that_stop_are_used_at_the_price_of_params(carried: Carried) -> None:
    scores = carried.scores("fewer")
    stops = scores[scores["method"] == "grpo-stop"]
    assert (stops["pointer"].map(len) < stops["shot"]).any()


def test_policies_of_other_pools_are_refused_where_the_transfer_does_not_change_them(
    copy: Carried,
) -> None:
    paths = copy.world.paths
    for seed in (1, 2):
        config = paths.variant("here", "sft", seed) / "config.json"
        facts = json.loads(config.read_text())
        config.write_text(json.dumps({**facts, "pool_sha256": "0" * 64}))
    with pytest.raises(UserError, match="was trained on pools 000000000000"):
        copy.run("to-there")
    assert "policies of here" in copy.run("fewer")


@pytest.mark.parametrize("name", ["fewer", "to-there"])
def test_policies_of_another_feature_space_are_refused(copy: Carried, name: str) -> None:
    copy.world.changed({"embed": {"variance": 0.8}}, {}, copy.world.paths.root).run("embed")
    before = copy.scores(name)
    with pytest.raises(UserError, match="was trained in feature space"):
        copy.run(name)
    assert copy.scores(name).equals(before)


def test_policies_that_are_missing_are_asked_for(copy: Carried) -> None:
    shutil.rmtree(copy.world.paths.variant("here"))
    with pytest.raises(UserError, match="holds no checkpoint"):
        copy.run("to-there")


def test_the_table_says_what_is_gained_over_similarity_and_lost_to_training_there(
    carried: Carried, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = carried.world.paths
    table.run(paths, 100)
    rows = {(r["variant"], r["method"]): r for r in json.loads(paths.ablations.read_text())["rows"]}
    carry, native, plain = (
        rows[key] for key in (("to-there", "sft"), ("there", "sft"), ("there", "sttr"))
    )
    assert (carry["policies"], carry["used"]) == ("here", "there")
    assert (native["policies"], native["used"]) == ("there", "there")
    assert (plain["policies"], plain["used"], plain["versus"]) == ("", "there", "")
    gained, lost = carry["difference"], carry["to_trained_there"]
    assert gained["difference"] == pytest.approx(carry["accuracy"] - plain["accuracy"], abs=2e-6)
    assert lost["difference"] == pytest.approx(carry["accuracy"] - native["accuracy"], abs=2e-6)
    assert lost["trainings"] == 2
    assert plain["difference"] is native["to_trained_there"] is None
    assert rows["fewer", "sft"]["to_trained_there"] is None
    family = [d for r in rows.values() for d in (r["difference"], r["to_trained_there"]) if d]
    least = min(family, key=lambda each: each["p"])
    assert least["p_holm"] == pytest.approx(min(1.0, len(family) * least["p"]), abs=1e-5)
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert "minus one trained there [95 %]" in lines[0]
    assert lines[0][2:5] == ["0", "1", "2"]
    assert {len(line) for line in lines} == {len(lines[0])}


def test_a_transfer_asked_what_the_policies_that_it_uses_did(carried: Carried) -> None:
    """Without changes, requests are those of the pipeline's methods; a baseline has none."""
    paths = carried.world.paths
    table.run(paths, 100)
    rows = json.loads(paths.ablations.read_text())["rows"]
    took = {(row["variant"], row["method"]): row["vlm_requests"] for row in rows}
    summary = json.loads(paths.summary.read_text())
    pipeline = {row["method"]: row.get("vlm_requests") for row in summary["means"]}
    assert took["to-there", "sft"] == took["here", "sft"] == pipeline["sft"]
    assert took["to-here", "sft"] == took["there", "sft"] > 0
    assert took["fewer", "grpo-stop"] == took["here", "grpo-stop"] == pipeline["grpo-stop"]
    assert {asked for (_, method), asked in took.items() if method in ("sttr", "zero-shot")} == {0}
