"""The transfer matrix: who trained, where it was used, what is kept, in numbers and a sentence."""

import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

from report_world import Made

from lever_plus.pipeline import report
from lever_plus.pipeline.outputs import write_metrics
from lever_plus.report.tables import percent, points
from lever_plus.report.transfer import transfer_section


def difference(value: float, *, separable: bool = True) -> dict[str, Any]:
    return {
        **{"difference": value, "ci95": [value - 0.02, value + 0.02], "n": 50},
        **{"one_training": False, "separable": separable, "trainings": 3, "trainings_needed": None},
    }


def row(
    variant: str,
    method: str,
    policies: str,
    used: str,
    accuracy: float,
    gained: float | None = None,
    lost: float | None = None,
    *,
    separable: bool = True,
) -> dict[str, Any]:
    return {
        **{"variant": variant, "method": method, "policies": policies, "used": used},
        **{"accuracy": accuracy, "ci95": [accuracy - 0.02, accuracy + 0.02], "n": 50},
        "versus": f"{used}/sttr" if gained is not None else "",
        "difference": None if gained is None else difference(gained, separable=separable),
        "to_trained_there": None if lost is None else difference(lost),
    }


PLAIN = [
    row("here", "sttr", "", "here", 0.3),
    row("here", "grpo", "here", "here", 0.8, 0.5),
    row("there", "sttr", "", "there", 0.2),
    row("there", "grpo", "there", "there", 0.6, 0.4),
]
"""Two variants that train, each in its place."""
TO_THERE = row("to-there", "grpo", "here", "there", 0.5, 0.3, -0.1)
FEWER = [
    row("fewer", "sttr", "", "fewer", 0.3),
    row("fewer", "grpo", "here", "fewer", 0.31, 0.01, separable=False),
]
OTHER = row("epochs", "grpo", "epochs", "epochs", 0.7, 0.1)
"""A variant of another question."""


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in rows]


def test_the_matrix_has_who_trained_down_and_where_it_was_used_across() -> None:
    html = transfer_section([*PLAIN, TO_THERE, *FEWER, OTHER])
    found = cells(html)

    def cell(each: dict[str, Any]) -> str:
        shown = [points(each["difference"])] if each["difference"] else []
        return "; ".join([percent(each), *shown])

    assert found[:4] == [
        ["method", "trained", "here", "there", "fewer"],
        ["sttr", "", cell(PLAIN[0]), cell(PLAIN[2]), cell(FEWER[0])],
        ["grpo", "here", cell(PLAIN[1]), cell(TO_THERE), cell(FEWER[1])],
        ["grpo", "there", "", cell(PLAIN[3]), ""],
    ]
    assert "n.s." in found[2][4]
    assert "n = 50 questions." in html
    assert found[5] == ["grpo", "here", "there", points(difference(-0.1)), "75%", "50"]
    assert len(found) == 6


def test_a_sentence_says_whether_a_method_carries_over_and_what_it_keeps() -> None:
    text = unescape(transfer_section([*PLAIN, TO_THERE]))
    assert (
        "grpo carries over: it is better than sttr in 1 of 1 places where it was not trained, by "
        "+30.0 points; with there, it keeps 75% of the gain of one trained there."
    ) in text
    text = unescape(transfer_section([*PLAIN, TO_THERE, *FEWER]))
    assert "grpo carries over in part: it is better than sttr in 1 of 2 places" in text
    text = unescape(transfer_section([*PLAIN, *FEWER]))
    assert "grpo does not carry over: it is not better anywhere it was not trained." in text
    assert "kept" not in text.lower()


def test_what_is_worse_than_similarity_is_not_called_better() -> None:
    worse = row("to-there", "grpo", "here", "there", 0.1, -0.1, -0.5)
    assert "does not carry over" in transfer_section([*PLAIN, worse])


def test_nothing_is_kept_of_no_gain() -> None:
    carried = row("to-there", "grpo", "here", "there", 0.3, 0.1, 0.2)
    assert cells(transfer_section([*PLAIN, carried]))[-1][4] == ""


def test_the_page_has_the_matrix_of_the_file(project: Made, tmp_path: Path) -> None:
    paths = replace(project.paths, moved={"report": tmp_path}, metrics_in=tmp_path)
    shutil.copytree(project.paths.metrics, tmp_path, dirs_exist_ok=True)
    spread = {"spread": {"trainings": 0.0, "questions": 0.1, "noise": 0.0}, "p": 0.0, "p_holm": 0.0}
    rows = [
        {
            **{**each, "shots": {"1": 0.5}, "one_training": False, "reward_std": None},
            **{k: {**each[k], **spread} for k in ("difference", "to_trained_there") if each[k]},
        }
        for each in (*PLAIN, TO_THERE)
    ]
    write_metrics(paths.ablations, {"rows": rows})
    report.run(project.settings, paths)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert transfer_section(rows) in html


def test_without_transfers_there_is_no_section() -> None:
    assert transfer_section([*PLAIN, OTHER]) == ""
