"""Whether selectors carry over: policies used where they were not trained, as a matrix.

A row of metrics/ablations.json names the variant that trained its policies, and the variant that
has the VLM and the pools with which they were used, here called a place.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from lever_plus.report import tables
from lever_plus.report.page import bullets, note, table

Row = dict[str, Any]
NOTE: Final = (
    "VQA accuracy x 100, mean over all numbers of demonstrations, followed by the difference in "
    "points from similarity with the same VLM and pools, paired by question. Rows: the variant "
    "that trained the policies. Columns: the variant whose VLM and pools they were used with."
)
LOST_NOTE: Final = (
    "Compared with the same method trained there, paired by question and training seed. kept: the "
    "gain over similarity as a share of the gain of the method trained there. The intervals of "
    "both differences show how certain it is."
)
LOST_HEADER: Final = ["method", "trained", "used", "minus one trained there [95 %]", "kept", "n"]


def transfer_section(rows: Sequence[Row]) -> str:
    """Return the matrix as sentences and tables; "" if no policies were used elsewhere.

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
    for row in sorted(rows, key=lambda row: bool(row["policies"])):  # first the untrained methods
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
    """Return the gain as a share of that of a method trained there; None if that gains nothing."""
    if not row["difference"] or not row["to_trained_there"]:
        return None
    gained = row["difference"]["difference"]
    there = gained - row["to_trained_there"]["difference"]
    return gained / there if there > 0 else None


def _sentence(method: str, carried: Sequence[Row]) -> str:
    """Return whether a method carries over, how much better it is, and what it keeps."""
    rows = [row for row in carried if row["method"] == method and row["difference"]]
    above = [row for row in rows if _above(row["difference"])]
    baselines = ", ".join(dict.fromkeys(row["versus"].partition("/")[2] for row in rows))
    verdict = "carries over" if rows and len(above) == len(rows) else "carries over in part"
    if not above:
        return f"{method} does not carry over: it is not better anywhere it was not trained."
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
            yield f"; with {row['used']}, it keeps {kept:.0%} of the gain of one trained there"
