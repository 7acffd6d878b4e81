"""The ladder: all methods ordered by accuracy, with their 95 % intervals, as text on a scale."""

from html import escape
from typing import Any, Final

from lever_plus.evaluation.methods import Method, methods_in
from lever_plus.evaluation.plain_names import explained
from lever_plus.report.page import note
from lever_plus.report.tables import Summary

Row = dict[str, Any]
MARKS: Final = {"trained": "learned", "ceiling": "told"}
"""{kind of a method: how its point looks}; the others are `plain`."""
TEXT: Final = (
    "Each point is a method's accuracy, averaged over all numbers of demonstrations, and each bar "
    "its 95 % interval. ● learned; ○ not learned; ◇ is told the true answers, so it is no selector "
    "that one could use, but shows how far one could get."
)


def rungs(summary: Summary) -> list[tuple[Method, Row]]:
    """Return every method with its accuracy (mean over shots), the lowest first."""
    rows = {row["method"]: row for row in [*summary["rows"], *summary["means"]]}
    known = [(method, rows[method.name]) for method in methods_in(summary) if method.name in rows]
    return sorted(known, key=lambda pair: float(pair[1]["accuracy"]))


def ladder(summary: Summary) -> str:
    """Return the ladder as HTML: it needs no script, and is as wide as there is room."""
    found = rungs(summary)
    most = max((row["n"] for _, row in found), default=0)
    fewer = sorted({row["n"] for _, row in found} - {most})
    asked = f" On {most:,} test questions"
    asked += f", those marked with * on the first {fewer[0]:,}." if fewer else "."
    lines = "".join(_rung(method, row, starred=row["n"] != most) for method, row in found)
    ticks = "".join(f'<span style="left:{tick}%">{tick}</span>' for tick in range(0, 101, 25))
    scale = f'<div class="ticks" aria-hidden="true">{ticks}</div>'
    unit = '<p class="unit">VQA accuracy, %</p>'
    return note(TEXT + asked) + f'<ol class="ladder">{lines}</ol>{scale}{unit}'


def _rung(method: Method, row: Row, *, starred: bool) -> str:
    at, (low, high) = 100 * row["accuracy"], (100 * bound for bound in row["ci95"])
    numbers = f"{at:.1f} [{low:.1f}, {high:.1f}]{'*' if starred else ''}"
    mark = MARKS.get(method.kind, "plain")
    return (
        f'<li class="rung {mark}"><span class="name">{escape(explained(method))}</span>'
        f'<span class="number">{numbers}</span><span class="track" aria-hidden="true">'
        f'<span class="bar" style="left:{low:.2f}%;width:{high - low:.2f}%"></span>'
        f'<span class="point" style="left:{at:.2f}%"></span></span></li>'
    )
