"""What the results say, in sentences for a reader who knows none of the methods."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd

from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.evaluation.methods import INSTRUCTED, ORACLE, ZERO_SHOT, Methods, methods_in
from lever_plus.evaluation.plain_names import explained
from lever_plus.report.findings import Way, best, differences
from lever_plus.report.tables import Summary, shots_of

Row = dict[str, Any]
SPACE: Final = "\N{NO-BREAK SPACE}"
READING: Final = (
    "Accuracy is the VQA accuracy on test questions, averaged over all numbers of "
    "demonstrations. Brackets are 95 % intervals. Where a difference may be chance, the sentence "
    "says so."
)


def sentences(
    summary: Summary, scores: pd.DataFrame, resamples: int, way: Way | None = None
) -> Iterator[str]:
    """Yield the results in plain words: the best learned selector, and what it is compared with.

    Args:
        summary: metrics/summary.json.
        scores: The table of `evaluate`.
        resamples: Bootstrap resamples.
        way: How far the methods get on the way to the oracle, where that is known.
    """
    methods = methods_in(summary)
    rows: dict[str, Row] = {r["method"]: r for r in [*summary["rows"], *summary["means"]]}
    top = best(summary, methods.names("trained"))
    if top is None:
        yield "No trained method was evaluated."
        return
    name = top["method"]
    roles = _roles(summary, methods, name)
    pairs = [(name, other) for other in roles]
    before = methods.offline
    offline = [(GRPO, before)] if before and GRPO in rows and name != GRPO else []
    stopping = [(GRPO_STOP, GRPO)] if {GRPO_STOP, GRPO} <= rows.keys() else []
    added = [pair for pair in (*offline, *stopping) if pair not in pairs]
    asked = [*pairs, *added]
    compared = dict(zip(asked, differences(summary, scores, asked, resamples), strict=True))
    yield _verdict([compared[name, other] for other in roles if other not in methods.references])
    yield _reached(methods, top, shots_of(summary))
    for other, role in roles.items():
        yield (
            f"Compared with {role}{explained(methods[other])}, which reaches "
            f"{_accuracy(rows[other])}, it {_gains(compared[name, other])}"
        )
    for method, other in offline:
        shown = [explained(methods[each]) for each in (method, other)]
        yield f"Compared with {shown[1]}, {shown[0]} {_gains(compared[method, other])}"
    for pair in stopping:
        yield from _stops(methods, rows, pair, compared[pair])
    yield from _ceiling(methods, rows, name, way)
    if top.get("vlm_requests"):
        yield (
            f"Training it asked the model {top['vlm_requests']:,.0f} times, all that it builds on "
            "included. The model itself was not trained."
        )
    if len(methods.names("trained")) > 1:
        yield (
            "The best learned selector was picked after all results were known, so a small lead "
            "over the other learned ones may be chance."
        )


def _verdict(rows: Sequence[Row]) -> str:
    """Return whether learning helps, by the differences from methods that are not learned."""
    better = [row for row in rows if row["separable"] and row["difference"] > 0]
    if rows and len(better) == len(rows):
        return (
            "Yes: on these questions, the best learned selector beats the best that is not learned."
        )
    if better:
        return (
            f"In part: the best learned selector beats {len(better)} of the {len(rows)} methods "
            "below that are not learned."
        )
    return "No: the best learned selector is not shown to beat a method that is not learned."


def _reached(methods: Methods, top: Row, shots: list[int]) -> str:
    runs = f" and {top['seeds']} trainings" if top["seeds"] > 1 else ", from one training"
    return (
        f"The best learned selector, {explained(methods[top['method']])}, reaches an accuracy of "
        f"{_accuracy(top)} on {top['n']:,} test questions, averaged over {shots[0]} to "
        f"{shots[-1]} demonstrations{runs}."
    )


def _roles(summary: Summary, methods: Methods, name: str) -> dict[str, str]:
    """Return {method: its role} of what the best learned one is compared with, "" without one."""
    best_of = {
        "the best selector by similarity, ": methods.names("similarity"),
        "the best method that is not learned, ": methods.names("similarity", "baseline"),
        "the best selector of your own, ": methods.names("selector"),
    }
    plain = [row["method"] for row in summary["rows"] if row["method"] in (ZERO_SHOT, INSTRUCTED)]
    found = dict.fromkeys(plain, "")
    for role, names in best_of.items():
        row = best(summary, names)
        if row:
            found.setdefault(row["method"], role)
    found |= dict.fromkeys(methods.references, "")
    found.pop(name, None)
    return found


def _stops(
    methods: Methods, rows: dict[str, Row], pair: tuple[str, str], row: Row
) -> Iterator[str]:
    """Yield what a selector that decides how many to show saves and costs, where that is known."""
    stopping, other = (rows[method].get("demonstrations") for method in pair)
    if stopping is not None and other is not None:
        first, second = (explained(methods[method]) for method in pair)
        yield (
            f"{_capital(first)} shows {stopping:.2f} demonstrations on average where {second} "
            f"shows {other:.2f}; it {_gains(row)}"
        )


def _ceiling(methods: Methods, rows: dict[str, Row], name: str, way: Way | None) -> Iterator[str]:
    """Yield how far one could get, and how far the best learned selector gets."""
    if ORACLE not in rows:
        return
    row = rows[ORACLE]
    reached = f"{explained(methods[ORACLE])} reaches {_accuracy(row)} on {row['n']:,} questions"
    share = next((c for c in way.closed if c.method == name), None) if way else None
    if way is None or share is None:
        yield f"{_capital(reached)}."
        return
    ends = [f"{100 * bound:.0f}" for bound in share.interval or ()]
    bounds = f" [{', '.join(ends)}]" if ends else ""
    yield (
        f"{_capital(reached)}. With {way.shot} demonstrations, the best learned "
        f"selector closes {100 * share.share:.0f}{SPACE}%{bounds} of the distance from the best "
        f"selector by similarity, {explained(methods[way.baseline])}, to that search."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _accuracy(row: Row) -> str:
    low, high = row["ci95"]
    return f"{100 * row['accuracy']:.1f}{SPACE}% [{100 * low:.1f}, {100 * high:.1f}]"


def _gains(row: Row) -> str:
    """Return "gains 6.0 points [4.4, 7.8]." or "loses ...", and whether that may be chance."""
    sign = 1 if row["difference"] >= 0 else -1
    low, high = sorted(100 * sign * bound for bound in row["ci95"])
    verb = "gains" if sign > 0 else "loses"
    return f"{verb} {abs(100 * row['difference']):.1f} points [{low:.1f}, {high:.1f}]{_doubt(row)}."


def _doubt(row: Row) -> str:
    once = "; it was trained once, so the interval does not include how trainings differ"
    end = once if row["one_training"] else ""
    if row["separable"]:
        return end
    if row["trainings_needed"] is None:
        return f", which may be chance{end}"
    return (
        f", which may be chance: it would take {row['trainings_needed']} trainings of each to tell,"
        f" and there are {row['trainings']}{end}"
    )
