"""Accuracy over the demonstrations that are shown."""

import pytest
from report_world import PRICES

from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.evaluation.methods import STTR_AS_MANY, methods_of
from lever_plus.report.curves import shown_frame, stop_section
from lever_plus.report.tables import STOP_HEADER, stop_rows

METHODS = methods_of({}, {"sft": "scores"})
STOP = {"price_per": "demonstration", "rows": PRICES}
ROWS = [
    {
        **{"method": method, "shots": shots, "accuracy": shots / 5, "ci95": [0.1, 0.9]},
        "demonstrations": shots * shown,
    }
    for method, shown in ((GRPO, 1), (STTR_AS_MANY, 0.75), (GRPO_STOP, 0.75))
    for shots in (1, 2)
]


def test_every_point_is_where_its_demonstrations_are() -> None:
    """The method's own rows, which are at one price, are none: it has a point a price."""
    frame = shown_frame({"rows": ROWS}, PRICES)
    assert list(frame["method"]) == [*[GRPO] * 2, *[STTR_AS_MANY] * 2, *[GRPO_STOP] * 2]
    assert list(frame["demonstrations"]) == [1, 2, 0.75, 1.5, 2.5, 1.25]
    assert frame["price"].isna().tolist() == [True, True, True, True, False, False]
    assert list(frame["accuracy"]) == [0.2, 0.4, 0.2, 0.4, 0.7, 0.69]


def test_what_an_older_version_does_not_say_has_no_point() -> None:
    older = [{key: row[key] for key in row.keys() - {"demonstrations"}} for row in ROWS]
    assert shown_frame({"rows": older}, []).empty


def test_a_line_a_price() -> None:
    first, second = stop_rows(PRICES)
    assert first == ["0", "70.0 [68.0, 72.0]", "2.50", "", "100", "2 (69.0-71.0)"]
    assert dict(zip(STOP_HEADER, second, strict=True))["shown"] == "1.25"


def test_the_section_labels_its_prices_and_is_left_out_without_any() -> None:
    section = stop_section(STOP, shown_frame({"rows": ROWS}, PRICES), METHODS)
    assert ">0.06<" in section
    assert ">0<" in section
    assert section.count("<tr>") == 3
    assert stop_section({**STOP, "rows": []}, shown_frame({"rows": ROWS}, []), METHODS) == ""


@pytest.mark.parametrize(
    ("unit", "said"),
    [("demonstration", "for each demonstration."), ("token", "for each token added.")],
)
def test_the_section_says_what_a_price_is(unit: str, said: str) -> None:
    stop, frame = {**STOP, "price_per": unit}, shown_frame({"rows": ROWS}, PRICES)
    assert said in stop_section(stop, frame, METHODS)


@pytest.mark.parametrize("method", [GRPO, GRPO_STOP])
def test_the_plot_names_both(method: str) -> None:
    section = stop_section(STOP, shown_frame({"rows": ROWS}, PRICES), METHODS)
    assert f">{method}<" in section
