"""A variant runs what it changes, and nothing that all variants share."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lever_plus.config.file import load_params
from lever_plus.errors import UserError
from lever_plus.experiments.ablation.transfer import place_of
from lever_plus.experiments.ablation.variants import (
    Transfer,
    Variant,
    Variants,
    find_variant,
    has_variants,
    params_of,
    read_variants,
    stages_to_run,
)
from tiny_world import ROOT

WHOLE = read_variants(ROOT)
VARIANTS = WHOLE.variants
TRAINED = ("sft", "sft-beams", "rce", "agro", "grpo")


def stages(variant: Variant) -> list[str]:
    base = load_params(ROOT / "params.yaml")
    return stages_to_run(variant, base, params_of(variant, ROOT), ROOT)


def variant(**fields: object) -> Variant:
    return Variant.model_validate({"asks": "?", "methods": ["grpo"], "versus": "default", **fields})


@pytest.mark.parametrize(
    ("methods", "params", "expected"),
    [
        (["grpo", "sttr"], {}, []),
        (["sft"], {"vlm": {"path": "shipped:vlm-2"}}, ["sft_data", "sft"]),
        (["sttr", "rce"], {"pool": {"size": 16}}, ["pool", "sft_data", "sft", "rl_data", "rce"]),
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


@pytest.mark.parametrize(
    ("methods", "params"),
    [
        (["grpo"], {"evaluate": {"best_of": 3}}),
        (["grpo"], {"grpo": {}}),
        (["sft"], {"grpo": {"epochs": 1}}),
    ],
)
def test_what_it_changes_must_train_something(
    methods: list[str], params: dict[str, object]
) -> None:
    with pytest.raises(UserError, match="changes nothing that affects the training"):
        stages(variant(methods=methods, params=params))


def test_something_in_it_must_be_trained() -> None:
    with pytest.raises(ValidationError, match="none of them is trained"):
        variant(methods=["sttr", "zero-shot"])


@pytest.mark.parametrize("params", [{"embed": {"variance": 0.9}}, {"seed": 9}])
def test_what_all_variants_share_can_t_be_changed(params: dict[str, object]) -> None:
    with pytest.raises(UserError, match="which all variants share"):
        stages(variant(params=params))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_project_s_variants_are_valid_and_compared_with_something(name: str) -> None:
    found = VARIANTS[name]
    assert stages(found) or not found.params
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


TWO = {
    "here": {"asks": "?", "methods": ["sttr", "sft", "grpo"], "versus": "here/sttr"},
    "there": {
        **{"asks": "?", "methods": ["sttr", "sft"], "versus": "there/sttr"},
        "params": {"vlm": {"path": "shipped:vlm-2"}},
    },
}
"""Variants that train in two places."""
CARRIED = {
    **{"asks": "?", "policies": "here", "methods": ["sft", "grpo"], "versus": "there/sttr"},
    "params": {"vlm": {"path": "shipped:vlm-2"}},
}
"""A transfer from the first place to the second."""


def with_transfer(**fields: object) -> Variants:
    transfers = {"carried": {**CARRIED, **fields}}
    return Variants.model_validate({"seeds": [1], "variants": TWO, "transfers": transfers})


def test_a_row_knows_whose_policies_it_uses_where_and_what_it_is_compared_with() -> None:
    found = with_transfer()
    assert [found.place(name) for name in found.whole] == ["here", "there", "there"]
    assert found.policies_of("carried", "sft") == "here"
    assert found.policies_of("there", "sft") == "there"
    assert found.policies_of("there", "sttr") == ""
    assert found.trained_there("carried", "sft") == "there/sft"
    assert found.trained_there("carried", "grpo") == ""
    assert found.trained_there("there", "sft") == ""
    assert found.compared("there", "sft") == "there/sttr"
    assert found.compared("there", "sttr") == ""


def test_a_place_belongs_to_one_question() -> None:
    found = with_transfer(asks="something else")
    assert found.place("carried") == "carried"
    assert found.trained_there("carried", "sft") == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"policies": "nobody"}, "there is no variant of this name that"),
        ({"policies": "carried"}, "there is no variant of this name that"),
        ({"policies": "there"}, "it has no policies of grpo"),
        ({"policies": "there", "methods": ["sft"]}, "these were trained with the same params"),
        ({"versus": "there/grpo"}, r"transfers\.carried\.versus: .*there does not evaluate grpo"),
        ({"versus": "carried"}, "compares the variant with itself"),
    ],
)
def test_a_transfer_uses_policies_that_there_are_elsewhere(
    fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        with_transfer(**fields)


@pytest.mark.parametrize(
    "params",
    [{"sft": {"epochs": 1}}, {"seed": 2}, {"pointer": {"price": 0.1}}, {"rce": {"epochs": 1}}],
)
def test_a_transfer_changes_vlm_and_pools_alone(params: dict[str, object]) -> None:
    transfer = Transfer.model_validate({**CARRIED, "params": params})
    base = load_params(ROOT / "params.yaml")
    with pytest.raises(UserError, match="but a transfer trains nothing"):
        place_of(transfer, base, ROOT)


@pytest.mark.parametrize("name", WHOLE.transfers)
def test_the_project_s_transfers_are_valid(name: str) -> None:
    transfer, base = WHOLE.transfers[name], load_params(ROOT / "params.yaml")
    changed = place_of(transfer, base, ROOT)
    assert (changed.vlm, changed.pool) != (base.vlm, base.pool) or transfer.policies == "vlm-2"
    assert set(transfer.baselines) <= {"sttr"}


def test_the_curve_is_of_a_question_that_a_variant_asks(tmp_path: Path) -> None:
    path = tmp_path / "ablations" / "variants.yaml"
    path.parent.mkdir()
    variants = "variants: {a: {asks: this, methods: [rce], versus: default}}\n"
    path.write_text(f"seeds: [1]\ncurve: this\n{variants}")
    assert read_variants(tmp_path).curve == "this"
    path.write_text(f"seeds: [1]\ncurve: that\n{variants}")
    with pytest.raises(UserError, match=r"variants.yaml: .*curve: no variant has 'that'"):
        read_variants(tmp_path)


def test_the_curve_of_the_project_has_five_budgets_of_each_method() -> None:
    """The pipeline's own is one more."""
    drawn = [v for v in VARIANTS.values() if v.asks == read_variants(ROOT).curve]
    for method in ("sft-beams", "sft", "agro"):
        budgets = {params_of(v, ROOT).data.sft_queries for v in drawn if method in v.methods}
        assert len(budgets | {load_params(ROOT / "params.yaml").data.sft_queries}) >= 5
