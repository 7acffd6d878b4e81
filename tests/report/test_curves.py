"""Accuracy over the demonstrations that are shown."""

import pytest
from report_world import PRICES

from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.evaluation.methods import methods_of
from lever_plus.report.curves import HEADER, shown_frame, stop_rows, stop_section

METHODS = methods_of({}, {"sft": "scores"})
ROWS = [
    {"method": method, "shots": shots, "accuracy": shots / 5, "ci95": [0.1, 0.9]}
    for method in (GRPO, GRPO_STOP)
    for shots in (1, 2)
]


def test_fixed_numbers_and_prices_are_points_of_one_curve() -> None:
    """The rows of the method itself, which are limits, are none: it shows what its prices say."""
    frame = shown_frame({"rows": ROWS}, PRICES)
    assert list(frame["method"]) == [GRPO, GRPO, GRPO_STOP, GRPO_STOP]
    assert list(frame["demonstrations"]) == [1, 2, 2.5, 1.25]
    assert frame["price"].isna().tolist() == [True, True, False, False]
    assert list(frame["accuracy"]) == [0.2, 0.4, 0.7, 0.69]


def test_a_line_a_price() -> None:
    first, second = stop_rows(PRICES)
    assert first == ["0", "70.0 [68.0, 72.0]", "2.50", ""]
    assert dict(zip(HEADER, second, strict=True))["demonstrations"] == "1.25"


def test_the_section_labels_its_prices_and_is_left_out_without_any() -> None:
    section = stop_section(PRICES, shown_frame({"rows": ROWS}, PRICES), METHODS)
    assert ">0.06<" in section
    assert ">0<" in section
    assert section.count("<tr>") == 3
    assert stop_section([], shown_frame({"rows": ROWS}, []), METHODS) == ""


@pytest.mark.parametrize("method", [GRPO, GRPO_STOP])
def test_the_plot_names_both(method: str) -> None:
    section = stop_section(PRICES, shown_frame({"rows": ROWS}, PRICES), METHODS)
    assert f">{method}<" in section
