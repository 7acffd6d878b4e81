"""A variant runs what it changes, and nothing that all variants share."""

from pathlib import Path

import pytest

from lever_plus.config.file import load_params
from lever_plus.errors import UserError
from lever_plus.experiments.ablation.variants import (
    Variant,
    find_variant,
    has_variants,
    params_of,
    read_variants,
    stages_to_run,
)
from tiny_world import ROOT

VARIANTS = read_variants(ROOT).variants
TRAINED = ("sft", "sft-beams", "rce", "agro", "grpo")


def stages(variant: Variant) -> list[str]:
    base = load_params(ROOT / "params.yaml")
    return stages_to_run(variant, base, params_of(variant, ROOT), ROOT)


def variant(**fields: object) -> Variant:
    return Variant.model_validate({"asks": "?", "methods": ["grpo"], "versus": "default", **fields})


@pytest.mark.parametrize(
    ("methods", "params", "expected"),
    [
        (["grpo"], {"grpo": {"epochs": 1}}, ["grpo"]),
        (["agro"], {"agro": {"beta": 0.1}}, ["rce"]),
        (["rce", "grpo"], {"reward": {"clip": 1.0}}, ["sft", "rl_data", "rce", "grpo"]),
        (["agro"], {"rl_data": {"beam": 1}}, ["rl_data", "rce"]),
        (["sft"], {"data": {"sft_queries": 20}}, ["sft_data", "sft"]),
        (["sft-beams", "sft"], {"sft": {"epochs": 2}}, ["sft"]),
        (["sft-beams", "agro"], {"sft": {"epochs": 2}}, ["sft", "rl_data", "rce"]),
    ],
)
def test_it_runs_from_the_first_stage_it_changes_to_the_last_it_needs(
    methods: list[str], params: dict[str, object], expected: list[str]
) -> None:
    assert stages(variant(methods=methods, params=params)) == expected


def test_it_must_change_something() -> None:
    with pytest.raises(UserError, match="changes nothing that is trained"):
        stages(variant())


@pytest.mark.parametrize("params", [{"embed": {"variance": 0.9}}, {"seed": 9}])
def test_what_all_variants_share_can_t_be_changed(params: dict[str, object]) -> None:
    with pytest.raises(UserError, match="which all variants share"):
        stages(variant(params=params))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_project_s_variants_are_valid_and_compared_with_something(name: str) -> None:
    found = VARIANTS[name]
    assert stages(found)
    for method in found.methods:
        other, _, compared = found.compared(method).partition("/")
        known = {"zero-shot", *TRAINED} if other == "default" else VARIANTS[other].methods
        assert compared in known


def test_an_unknown_variant_or_key_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no variant nonsense: it has queries-25"):
        find_variant("nonsense", ROOT)
    with pytest.raises(UserError, match=r"ablations.variants\.yaml is missing"):
        read_variants(tmp_path)
    assert not has_variants(tmp_path)
    path = tmp_path / "ablations" / "variants.yaml"
    path.parent.mkdir()
    path.write_text("seeds: [1]\nvariants: {a: {asks: q, methods: [rce], verses: default}}\n")
    with pytest.raises(UserError, match=r"variants.yaml: variants\.a\.versus is missing"):
        read_variants(tmp_path)
    assert has_variants(tmp_path)


def test_the_curve_is_of_a_question_that_a_variant_asks(tmp_path: Path) -> None:
    path = tmp_path / "ablations" / "variants.yaml"
    path.parent.mkdir()
    variants = "variants: {a: {asks: this, methods: [rce], versus: default}}\n"
    path.write_text(f"seeds: [1]\ncurve: this\n{variants}")
    assert read_variants(tmp_path).curve == "this"
    path.write_text(f"seeds: [1]\ncurve: that\n{variants}")
    with pytest.raises(UserError, match=r"variants.yaml: .*curve: no variant asks 'that'"):
        read_variants(tmp_path)


def test_the_curve_of_the_project_has_five_budgets_of_each_method() -> None:
    """The pipeline's own is one more."""
    drawn = [v for v in VARIANTS.values() if v.asks == read_variants(ROOT).curve]
    for method in ("sft-beams", "sft", "agro"):
        budgets = {params_of(v, ROOT).data.sft_queries for v in drawn if method in v.methods}
        assert len(budgets | {load_params(ROOT / "params.yaml").data.sft_queries}) >= 5
