"""Tables and plots of the report: the summary's numbers, and the same bytes for the same data."""

import io
import json
import re

import pandas as pd
import pytest
from report_world import PRICES
from rich.console import Console

from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.summary import summarise
from lever_plus.report import plots, tables
from tiny_world import REGISTRY

STOP = {"price_per": "token", "rows": PRICES}


@pytest.fixture(scope="module")
def summary() -> tables.Summary:
    rows = [
        Row(method, seed, query, query, shot, [], [], "x", 0, score, False)
        for method, seeds, score in (("sft", 1, 0.3), ("rce", 2, 0.6), ("zero-shot", 1, 0.9))
        for seed in range(seeds)
        for query in range(10)
        for shot in ((0,) if method == "zero-shot" else (1, 2))
    ]
    loaded: tables.Summary = json.loads(json.dumps(summarise(pd.DataFrame(rows), REGISTRY, 100)))
    return loaded


def test_a_row_shows_every_shot_the_interval_and_the_seeds(summary: tables.Summary) -> None:
    rows = {row[0]: row for row in tables.accuracy_rows(summary)}
    assert rows["rce"] == ["rce", "60.0", "60.0", "60.0 [60.0, 60.0]", "10", "2 (60.0-60.0)"]
    assert rows["zero-shot"] == ["zero-shot", "", "", "90.0 [90.0, 90.0]", "10", "1"]
    assert len(tables.accuracy_header(summary)) == len(rows["rce"])


def test_the_terminal_says_first_what_the_methods_are(summary: tables.Summary) -> None:
    stream = io.StringIO()
    tables.print_tables(summary, Console(file=stream, width=150), {}, STOP)
    assert stream.getvalue().index("zero-shot  no demonstrations") < stream.getvalue().index("VQA")


def test_the_terminal_has_a_line_a_price_where_a_policy_stops(summary: tables.Summary) -> None:
    said = []
    for stop in (STOP, {**STOP, "rows": []}):
        stream = io.StringIO()
        tables.print_tables(summary, Console(file=stream, width=150), {}, stop)
        said.append(stream.getvalue())
    assert "grpo-stop by price, points of reward for each token added" in said[0]
    assert re.search(r"0\.06 +69\.0 \[67\.0, 71\.0\] +1\.25 +100 +2 \(68\.0-70\.0\)", said[0])
    assert "price" not in said[1]


def test_the_results_of_an_older_version_say_what_to_run(summary: tables.Summary) -> None:
    older = {key: value for key, value in summary.items() if key != "methods"}
    assert list(tables.accuracy_rows(older)) == list(tables.accuracy_rows(summary))
    with pytest.raises(UserError, match="run `dvc repro evaluate`"):
        tables.print_tables(older, Console(file=io.StringIO()), {}, STOP)


def test_what_is_known_of_the_costs_stands_beside_the_accuracy(summary: tables.Summary) -> None:
    assert list(tables.cost_rows(summary, {"sft": 0.1})) == [], "an older version says nothing"
    costs = {"demonstrations": 1.5, "prompt_tokens": 41.25, "vlm_requests": 52_000.0}
    rows = [{**row, "demonstrations": 0, "prompt_tokens": None} for row in summary["rows"]]
    means = [{**row, **costs} for row in summary["means"]]
    known = {**summary, "rows": rows, "means": means}
    found = {row[0]: row[1:] for row in tables.cost_rows(known, {"sft": 0.123, "other": 1.0})}
    accuracy = {row["method"]: tables.percent(row) for row in means}
    assert found["zero-shot"][1:] == ["0.00", "", "", ""]
    assert found["sft"] == [accuracy["sft"], "1.50", "41.2", "52,000", "0.12"]
    assert found["rce"] == [accuracy["rce"], "1.50", "41.2", "52,000", ""]
    stream = io.StringIO()
    tables.print_tables(known, Console(file=stream, width=80), {"sft": 0.123}, STOP)
    assert "on this machine" in stream.getvalue()
    assert "52,000  0.12" in stream.getvalue()


def test_differences_that_do_not_separate_say_so(summary: tables.Summary) -> None:
    rows = {row[0]: row for row in tables.difference_rows(summary)}
    assert rows["rce"] == ["rce", "+30.0 [+30.0, +30.0]†", ""]
    assert tables.difference_header(summary) == ["method", "minus SFT [95 %]", "minus RCE [95 %]"]
    row = {
        **{"difference": 0.01, "ci95": [-0.01, 0.03], "separable": False, "trainings": 3},
        **{"one_training": False, "trainings_needed": None},
    }
    assert tables.points(row) == "+1.0 [-1.0, +3.0] n.s."
    assert tables.notes([row]) == [f"n.s.: {tables.CHANCE}"]
    more = {**row, "trainings_needed": 7}
    assert tables.points(more) == "+1.0 [-1.0, +3.0] not settled by 3 trainings (7 would)"
    assert tables.notes([row, more])[-1] == tables.UNSETTLED
    assert tables.notes([{**row, "separable": True}]) == []


def test_what_was_trained_once_is_marked_and_the_mark_explained(summary: tables.Summary) -> None:
    rows = {row[0]: row for row in tables.accuracy_rows(summary)}
    assert [rows[name][3].endswith("]†") for name in ("sft", "rce", "zero-shot")] == [
        *(True, False, False)
    ]
    stream = io.StringIO()
    tables.print_tables(summary, Console(file=stream, width=150), {}, STOP)
    once = "† trained only once: the interval does not include how much trainings differ."
    assert stream.getvalue().count(once) == 2


def test_every_gain_stands_under_its_demonstration(summary: tables.Summary) -> None:
    assert tables.gain_header(summary) == ["method", "1st [95 %]", "2nd [95 %]"]
    assert list(tables.gain_rows(summary)) == [
        ["sft", "-60.0 [-60.0, -60.0]†", "+0.0 [+0.0, +0.0]† n.s."],
        ["rce", "-30.0 [-30.0, -30.0]", "+0.0 [+0.0, +0.0] n.s."],
    ]
    assert list(tables.gain_rows({**summary, "gains": []})) == []


def test_equal_data_draw_equal_bytes(summary: tables.Summary) -> None:
    frame = plots.curve_frame(summary)
    assert plots.curve_svg(frame) == plots.curve_svg(frame)


def test_what_shows_nothing_is_a_line_of_its_own_style(summary: tables.Summary) -> None:
    frame = plots.curve_frame(summary)
    zero = frame[frame["method"] == "zero-shot"]
    svg = plots.curve_svg(pd.concat([frame, zero.assign(method="instructed")]))
    grey = re.findall(r"stroke-dasharray: ([^;]+);[^\"]*stroke: #666666", svg)
    assert len(grey) == 4  # each in the plot and in the legend
    assert len(set(grey)) == 2


def test_histories_become_one_frame_per_quantity() -> None:
    histories = {"a": [{"epoch": 0}, {"epoch": 1, "kl": 0.5}], "b": [{"epoch": 1, "kl": 0.7}]}
    frame = plots.history_frame(histories, "kl")
    assert frame.to_dict("list") == {"run": ["a", "b"], "epoch": [1, 1], "kl": [0.5, 0.7]}


def test_a_run_has_the_colour_of_its_method_and_the_line_of_its_seed() -> None:
    runs = [f"{method} seed {seed}" for method in ("sft", "rce", "grpo") for seed in (1, 2, 3)]
    histories = {run: [{"epoch": e, "kl": float(e)} for e in (0, 1)] for run in runs}
    svg = plots.trace_svg(plots.history_frame(histories, "kl"), "kl", "KL")
    curves = [part for part in svg.split('<g id="line2d_') if "stroke-width: 1.4" in part]
    colours = [re.findall(r"stroke: (#[0-9a-f]{6})", part)[0] for part in curves[:9]]
    assert colours == [plots.COLOURS[i] for i in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    for label in ("sft", "rce", "grpo", "seed 1", "seed 2", "seed 3"):
        assert f">{label}</text>" in svg
    assert ">rce seed 1<" not in svg


def test_a_method_looks_the_same_in_every_plot(summary: tables.Summary) -> None:
    frame = plots.curve_frame(summary)
    rce = frame[frame["method"] == "rce"]
    assert plots.COLOURS[0] in plots.curve_svg(rce)
    svg = plots.curve_svg(rce, "RCE", ["sft", "rce"])
    assert plots.COLOURS[1] in svg
    assert plots.COLOURS[0] not in svg


def test_a_method_and_its_seeds_are_all_unlike_the_next_ones() -> None:
    colours, markers = len(plots.COLOURS), len(plots.MARKERS)
    looks = {(i % colours, i % markers) for i in range(112)}
    assert len(set(plots.COLOURS)) == colours
    assert len(looks) == colours * markers == 112


def test_p_values_are_not_too_exact() -> None:
    assert [tables.p_value(p) for p in (0.00002, 0.0456, 1.0)] == ["<.001", "0.046", "1.000"]


def test_markdown_has_one_line_a_row() -> None:
    assert tables.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
