"""Whether selectors carry over: policies used where they were not trained, as a matrix.

A row of metrics/ablations.json says whose policies it is of, and which variant names the place
where they were used: a VLM, and pools.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from lever_plus.report import tables
from lever_plus.report.page import bullets, note, table

Row = dict[str, Any]
NOTE: Final = (
    "VQA accuracy x 100, mean over shots, and after it the difference in points to the similarity "
    "baseline at the same place, paired by question. Down: the variant that trained the policies. "
    "Across: where they were used, by the variant that names this VLM and these pools."
)
LOST_NOTE: Final = (
    "Against the same method trained there, paired by question and training seed. Kept: the gain "
    "over the baseline, as a share of the gain of one trained there; how sure it is, the intervals "
    "of both differences say."
)
LOST_HEADER: Final = ["method", "trained", "used", "to one trained there [95 %]", "kept", "n"]


def transfer_section(rows: Sequence[Row]) -> str:
    """Return the matrix, in words and numbers; "" if no policies were used elsewhere.

    Args:
        rows: Of metrics/ablations.json.
    """
    carried = [row for row in rows if row["policies"] not in ("", row["variant"])]
    if not carried:
        return ""
    places = {row["used"] for row in carried}
    sources = {row["policies"] for row in carried}
    shown = [row for row in rows if row["used"] in places or row["variant"] in sources]
    methods = dict.fromkeys(row["method"] for row in carried)
    differences = [row[key] for row in shown for key in ("difference", "to_trained_there")]
    told = tables.notes([*shown, *filter(None, differences)])
    lost = [_lost(row) for row in carried if row["to_trained_there"]]
    return (
        bullets([_sentence(method, carried) for method in methods])
        + note(" ".join([NOTE, _questions(shown), *told]))
        + _matrix(shown)
        + (note(LOST_NOTE) + table(LOST_HEADER, lost) if lost else "")
    )


def _questions(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    return f"n = {', '.join(f'{count:,}' for count in counts)} questions."


def _matrix(rows: Sequence[Row]) -> str:
    places = list(dict.fromkeys(row["used"] for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: bool(row["policies"])):  # first what nothing trains
        cells.setdefault((row["method"], row["policies"]), {})[row["used"]] = _cell(row)
    lines = [[*key, *(at.get(place, "") for place in places)] for key, at in cells.items()]
    return table(["method", "trained", *places], lines)


def _cell(row: Row) -> str:
    difference = [tables.points(row["difference"])] if row["difference"] else []
    return "; ".join([tables.percent(row), *difference])


def _lost(row: Row) -> list[str]:
    lost, kept = row["to_trained_there"], _kept(row)
    return [
        *(row["method"], row["policies"], row["used"], tables.points(lost)),
        *("" if kept is None else f"{kept:.0%}", str(lost["n"])),
    ]


def _kept(row: Row) -> float | None:
    """Return the share of the gain of one trained there; None if that gains nothing."""
    if not row["difference"] or not row["to_trained_there"]:
        return None
    gained = row["difference"]["difference"]
    there = gained - row["to_trained_there"]["difference"]
    return gained / there if there > 0 else None


def _sentence(method: str, carried: Sequence[Row]) -> str:
    """Return whether a method carries over, how far above the baseline, and what it keeps."""
    rows = [row for row in carried if row["method"] == method and row["difference"]]
    above = [row for row in rows if _above(row["difference"])]
    baselines = ", ".join(dict.fromkeys(row["versus"].partition("/")[2] for row in rows))
    verdict = "carries over" if rows and len(above) == len(rows) else "carries over in part"
    if not above:
        return f"{method} does not carry over: where it was not trained, it is nowhere better."
    found = [100 * row["difference"]["difference"] for row in above]
    span = " to ".join(f"{value:+.1f}" for value in dict.fromkeys([min(found), max(found)]))
    return (
        f"{method} {verdict}: it is better than {baselines} in {len(above)} of {len(rows)} places "
        f"where it was not trained, by {span} points{''.join(_shares(rows))}."
    )


def _above(difference: Row) -> bool:
    return bool(difference["separable"] and difference["difference"] > 0)


def _shares(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        kept = _kept(row)
        if kept is not None:
            yield f"; of what {row['used']} gains it keeps {kept:.0%} there"
