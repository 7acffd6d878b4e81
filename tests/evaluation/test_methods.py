"""The registry of methods: each is there once, with a label, and its name is spelled only there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lever_plus.config.names import stage_of
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.methods import Method, Methods, methods_in, methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.runs import training_runs
from tiny_world import REGISTRY, ROOT, TARGETS, TAU

PACKAGE = ROOT / "src" / "lever_plus"
OWNERS = {
    "config/names.py": {"sft", "sft-beams", "rce", "agro", "grpo", "grpo-stop"},
    "features/similarities.py": {"sttr", "siir", "sitr", "mixed"},
    "evaluation/methods.py": {
        *("zero-shot", "random", "vote", "diverse", "fixed", "oracle", "best-of-"),
        "instructed",
    },
}
OTHER_THINGS = {
    "config/names.py": {  # taken: settings are checked where the registry is out of reach
        *("sttr", "siir", "sitr", "mixed", "zero-shot", "random", "vote", "diverse", "fixed"),
        *("instructed", "sttr-as-many", "oracle", "best-of-"),
    },
    "config/pool.py": {"random"},  # a sampler of pools
    "data/pools.py": {"random", "mixed"},  # samplers of pools
    "training/rl_data/candidates.py": {"random"},  # a generator of candidates
    "training/rl_data/legacy_parts.py": {"random"},  # the same in the older system's files
}
"""Words that are spelled like a method and mean something else."""


def literals(source: str) -> Iterator[str]:
    """Yield a module's strings, except names of files (`FOLDER / "rce"`) and `Literal` types."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left_out |= {id(node.left), id(node.right)}
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            left_out |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.Constant) and id(node) not in left_out:
            yield str(node.value)


def spelled(source: str) -> set[str]:
    """Return the methods that a module spells, including those whose names hold a number."""
    found = {"best-of-" if text.startswith("best-of-") else text for text in literals(source)}
    return found & {*(method.name for method in REGISTRY), "best-of-"}


def test_a_name_that_is_spelled_is_found() -> None:
    source = 'pick = {"sttr": FOLDER / "sft"}; n = f"best-of-{k}"; kind: Literal["grpo"]'
    assert spelled(source) == {"sttr", "best-of-"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_a_methods_name_is_spelled_by_its_owner_alone(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    owned = OWNERS.get(name, set()) | OTHER_THINGS.get(name, set())
    assert spelled(path.read_text(encoding="utf-8")) == owned


def test_every_owned_name_is_a_method() -> None:
    """`rce` is also the name of a stage, and of the first schedule in params.yaml."""
    names = {method.name for method in REGISTRY}
    assert set().union(*OWNERS.values()) <= names | {"best-of-"}
    assert set(SIMILARITIES) <= set(REGISTRY.names("similarity"))


def test_every_method_has_a_label_of_its_own() -> None:
    schedules = {"a": TAU, "b": TAU.model_copy(update={"start": 2.0})}
    registry = methods_of(schedules, TARGETS, 3, ["mine"])
    labels = [method.label for method in registry]
    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert "tau 2 to 0.1" in registry["b"].label


def test_the_kinds_cover_the_methods(params: Params) -> None:
    registry = methods_of(params.rce.tau, params.sft.targets, 3, ["mine"])
    kinds = ("similarity", "baseline", "selector", "trained", "ceiling")
    groups = {kind: registry.names(kind) for kind in kinds}
    assert sum(map(len, groups.values())) == len(list(registry))
    assert groups["similarity"] == ["sttr", "siir", "sitr", "mixed", "diverse", "sttr-as-many"]
    assert groups["baseline"] == ["zero-shot", "instructed", "random", "vote", "fixed"]
    assert groups["selector"] == ["mine"]
    assert groups["trained"] == ["sft", "sft-beams", "rce", "agro", "grpo", "grpo-stop"]
    assert groups["ceiling"] == ["best-of-3", "oracle"]
    runs = training_runs(Paths(), [1, 2], registry)
    assert [(run.method, run.seed) for run in runs] == [
        (method, seed) for seed in (1, 2) for method in groups["trained"]
    ]


def test_no_policy_stops_where_params_yaml_says_so(params: Params) -> None:
    stops, never = (methods_of(params.rce.tau, TARGETS, stops=value) for value in (True, False))
    assert {m.name for m in stops} - {m.name for m in never} == {"grpo-stop", "sttr-as-many"}


def test_no_instruction_is_tried_where_params_yaml_names_none(params: Params) -> None:
    tried, none = (methods_of(params.rce.tau, TARGETS, instructed=value) for value in (True, False))
    assert {m.name for m in tried} - {m.name for m in none} == {"instructed"}


def test_a_method_is_where_the_stage_that_trains_it_writes() -> None:
    for method in REGISTRY:
        if method.kind == "trained":
            assert method.stage == stage_of(method.name)
            place = Path("artifacts") / method.stage / "seed2" / method.name
            assert Paths().trained(method.name, 2) == place


def test_a_method_of_sft_is_what_it_imitates() -> None:
    (only,) = (m for m in methods_of({}, {"sft": "beams"}) if m.stage == "sft")
    assert (only.name, only.label) == ("sft", REGISTRY["sft-beams"].label)
    assert only.label != REGISTRY["sft"].label


def test_the_references_are_sft_and_the_users_first_schedule() -> None:
    registry = methods_of({"cold": TAU, "warm": TAU}, TARGETS)
    assert registry.references == ["sft", "cold"]
    assert registry.shown == [
        "zero-shot",
        "sttr",
        "random",
        "sft",
        "cold",
        "agro",
        "grpo",
        "grpo-stop",
        "oracle",
    ]
    assert registry.part(["grpo", "sft"]).references == ["sft"]
    assert Methods([]).references == []


@pytest.mark.parametrize("schedules", [["sttr"], ["grpo"]])
def test_a_schedule_that_has_another_methods_name_is_refused(schedules: list[str]) -> None:
    with pytest.raises(UserError, match=rf"two methods are called {schedules[0]} .*rce\.tau"):
        methods_of(dict.fromkeys(schedules, TAU), TARGETS)


def scores_of(*methods: str) -> pd.DataFrame:
    """Return a score table of two questions and one shot."""
    rows = [
        Row(method, 0, query, query, 1, [], [], "x", 1, float(query), False)
        for method in methods
        for query in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_a_summary_says_what_its_methods_are() -> None:
    registry = methods_of({"cold": TAU}, TARGETS, 3, ["mine"])
    summary = summarise(scores_of("mine", "grpo", "cold", "best-of-3"), registry, 100)
    found = methods_in(summary)
    assert [method.name for method in found] == ["mine", "grpo", "cold", "best-of-3"]
    assert all(method == registry[method.name] for method in found)
    assert {row["versus"] for row in summary["differences"]} == {"cold"}


def test_a_method_that_nobody_registered_is_refused() -> None:
    with pytest.raises(
        UserError, match="there is no method other; the methods are zero-shot, instructed"
    ):
        summarise(scores_of("sft", "other"), REGISTRY, 100)


def test_a_summary_of_an_older_version_says_what_to_run() -> None:
    with pytest.raises(UserError, match=r"\(an older version wrote it\): run `dvc repro evaluate`"):
        methods_in({"rows": [], "means": [], "differences": []})


def test_a_summary_that_has_a_method_twice_is_refused() -> None:
    row = {"name": "sft", "stage": "sft", "kind": "trained", "label": "one"}
    with pytest.raises(UserError, match="two methods are called sft"):
        methods_in({"methods": [row, {**row, "label": "two"}]})
    assert list(methods_in({"methods": [row]})) == [Method("sft", "sft", "trained", "one")]
