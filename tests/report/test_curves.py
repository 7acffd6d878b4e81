"""Accuracy over the demonstrations that are shown, and over the VLM requests to train."""

import re

import pytest
from report_world import PRICES

from lever_plus.config.names import GRPO, GRPO_STOP, SFT
from lever_plus.evaluation.methods import STTR_AS_MANY, methods_of
from lever_plus.report.curves import requests_frame, requests_section, shown_frame, stop_section
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


def answer(variant: str, method: str, requests: float | None, **other: object) -> dict[str, object]:
    """Return a row of metrics/ablations.json, as far as it is drawn."""
    row = {"asks": "Is <it> worth it?", "variant": variant, "method": method, "accuracy": 0.5}
    return {**row, "ci95": [0.4, 0.7], "vlm_requests": requests, **other}


ABLATIONS = {
    "curve": "Is <it> worth it?",
    "rows": [
        answer("few", SFT, 20_000.0),
        answer("few", GRPO, 200_000.5),
        answer("many", SFT, 90_000.0, accuracy=0.6),
        answer("default", SFT, 50_000.0),
        answer("default", GRPO, 300_000.0),
        answer("older", GRPO, None),
        answer("untrained", STTR_AS_MANY, 0.0),
        answer("v2", SFT, 70_000.0, asks="And this?"),
        {"variant": "default", "method": GRPO, "asks": ""},
    ],
}


def test_a_method_s_points_are_in_the_order_of_what_they_took() -> None:
    """What asked nothing, or does not say it, has no place on a log scale; others ask other."""
    frame = requests_frame(ABLATIONS)
    assert list(frame.columns) == ["method", "variant", "requests", "accuracy", "low", "high"]
    assert frame.to_numpy().tolist() == [
        [SFT, "few", 20_000.0, 0.5, 0.4, 0.7],
        [SFT, "default", 50_000.0, 0.5, 0.4, 0.7],
        [SFT, "many", 90_000.0, 0.6, 0.4, 0.7],
        [GRPO, "few", 200_000.5, 0.5, 0.4, 0.7],
        [GRPO, "default", 300_000.0, 0.5, 0.4, 0.7],
    ]


def test_the_curve_over_requests_is_drawn_under_its_question() -> None:
    section = requests_section(ABLATIONS, METHODS)
    assert section.startswith("<h4>Is &lt;it&gt; worth it?</h4>")
    for text in (SFT, GRPO, "50,000", "100,000", "200,000", "VLM requests to train"):
        assert f">{text}<" in section
    assert f">{STTR_AS_MANY}<" not in section


def test_twice_as_many_requests_are_as_far_anywhere() -> None:
    section = requests_section(ABLATIONS, METHODS)
    half, one, two = (
        float(re.findall(rf'x="([\d.]+)"[^>]*>{text}<', section)[0])
        for text in ("50,000", "100,000", "200,000")
    )
    assert two - one == pytest.approx(one - half) != 0


@pytest.mark.parametrize("curve", [None, "nobody asks this"])
def test_nothing_is_drawn_where_no_row_answers(curve: str | None) -> None:
    ablations = {**ABLATIONS, "curve": curve}
    assert requests_frame(ablations).empty
    assert requests_section(ablations, METHODS) == ""


def test_a_method_that_only_a_variant_trains_is_drawn_too() -> None:
    rows = [answer("few", "rce-slow", 20_000.0), answer("few", SFT, 10_000.0)]
    assert ">rce-slow<" in requests_section({**ABLATIONS, "rows": rows}, METHODS)
