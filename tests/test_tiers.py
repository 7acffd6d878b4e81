"""The tests that run after every edit see every subpackage, and what must be impossible."""

import ast
import re
from pathlib import Path

import pytest

from test_structure import SUBPACKAGES
from tiers import NO_SKIPS
from tiny_world import ROOT

FAST = (ROOT / "tests" / "fast.txt").read_text(encoding="utf-8").split()
ELSEWHERE = {
    "errors": "tests/test_base_install.py::test_a_package_that_is_missing_is_explained",
    "bench": "tests/vlm/test_bench_sized.py::test_an_unknown_size_names_the_known_ones",
}
"""Subpackages without tests of their own, and a test of each."""
IMPOSSIBLE = {
    "a pointer that names an item outside the pool, or twice": (
        "selectors/test_protocol.py::test_a_selection_that_is_no_pointer_into_its_pool_is_refused",
        "data/test_pools.py::test_a_pointer_that_repeats_an_example_is_refused",
        "training/rl_data/test_records.py::test_an_item_outside_the_pool_is_named_with_its_query",
    ),
    "a policy used in another feature space, or on other pools": (
        "policy/test_checkpoint.py::test_another_feature_space_is_refused_whatever_the_pool",
        "policy/test_checkpoint.py::test_another_pool_is_refused",
        "selectors/test_load_selector.py::test_another_encoder_is_refused",
    ),
    "a score that is not the official metric": (
        "data/test_vqa_files.py::"
        "test_another_number_of_answers_is_a_marked_fallback_only_on_request",
        "metric/test_vqa.py",
    ),
    "half-loaded weights, or anything unpickled": (
        "policy/test_checkpoint.py::test_weights_that_are_cut_off_anywhere_are_refused",
        "policy/test_checkpoint.py::test_a_pickle_is_refused",
        "policy/test_checkpoint.py::test_other_weights_than_the_architecture_s_are_refused",
    ),
    "a prompt that differs between training, evaluation and use": (
        "hosts/test_proxy.py::test_200_unseen_questions_are_sent_on_as_the_pipeline_sends_them",
    ),
    "a log-prob ratio polluted by dropout": (
        "training/test_learning.py::test_log_probs_that_are_compared_are_free_of_dropout",
        "policy/test_dropout.py::test_nothing_is_dropped_in_eval_mode_nor_at_rate_0",
    ),
    "a group without its losers, or a constant group that pushes": (
        "training/test_groups.py::test_padding_and_repeats_are_not_kept_and_losers_are",
        "training/test_constant_groups.py::test_constant_groups_do_not_push_the_policy",
    ),
    "a query among its own demonstrations, or one with its image": (
        "data/test_pools.py::test_no_query_and_no_example_with_its_image_is_in_its_pool",
        "selectors/test_protocol.py::test_a_candidate_with_the_query_s_image_is_never_chosen",
    ),
    "a result without its noise": (
        "evaluation/test_summary.py::test_the_paired_interval_is_narrower_than_the_unpaired_one",
        "evaluation/test_compare.py::"
        "test_intervals_resample_pictures_whole_whatever_file_holds_them",
    ),
    "a test question that chooses anything": (
        "pipeline/test_stages.py::"
        "test_a_stage_asks_questions_of_its_own_splits_and_shows_training_examples",
        "training/test_learning.py::test_rewards_are_asked_for_dev_and_for_fresh_candidates_alone",
    ),
    "a stage that is up to date though its code changed": (
        "tracking/test_lineage.py::test_dvc_yaml_lists_the_closure_of_every_stage",
    ),
    "a parameter without an effect, or one that is not in params.yaml": (
        "pipeline/test_params_table.py::"
        "test_a_leaf_is_read_by_its_stages_alone_and_has_another_value",
        "pipeline/test_dvc_yaml.py::test_every_param_is_a_dependency_of_some_stage",
    ),
    "an answer under an identity that does not cover what made it": (
        "vlm/test_store.py::test_another_model_prompt_or_decoding_is_another_answer",
        "vlm/test_store.py::test_the_key_is_the_content_of_the_prompt",
    ),
    "a name from a file used as a path without being checked": (
        "files/test_image_names.py::test_what_is_none",
        "hub/test_loading.py::"
        "test_what_is_no_name_of_a_shipped_model_is_refused_with_those_that_are",
    ),
    "tracking that ends a training": ("tracking/test_live.py::test_rows_do_not_wait_for_mlflow",),
    "an image whose pixels depend on how its file was stored": (
        "data/test_images.py::test_every_orientation_is_set_upright",
        "data/test_images.py::test_a_server_is_sent_the_same_pixels",
    ),
}
"""What must be impossible, and tests that fail if it is not."""


def is_fast(test: str) -> bool:
    """Return whether a test, or a file of tests, is run after every edit."""
    path = test.partition("::")[0]
    return any(test == each or f"{path}/".startswith(f"{each}/") for each in FAST)


def functions(path: Path) -> dict[str, list[str]]:
    """Return the tests of a file, and the decorators of each."""
    return {
        node.name: [ast.unparse(each) for each in node.decorator_list]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_what_the_list_names_is_there() -> None:
    assert len(set(FAST)) == len(FAST)
    for each in FAST:
        path, _, name = each.partition("::")
        assert (ROOT / path).exists(), each
        assert not name or name in functions(ROOT / path), each


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_every_subpackage_has_a_fast_test(subpackage: str) -> None:
    own = any(each.startswith(f"tests/{subpackage}") for each in FAST)
    other = is_fast(ELSEWHERE.get(subpackage, ""))
    assert own or other, f"add a file of tests/{subpackage} to tests/fast.txt"


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_must_be_impossible_is_seen_by_a_fast_test(what: str) -> None:
    for test in IMPOSSIBLE[what]:
        assert is_fast(f"tests/{test}"), test
        path, _, name = test.partition("::")
        found = functions(ROOT / "tests" / path)
        whole = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not re.search(r"^pytestmark = pytest.mark.(slow|long)", whole, re.MULTILINE), test
        marks = " ".join(found[name] if name else ())
        assert "mark.slow" not in marks, test
        assert "mark.long" not in marks, test


SKIPPING = """
import pytest

@pytest.mark.skip(reason="of a mark")
def test_marked(): ...

def test_inside():
    pytest.skip("inside")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("no_skips", "outcomes"),
    [("0", {"skipped": 2, "xfailed": 1}), ("1", {"failed": 1, "errors": 1, "xfailed": 1})],
    ids=["allowed", "refused"],
)
def test_where_every_part_is_installed_a_test_that_is_skipped_fails(
    no_skips: str,
    outcomes: dict[str, int],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NO_SKIPS, no_skips)
    pytester.makepyfile(SKIPPING)
    done = pytester.runpytest_inprocess("-p", "tiers", "-p", "no:xdist")
    assert done.parseoutcomes() == outcomes


def test_files_with_slow_tests_run_last(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import pytest\n@pytest.mark.slow\ndef test_slow(): ...\ndef test_quick(): ..."
    pytester.makepyfile(test_a=slow, test_b="def test_b(): ...", test_params_table=slow)
    pytester.makeini("[pytest]\nmarkers = slow\n  long")
    # In a process of its own: this one may have imported another test_params_table.
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    done = pytester.runpytest_subprocess("-p", "tiers", "-p", "no:xdist", "--collect-only", "-q")
    files = [line.partition("::")[0] for line in done.outlines if "::" in line]
    assert files == ["test_b.py", *["test_params_table.py"] * 2, *["test_a.py"] * 2]
