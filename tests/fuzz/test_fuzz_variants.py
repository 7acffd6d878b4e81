"""The variants get bad files, names and results: a sentence, and no other folder is touched."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from doors import Bad, try_all
from texts import VALUES, changed, damaged

from lever_plus.config.file import changed_params, load_params
from lever_plus.config.names import TAKEN
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import BASELINES, BEST_INSTRUCTION, WITHOUT, methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.experiments.ablation import table
from lever_plus.experiments.ablation.variant import run as run_variant
from lever_plus.experiments.ablation.variants import params_of, read_variants, stages_to_run
from lever_plus.files.locks import locked
from lever_plus.files.writing import write_json
from lever_plus.files.yaml_files import dump_yaml, read_yaml
from lever_plus.pipeline.paths import Paths
from tiny_world import ROOT

FILE = ROOT / "ablations" / "variants.yaml"
CONTENT = read_yaml(FILE, "look")
PARAMS = load_params(ROOT / "params.yaml")
OWN = read_variants(ROOT).variants
NAMES = (
    *("", ".", "..", "../x", "a/b", "/etc", "/tmp/x", ".hidden", "-rf", "--help", "a b", "a\nb"),
    *(
        "a\0b",
        "é",
        "\uff21",
        "a:b",
        "a\\b",
        "~",
        "$HOME",
        "*",
        "a" * 101,
        "con\t",
        "a,b",
        "a=b",
        "%2e",
    ),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with nothing but settings, and something beside it that must stay."""
    root = tmp_path / "project"
    for name in ("params.yaml", "dvc.yaml"):
        root.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "presets", root / "presets")
    (root / "ablations").mkdir()
    for place in (root / "artifacts" / "rce", root / "kept", tmp_path / "x", tmp_path / "beside"):
        place.mkdir(parents=True)
        (place / "work").write_text("of hours")
    return root


def _bad(name: str, root: Path, content: bytes, places: tuple[str, ...]) -> Bad:
    def run() -> None:
        (root / "ablations" / "variants.yaml").write_bytes(content)
        found = read_variants(root)
        assert found.variants
        assert len(set(found.seeds)) == len(found.seeds) > 0
        for key, transfer in found.transfers.items():
            assert Paths(root).variant(key).resolve().parent == root / "artifacts" / "ablations"
            assert transfer.policies in found.variants
        for key, variant in found.variants.items():
            inside = Paths(root).variant(key).resolve()
            assert inside.parent == (root / "artifacts" / "ablations").resolve()
            if variant != OWN.get(key):
                stages = stages_to_run(variant, PARAMS, params_of(variant, root), root)
                assert bool(stages) == bool(variant.params or variant.preset)

    return Bad(name, run, places)


def test_damaged_variants(project: Path) -> None:
    rng = random.Random(8)
    places = ("variants.yaml", "variant", "transfer")
    small = copy.deepcopy(CONTENT)
    keep = ("two-picks", "v2", "seed-v3", "reward-shot-2")
    small["variants"] = {name: small["variants"][name] for name in keep}
    elsewhere = {"policies": "v2", "methods": ["sft"], "params": {"pool": {"size": 16}}}
    small["transfers"] = {"few": {**small["variants"]["v2"], **elsewhere}}
    inputs = [_bad(n, project, c, places) for n, c in damaged(dump_yaml(small).encode(), rng, 100)]
    for name, content in changed(small, rng, 120):
        inputs.append(_bad(name, project, json.dumps(content).encode(), places))
    try_all("ablations/variants.yaml", inputs, untouched=project / "artifacts")


def _named(root: Path) -> Iterator[Bad]:
    def one(**fields: Any) -> bytes:
        other = {"params": {"grpo": {"epochs": 1}}}
        plain = {"asks": "?", "methods": ["grpo"], "versus": "default", **other, **fields}
        return json.dumps({"seeds": [1], "variants": {"plain": plain}}).encode()

    for name in (*NAMES, "default", "Default", "DEFAULT"):
        content = json.dumps(
            {"seeds": [1], "variants": {name: CONTENT["variants"]["grpo-offline"]}}
        )
        yield _bad(f"variant {name!r}", root, content.encode(), ("variants.yaml",))
    for name in (*NAMES, "none", "grpo ", "Grpo", "random", "zero-shot"):
        yield _bad(f"method {name!r}", root, one(methods=[name]), ("variants.yaml",))
    for name in (*NAMES, "none", "seed-v4"):
        yield _bad(f"preset {name!r}", root, one(preset=name), ("variants.yaml",))
    for name in (
        *NAMES,
        "none",
        "plain",
        "plain/grpo",
        "default/",
        "/grpo",
        "default/a/b",
        "plain/",
    ):
        yield _bad(f"versus {name!r}", root, one(versus=name), ("variants.yaml",))
    for fields in (
        {"methods": []},
        {"methods": ["grpo", "grpo"]},
        {"methods": ["grpo", "GRPO"]},
        {"asks": ""},
        {"params": {"seed": 9}},
        {"params": {"grpo": None}},
        {"params": {"grpo": {"epoch": 1}}},
        {"params": []},
        {"params": {"rce": {"tau": {"../x": {"start": 1.0, "end": 1.0}}}}},
    ):
        yield _bad(f"{fields}", root, one(**fields), ("variants.yaml", "variant"))
    both = dict.fromkeys(("one", "One"), CONTENT["variants"]["grpo-offline"])
    content = json.dumps({"seeds": [1], "variants": both}).encode()
    yield _bad("upper case", root, content, ("One",))
    for seeds in ([], [1, 1], [-1], [2**32], [True], [1.5], ["1"], None):
        content = json.dumps({"seeds": seeds, "variants": CONTENT["variants"]}).encode()
        yield _bad(f"seeds {seeds}", root, content, ("seeds",))


def test_names_of_variants(project: Path) -> None:
    counts = try_all("names of variants", _named(project), untouched=project / "artifacts")
    assert counts["fine"] == 0


def test_a_variant_outside_its_folder_erases_nothing(project: Path) -> None:
    """An absolute name once erased that folder."""
    for name in (str(project / "kept"), "../../kept", "..", "."):
        content = {"seeds": [1], "variants": {name: CONTENT["variants"]["grpo-offline"]}}
        (project / "ablations" / "variants.yaml").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"variants\.yaml"):
            run_variant(name, Paths(project), None)  # type: ignore[arg-type]
    assert (project / "kept" / "work").read_text() == "of hours"


def test_a_variant_that_another_process_runs_is_left_alone(project: Path) -> None:
    """Two at once would erase each other's work."""
    (project / "ablations" / "variants.yaml").write_bytes(FILE.read_bytes())
    name = next(iter(OWN))
    work = project / "cache" / "ablations" / name / "seed1"
    work.mkdir(parents=True)
    (work / "policy").write_text("half trained")
    with (
        locked(work.parents[1] / f"{name}.lock", "busy", "look"),
        pytest.raises(UserError, match=f"another `lever-plus ablate` is running {name} here"),
    ):
        run_variant(name, Paths(project), None)  # type: ignore[arg-type]
    assert (work / "policy").read_text() == "half trained"


def _schedules() -> Iterator[Bad]:
    tau = {"start": 1.0, "end": 0.5}
    reserved = [*TAKEN, *(name.upper() for name in TAKEN), "best-of-16", "Best-of-4", "Sft", "aGRO"]
    for name in (*NAMES, *reserved):

        def schedule(name: str = name) -> None:
            changed_params(PARAMS, {"rce": {"tau": {name: tau, "rce": tau}}})
            raise AssertionError("it was taken")

        def selector(name: str = name) -> None:
            selectors = [f"lever_plus.config.names:{name}"]
            changed_params(PARAMS, {"evaluate": {"selectors": selectors}})
            raise AssertionError("it was taken")

        yield Bad(f"schedule {name!r}", schedule, ("rce.tau", "rce"))
        yield Bad(f"selector {name!r}", selector, ("evaluate.selectors",))
    for one, two in (("rce", "RCE"), ("Mine", "mine"), ("a.b", "A.B")):

        def twice(one: str = one, two: str = two) -> None:
            changed_params(PARAMS, {"rce": {"tau": {"rce": tau, one: tau, two: tau}}})
            raise AssertionError("it was taken")

        yield Bad(f"{one} and {two}", twice, ("rce.tau",))


def test_names_of_schedules_and_selectors() -> None:
    try_all("names of methods", _schedules())


def test_every_method_that_is_always_there_has_its_name_for_itself() -> None:
    registry = methods_of(PARAMS.rce.tau, PARAMS.sft.targets)
    known = {method.name for method in registry} - set(PARAMS.rce.tau)
    assert known | {"default"} == set(TAKEN)
    assert {method.name for method in (WITHOUT, BEST_INSTRUCTION, *BASELINES)} < set(TAKEN)


@pytest.fixture
def evaluated(project: Path) -> Path:
    """Return the project with results of the pipeline and of one variant."""
    variant = {**CONTENT["variants"]["grpo-offline"], "versus": "default/rce"}
    content = {"seeds": [1], "variants": {"light": variant}}
    (project / "ablations" / "variants.yaml").write_text(json.dumps(content))
    paths = Paths(project)
    for path, methods in (
        (paths.scores, ["rce", "zero-shot"]),
        (paths.variant("light") / "scores.parquet", ["grpo"]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        _scores(methods).to_parquet(path, index=False)
    registry = methods_of(PARAMS.rce.tau, PARAMS.sft.targets)
    write_json(paths.summary, summarise(_scores(["rce", "zero-shot"]), registry, 100))
    facts = {"stages": ["grpo"], "seed1": {"vlm_requests": {"grpo": 5}, "reward_std": 0.25}}
    (paths.variant("light") / "facts.json").write_text(json.dumps(facts))
    return project


def _scores(methods: list[str]) -> pd.DataFrame:
    rows = [
        {
            **{"method": method, "seed": 1, "query_id": query, "image_id": query // 2},
            **{"shot": shot, "vqa_acc_score": 0.1 * (query + shot), "pointer": [query]},
        }
        for method in methods
        for query in range(5)
        for shot in ([0] if method == "zero-shot" else [1, 2])
    ]
    return pd.DataFrame(rows)


def test_damaged_results_of_variants(evaluated: Path) -> None:
    paths, rng = Paths(evaluated), random.Random(9)
    scores, facts = paths.variant("light") / "scores.parquet", paths.variant("light") / "facts.json"
    plain = {path: path.read_bytes() for path in (scores, facts, paths.scores)}

    def one(name: str, path: Path, content: bytes) -> Bad:
        def run() -> None:
            for each, before in plain.items():
                each.write_bytes(before)
            path.write_bytes(content)
            table.run(paths, 100)
            row = json.loads(paths.ablations.read_text())["rows"][0]
            assert row["accuracy"] == pytest.approx(0.35)
            assert row["reward_std"] in (0.25, None)
            assert row["vlm_requests"] == 5

        return Bad(name, run, (path.name, path.parent.name, "light/grpo"))

    whole = plain[scores]
    inputs = [
        one(f"cut off at {at}", scores, whole[:at]) for at in range(0, len(whole), len(whole) // 24)
    ]
    inputs += [one(n, facts, c) for n, c in damaged(plain[facts], rng, 35)]
    inputs += [
        one(n, facts, json.dumps(c).encode())
        for n, c in changed(json.loads(plain[facts]), rng, 30)
        if not n.startswith("seed1.reward_std is 1.5")
    ]
    frame = _scores(["grpo"])
    for column in ("method", "seed", "query_id", "image_id", "shot", "vqa_acc_score"):
        frames = [frame.drop(columns=column), frame.assign(**{column: None})]
        frames += [frame.assign(**{column: value}) for value in ("x", float("nan"), -0.5, 1.5)]
        for number, bad in enumerate(frames):
            path = evaluated / "bad.parquet"
            bad.to_parquet(path, index=False)
            inputs.append(one(f"{column}, {number}", scores, path.read_bytes()))
    for bad in (frame.iloc[:0], frame.iloc[:-1], pd.concat([frame, frame.iloc[:1]])):
        bad.to_parquet(evaluated / "bad.parquet", index=False)
        inputs.append(one(f"{len(bad)} rows", scores, (evaluated / "bad.parquet").read_bytes()))
    try_all("results of variants", inputs)


def test_other_questions_or_shots_are_not_compared(evaluated: Path) -> None:
    paths = Paths(evaluated)
    path, frame = paths.variant("light") / "scores.parquet", _scores(["grpo"])
    frame[frame["query_id"] > 0].to_parquet(path, index=False)
    with pytest.raises(UserError, match="light/grpo was evaluated on 4 questions, .* on 5"):
        table.run(paths, 100)
    frame[frame["shot"] == 1].to_parquet(path, index=False)
    with pytest.raises(UserError, match=r"at shots \[1\], but default/rce at \[1, 2\]"):
        table.run(paths, 100)
    assert VALUES
