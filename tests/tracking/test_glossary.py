"""Which entry of the glossary explains a metric."""

import pytest

from glossary_entries import explained


@pytest.mark.parametrize(
    ("metric", "entry"),
    [
        ("train/kl", "train/kl"),
        ("train/kl_step_2", "train/kl_step_<t>"),
        ("eval/acc/shot_02", "eval/acc/shot_<k>"),
        ("eval/acc/shot_02_ci95_low", "eval/acc/shot_<k>_ci95_<bound>"),
        ("delta/vs_rce", "delta/vs_<method>"),
        ("delta/vs_default_agro_high", "delta/vs_<method>_<bound>"),
        ("train/kl_step_x", None),
        ("kl", None),
    ],
)
def test_a_metric_falls_under_the_most_exact_entry(metric: str, entry: str | None) -> None:
    assert explained(metric) == entry
