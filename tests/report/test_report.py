"""The report shows the summary's numbers, needs no network, and is the same for the same data."""

import json
import re

import pandas as pd
import pytest

from lever_plus.evaluation.evaluate import COLUMNS
from lever_plus.evaluation.summary import summarise
from lever_plus.report import plots, tables
from lever_plus.report.page import page, table


@pytest.fixture(scope="module")
def summary() -> tables.Summary:
    rows = [
        (method, seed, query, shot, [], "x", 0, score, False)
        for method, seeds, score in (("sft", 1, 0.3), ("rce", 2, 0.6), ("zero-shot", 1, 0.9))
        for seed in range(seeds)
        for query in range(10)
        for shot in ((0,) if method == "zero-shot" else (1, 2))
    ]
    loaded: tables.Summary = json.loads(
        json.dumps(summarise(pd.DataFrame(rows, columns=list(COLUMNS)), 100))
    )
    return loaded


def test_a_row_shows_every_shot_the_interval_and_the_seeds(summary: tables.Summary) -> None:
    rows = {row[0]: row for row in tables.accuracy_rows(summary)}
    assert rows["rce"] == ["rce", "60.0", "60.0", "60.0 [60.0, 60.0]", "10", "2 (60.0-60.0)"]
    assert rows["zero-shot"] == ["zero-shot", "", "", "90.0 [90.0, 90.0]", "10", "1"]
    assert len(tables.accuracy_header(summary)) == len(rows["rce"])


def test_differences_that_do_not_separate_say_so(summary: tables.Summary) -> None:
    rows = {row[0]: row for row in tables.difference_rows(summary)}
    assert rows["rce"] == ["rce", "+30.0 [+30.0, +30.0]", ""]
    row = {"difference": 0.01, "ci95": [-0.01, 0.03], "separable": False}
    assert tables.points(row) == "+1.0 [-1.0, +3.0] not separable"


def test_the_page_is_self_contained_and_escapes(summary: tables.Summary) -> None:
    svg = plots.curve_svg(plots.curve_frame(summary))
    html = page("T<i>", "lead", {"Curve": svg, "Table": table(["a"], [["<b>"]])})
    assert "T&lt;i&gt;" in html
    assert "&lt;b&gt;" in html
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r'(src|href)="https?:', without_namespaces)
    assert "<script" not in html


def test_equal_data_draw_equal_bytes(summary: tables.Summary) -> None:
    frame = plots.curve_frame(summary)
    assert plots.curve_svg(frame) == plots.curve_svg(frame)


def test_histories_become_one_frame_per_quantity() -> None:
    histories = {"a": [{"epoch": 0}, {"epoch": 1, "kl": 0.5}], "b": [{"epoch": 1, "kl": 0.7}]}
    frame = plots.history_frame(histories, "kl")
    assert frame.to_dict("list") == {"run": ["a", "b"], "epoch": [1, 1], "kl": [0.5, 0.7]}


def test_markdown_has_one_line_a_row() -> None:
    assert tables.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
