"""The study's objective, promotion, and a variant of the pipeline, on the formula world."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from ruamel.yaml import YAML

from lever_plus.config.file import changed_params
from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Estimate
from lever_plus.evaluation.trainings import over_runs
from lever_plus.experiments.ablation import table
from lever_plus.experiments.ablation.variant import run as run_variant
from lever_plus.experiments.study.objective import Measured, Trials
from lever_plus.experiments.study.promote import Candidate, repeat_best
from lever_plus.experiments.study.settings import StudySettings, read_settings
from lever_plus.experiments.study.space import baseline, changes
from lever_plus.experiments.study.storage import open_study
from lever_plus.experiments.study.worker import run_worker
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.policy.network import Policy
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.training.grpo import train_grpo
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Row, Run
from lever_plus.vlm.store.cached import StoredVlm
from pipeline.formula import FormulaVlm, accuracy, splits_of
from pipeline.formula_world import Ran, World, project_with
from tiny_world import ROOT

FROM_AGRO = {"agro": {"beta": 0.1}, "grpo": {"start": "agro"}}
STARTS = "Does it matter where GRPO starts?"
VARIANTS = {
    "seeds": [1, 2],
    "curve": STARTS,
    "variants": {
        "from-agro": {
            "asks": STARTS,
            "methods": ["rce", "grpo"],
            "versus": "default",
            "params": FROM_AGRO,
        }
    },
}


def quiet(_epoch: int, _row: Row) -> None:
    """Take a report."""


def rce_on_the_first_chain(world: World, seed: int) -> Policy:
    """Train RCE with a seed from the SFT policy and the RL data of the first training seed."""
    workspace, params = world.workspace(), world.params
    return train_rce(
        workspace.load_policy(world.paths.trained("sft", 1)),
        workspace.environment(2, params.reward),
        workspace.groups(world.paths.rl_data(1), params.reward, params.rl),
        workspace.queries("dev"),
        params.rce,
        params.rce.tau["rce"],
        Run(seed, lambda _row: None),
    ).best()


def study_settings(folder: Path, **update: Any) -> StudySettings:
    found = read_settings(ROOT / "search" / "params.yaml")
    wide = found.space.learning_rate.model_copy(update={"high": 0.05})
    space = found.space.model_copy(update={"learning_rate": wide})
    given = {
        "space": space,
        "storage": str(folder / "study.journal"),
        "trials": 2,
        "startup_trials": 1,
        **update,
    }
    return found.model_copy(update=given)


def values(world: World, settings: StudySettings, **update: Any) -> dict[str, Any]:
    return {**baseline(world.params, settings.space), "epochs": 3, **update}


def trials_on(world: World, backend: FormulaVlm | None = None) -> Trials:
    return Trials(world.params, world.paths, StoredVlm(backend or FormulaVlm(), None))


def on_dev(world: World, selector: LearnedSelector) -> np.ndarray:
    """Return what greedy pointers give on dev by the formula, mean over shots, [questions]."""
    workspace = world.workspace()
    dev: list[Example] = workspace.of_split("dev")
    found = selector.select_all([e.query for e in dev], workspace.pools_of(dev), 2)
    pairs = list(zip(dev, found, strict=True))
    return np.array([np.mean([accuracy(s.examples[:k], e) for k in (1, 2)]) for e, s in pairs])


def test_a_trial_may_end_between_epochs_of_rce(ran: Ran, tmp_path: Path) -> None:
    world, settings = ran.world, study_settings(tmp_path)
    other = values(world, settings, tau_start=max(settings.space.tau_start))
    params = changed_params(world.params, changes(other, world.params, settings.space))
    numbers: list[int] = []
    trials_on(world).measure(params, 3, 1, lambda number, _row: numbers.append(number))
    epochs = params.rce.epochs
    assert numbers == [*range(epochs + 1), *range(epochs + 1, epochs + 5)]

    def stop(number: int, _row: Row) -> None:
        numbers.append(number)
        if number == 1:
            raise optuna.TrialPruned

    numbers.clear()
    with pytest.raises(optuna.TrialPruned):
        trials_on(world).measure(params, 3, 1, stop)
    assert numbers == [0, 1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_trial_is_measured_by_what_grpo_adds_to_rce_on_dev(
    ran: Ran, tmp_path: Path, seed: int
) -> None:
    """By question, trial minus RCE, of the same seed; the KL is that of the best epoch.

    Both stand on the SFT policy and the RL data of the first training seed: only there, the
    pipeline's RCE policy is the baseline.
    """
    world, settings = ran.world, study_settings(tmp_path)
    params = changed_params(
        world.params, changes(values(world, settings), world.params, settings.space)
    )
    measured = trials_on(world).measure(params, 3, seed, quiet)
    workspace = world.workspace()
    rows: list[Row] = []
    trained = train_grpo(
        rce_on_the_first_chain(world, seed),
        workspace.environment(2, params.reward),
        workspace.groups(world.paths.rl_data(1), params.reward, params.rl),
        workspace.queries("dev"),
        params.grpo,
        Run(seed, rows.append),
    )
    mine = on_dev(world, LearnedSelector(trained.best(), workspace.features))
    theirs = on_dev(world, LearnedSelector(rce_on_the_first_chain(world, seed), workspace.features))
    assert measured.difference == pytest.approx(mine - theirs, abs=1e-6)
    assert measured.difference.any()
    assert np.mean(measured.accuracies) == pytest.approx(mine.mean(), abs=1e-6)
    assert measured.kl == rows[trained.best_epoch]["kl"]
    assert measured.reward == trained.best_reward


def test_a_trial_asks_dev_alone_and_learns_from_the_rl_data(ran: Ran, tmp_path: Path) -> None:
    world, settings, backend = ran.world, study_settings(tmp_path), FormulaVlm()
    trials = trials_on(world, backend)
    changed = changes(
        values(world, settings, tau_start=0.8, gen_methods="beam+sample"),
        world.params,
        settings.space,
    )
    measured = trials.measure(changed_params(world.params, changed), 2, 1, quiet)
    assert splits_of(backend.requests) == ({"dev"}, {"train"})
    plain = changes(values(world, settings), world.params, settings.space)
    other = trials.measure(changed_params(world.params, plain), 2, 1, quiet)
    assert measured.difference.tolist() != other.difference.tolist()


def test_a_study_s_value_is_the_mean_difference_and_more_is_better(
    ran: Ran, tmp_path: Path
) -> None:
    """Trial 0 is the baseline, and its difference is 0; each seed is measured once."""
    world, settings = ran.world, study_settings(tmp_path, kl_budget=1e6)
    trials = trials_on(world)
    assert run_worker(world.params, settings, trials) == 2
    study = open_study(settings)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    first, other = study.trials
    assert (first.value, first.user_attrs["role"]) == (0.0, "baseline")
    params = changed_params(world.params, changes(other.params, world.params, settings.space))
    each = [
        trials.measure(params, other.params["epochs"], seed, quiet).difference.mean()
        for seed in settings.seeds
    ]
    assert other.value == pytest.approx(np.mean(each), abs=1e-8)
    assert other.value != 0


class StubTrials:
    """Gives known differences for the seeds of a promotion."""

    def __init__(self, differences: dict[int, np.ndarray], like: Trials) -> None:
        """Keep {seed: differences by question}, on two questions an image."""
        self.differences, self.seeds, self.sources = differences, list[int](), like.sources
        self.dev_images = np.arange(40) // 2

    def measure(self, _params: Any, epochs: int, seed: int, _report: Any) -> Measured:
        self.seeds.append(seed)
        return Measured(self.differences[seed], [0.5, 0.5], 0.1 * epochs, 1.0)


def repeated(ran: Ran, tmp_path: Path, difference: np.ndarray) -> tuple[Candidate, StubTrials]:
    """Promote the one trial of a study whose fresh seeds give a difference, less and more."""
    world = ran.world
    settings = study_settings(tmp_path, fresh_seeds=[11, 12], kl_budget=1e6)
    study = open_study(settings)
    study.enqueue_trial(values(world, settings))
    trials = trials_on(world)
    run_worker(world.params, settings, trials)
    stub = StubTrials({11: difference - 0.1, 12: difference + 0.1}, trials)
    best = repeat_best(study, world.params, settings, stub)  # type: ignore[arg-type]
    return best[0], stub


def test_promotion_repeats_a_trial_on_fresh_seeds_and_takes_their_mean(
    ran: Ran, tmp_path: Path
) -> None:
    difference = np.random.default_rng(0).normal(0.05, 0.3, 40)
    candidate, stub = repeated(ran, tmp_path, difference)
    assert set(stub.seeds) == {11, 12}
    seeds = np.stack([difference - 0.1, difference + 0.1])
    # Chosen among the one trial with GRPO; images have two questions each.
    estimate = over_runs(seeds, np.arange(40) // 2, comparisons=1, repeated=1)
    assert candidate.difference == pytest.approx(tuple(estimate))
    assert candidate.kl == pytest.approx(0.1 * candidate.trial.params["epochs"])


@pytest.mark.parametrize(
    ("mean", "low", "kl", "accepted"),
    [
        (0.05, 0.01, 1.0, True),
        (0.05, -0.01, 1.0, False),
        (0.05, 0.0, 1.0, False),
        (0.05, 0.01, 2.1, False),
        (-0.05, -0.09, 1.0, False),
    ],
)
def test_promotion_needs_an_interval_above_zero_and_a_kl_within_the_budget(
    tmp_path: Path, mean: float, low: float, kl: float, accepted: bool
) -> None:
    estimate = Estimate(mean, low, mean + abs(mean - low), 0.05)
    candidate = Candidate(optuna.trial.create_trial(value=mean), estimate, kl)
    assert candidate.accepted(study_settings(tmp_path, kl_budget=2.0)) is accepted


@pytest.fixture(scope="module")
def copy(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The world with a file of variants, one of which has run; its backend knows what was asked."""
    root = tmp_path_factory.mktemp("variants") / "project"
    world = project_with(VARIANTS, ran, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        outcome = run_variant(
            "from-agro",
            world.paths,
            lambda _name, _paths, seed: world.track("variant", seed),
            StoredVlm(world.backend, None),
        )
    assert outcome.text.startswith("from-agro: stages run again: rce, grpo; 2 seeds")
    return Ran(world, {"from-agro": world.backend.requests})


def test_a_variant_trains_what_the_stages_would_with_its_params(
    ran: Ran, copy: Ran, tmp_path: Path
) -> None:
    """What the variant does not change comes from the pipeline, with the same seed."""
    moved = {stage: tmp_path / stage for stage in ("rce", "grpo")}
    other = ran.world.changed(FROM_AGRO, moved, tmp_path)
    for stage in moved:
        other.run(stage)
    paths = copy.world.paths
    for seed in (1, 2):
        grpo, rce = (paths.variant("from-agro", m, seed) for m in ("grpo", "rce"))
        mine = weights_of(grpo).read_bytes()
        assert mine == weights_of(other.paths.trained("grpo", seed)).read_bytes()
        assert mine != weights_of(ran.world.paths.trained("grpo", seed)).read_bytes()
        own = weights_of(ran.world.paths.trained("rce", seed)).read_bytes()
        assert weights_of(rce).read_bytes() == own
        chain = requests(ran.world.paths, "sft_data.json") + sum(
            requests(ran.world.paths, f"{stage}/seed{seed}.json", *method)
            for stage, method in (("sft", ["sft"]), ("rl_data", []))
        )
        off, on = (f"{stage}/seed{seed}.json" for stage in moved)
        agro = requests(other.paths, off, "agro") + requests(other.paths, on, "grpo")
        assert said(paths, "from-agro", seed) == {
            "rce": chain + requests(other.paths, off, "rce"),
            "grpo": chain + agro,
        }


def requests(paths: Paths, file: str, *method: str) -> int:
    """Return the requests that a metrics file says, of one of its methods if one is named."""
    found = json.loads((paths.metrics / file).read_text(encoding="utf-8"))
    for key in method:
        found = found[key]
    return int(found["vlm_requests"])


def said(paths: Paths, variant: str, seed: int) -> dict[str, int]:
    """Return what a variant's facts say about the requests of its methods."""
    facts = json.loads((paths.variant(variant) / "facts.json").read_text(encoding="utf-8"))
    found: dict[str, int] = facts[f"seed{seed}"]["vlm_requests"]
    return found


def test_a_variant_with_fewer_searches_says_what_they_took(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a quarter of the pipeline's searches, and the same trainings."""
    changes = {"data": {"sft_queries": ran.world.params.data.sft_queries // 4}}
    variant = {"asks": "?", "methods": ["sft", "sft-beams"], "versus": "default/sft"}
    content = {"seeds": [2], "variants": {"few": {**variant, "params": changes}}}
    world = project_with(content, ran, tmp_path / "project")
    monkeypatch.setenv("DVC_ROOT", str(world.paths.root))

    def track(_name: str, _paths: Paths, seed: int) -> Any:
        return world.track("variant", seed)

    run_variant("few", world.paths, track, StoredVlm(world.backend, None))
    searches = requests(world.paths, "sft_data.json") // 4
    assert said(world.paths, "few", 2) == {
        method: searches + requests(world.paths, "sft/seed2.json", method)
        for method in ("sft", "sft-beams")
    }


@pytest.mark.parametrize(
    ("methods", "trained"),
    [(["sft-beams"], {"sft-beams"}), (["sft-beams", "agro"], {"sft", "sft-beams", "agro"})],
)
def test_a_variant_trains_of_sft_what_is_evaluated_and_what_rl_starts_from(
    ran: Ran,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    methods: list[str],
    trained: set[str],
) -> None:
    variant = {"asks": "?", "methods": methods, "versus": "default/sft"}
    changes = {"sft": {"temperature": 1.0, "epochs": 1}}
    content = {"seeds": [2], "variants": {"warm": {**variant, "params": changes}}}
    world = project_with(content, ran, tmp_path / "project")
    monkeypatch.setenv("DVC_ROOT", str(world.paths.root))

    def track(_name: str, _paths: Paths, seed: int) -> Any:
        return world.track("variant", seed)

    run_variant("warm", world.paths, track, StoredVlm(world.backend, None))
    assert {method for _, method, _ in world.rows} == trained
    scores = pd.read_parquet(world.paths.variant("warm") / "scores.parquet")
    assert set(scores["method"]) == set(methods)


@pytest.mark.parametrize(
    ("methods", "trained"), [(["grpo"], {"grpo"}), (["grpo-stop"], {"grpo", "grpo-stop"})]
)
def test_a_variant_learns_when_to_stop_where_that_is_evaluated(
    ran: Ran,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    methods: list[str],
    trained: set[str],
) -> None:
    """Its rows are evaluated at the price in its own params."""
    changes = {"grpo": {"rounds": 1}, "pointer": {"price": 3.0}, "stop": {"passes": 2, "rounds": 1}}
    variant = {"asks": "?", "methods": methods, "versus": "default/rce", "params": changes}
    world = project_with({"seeds": [2], "variants": {"dear": variant}}, ran, tmp_path / "project")
    monkeypatch.setenv("DVC_ROOT", str(world.paths.root))

    def track(_name: str, _paths: Paths, seed: int) -> Any:
        return world.track("variant", seed)

    run_variant("dear", world.paths, track, StoredVlm(world.backend, None))
    assert {method for _, method, _ in world.rows} == trained
    scores = pd.read_parquet(world.paths.variant("dear") / "scores.parquet")
    assert set(scores["method"]) == set(methods)
    (method,) = methods
    workspace, test = world.workspace(), world.workspace().of_split("test")
    price = 3.0 if method == "grpo-stop" else None
    selector = workspace.selector(world.paths.variant("dear", method, 2), price)
    found = selector.select_all([e.query for e in test], workspace.pools_of(test), 2)
    own = {
        e.question_id: [x.question_id for x in s.examples] for e, s in zip(test, found, strict=True)
    }
    at = scores[scores["shot"] == 2]
    assert dict(zip(at["query_id"], map(list, at["pointer"]), strict=True)) == own
    shown = sum(map(len, own.values()))
    assert shown < len(test) if price else shown == 2 * len(test)


def test_a_variant_s_seed_must_be_one_that_the_pipeline_trains_with(
    ran: Ran, tmp_path: Path
) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ran.world.paths.root / name, tmp_path)
    (tmp_path / "ablations").mkdir()
    with (tmp_path / "ablations" / "variants.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump({**VARIANTS, "seeds": [1, 3]}, file)
    with pytest.raises(UserError, match=r"seeds: 3 is not one of training_seeds .*\(1, 2\)"):
        run_variant("from-agro", Paths(tmp_path), None)  # type: ignore[arg-type]


def test_a_variant_s_rows_are_those_of_its_own_checkpoints_on_test(copy: Ran) -> None:
    world, workspace = copy.world, copy.world.workspace()
    assert splits_of(copy.asked["from-agro"]) == ({"train", "dev", "test"}, {"train"})
    scores = pd.read_parquet(world.paths.variant("from-agro") / "scores.parquet")
    test = workspace.of_split("test")
    for method in ("rce", "grpo"):
        for seed in (1, 2):
            selector = workspace.selector(world.paths.variant("from-agro", method, seed))
            found = selector.select_all([e.query for e in test], workspace.pools_of(test), 2)
            part = scores[(scores["method"] == method) & (scores["seed"] == seed)]
            part = part[part["shot"] == 2].set_index("query_id")
            for example, selection in zip(test, found, strict=True):
                row = part.loc[example.question_id]
                assert list(row["pointer"]) == [e.question_id for e in selection.examples]
                assert row["vqa_acc_score"] == accuracy(selection.examples, example)
    assert set(scores["query_id"]) == set(workspace.queries("test"))


def test_a_variant_leaves_the_pipeline_s_outputs_as_they_are(ran: Ran, copy: Ran) -> None:
    before = ran.world.paths
    for folder in ("artifacts/rce", "artifacts/grpo", "artifacts/rl_data", "metrics"):
        for path in (before.root / folder).rglob("*"):
            if path.is_file():
                twin = copy.world.paths.root / path.relative_to(before.root)
                assert twin.read_bytes() == path.read_bytes()


def test_the_table_pairs_a_variant_with_the_pipeline(copy: Ran) -> None:
    """With the same RCE there is no difference; with another GRPO, it is that of the tables."""
    paths = copy.world.paths
    table.run(paths, 100)
    rows = {
        (row["variant"], row["method"]): row
        for row in json.loads(paths.ablations.read_text())["rows"]
    }
    paths.ablations.unlink()
    assert rows["from-agro", "rce"]["difference"]["difference"] == 0
    assert rows["from-agro", "grpo"]["difference"]["difference"] == pytest.approx(
        rows["from-agro", "grpo"]["accuracy"] - rows["default", "grpo"]["accuracy"], abs=2e-6
    )
    means = json.loads((paths.metrics / "accuracy.json").read_text())
    assert rows["default", "grpo"]["accuracy"] == means["grpo"]["mean"]


@pytest.fixture
def beside_zero_shot(copy: Ran, tmp_path: Path) -> Paths:
    """Return a project whose variant is compared with zero-shot alone."""
    root = Path(shutil.copytree(copy.world.paths.root, tmp_path / "project"))
    variants = {
        name: {**variant, "versus": "default/zero-shot"}
        for name, variant in VARIANTS["variants"].items()
    }
    with (root / "ablations" / "variants.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump({**VARIANTS, "variants": variants}, file)
    return Paths(root)


def took(paths: Paths) -> dict[tuple[str, str], float]:
    """Return {(variant, method): requests, the mean over seeds}, of what is drawn."""
    summary = json.loads(paths.summary.read_text(encoding="utf-8"))
    default = {row["method"]: row.get("vlm_requests") for row in summary["means"]}
    seeds = [said(paths, "from-agro", seed) for seed in (1, 2)]
    methods = ("rce", "grpo")
    return {("from-agro", m): np.mean([found[m] for found in seeds]) for m in methods} | {
        ("default", m): default[m] for m in methods
    }


def test_the_curve_has_the_pipeline_beside_the_variants(beside_zero_shot: Paths) -> None:
    """The pipeline is drawn even if variants are not compared with it; their `versus` is not."""
    table.run(beside_zero_shot, 100)
    rows = {
        (row["variant"], row["method"]): row
        for row in json.loads(beside_zero_shot.ablations.read_text())["rows"]
    }
    asked = took(beside_zero_shot)
    assert asked["default", "rce"] == asked["from-agro", "rce"]
    assert asked["default", "grpo"] != asked["from-agro", "grpo"]
    assert set(rows) == {*asked, ("default", "zero-shot")}
    assert {place for place, row in rows.items() if row["asks"] == STARTS} == set(asked)
    curve = pd.read_csv(beside_zero_shot.plots / "accuracy_over_requests.csv")
    assert len(curve) == len(asked)
    for point in curve.itertuples():
        row = rows[str(point.variant), str(point.method)]
        assert point.requests == asked[row["variant"], row["method"]] == row["vlm_requests"]
        assert [point.accuracy, point.low, point.high] == [row["accuracy"], *row["ci95"]]


def test_the_table_says_what_every_row_took(
    beside_zero_shot: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    table.run(beside_zero_shot, 100)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    shown = [dict(zip(cells(lines[0]), cells(line), strict=True)) for line in lines[2:]]
    asked = took(beside_zero_shot) | {("default", "zero-shot"): 0}
    assert {(row["variant"], row["method"]): row["requests"] for row in shown} == {
        place: f"{requests:,.0f}" for place, requests in asked.items()
    }


def cells(line: str) -> list[str]:
    """Return the cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
