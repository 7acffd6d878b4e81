"""The results table, for the terminal and for Markdown."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from lever_plus.config.names import GRPO_STOP
from lever_plus.evaluation.methods import methods_in

NUMERALS: Final = {1: "1st", 2: "2nd", 3: "3rd"}
Summary = dict[str, Any]
ONCE: Final = "†"
NOT_SEPARABLE: Final = "n.s."
ONE_TRAINING: Final = "one training: the interval does not include training."
CHANCE: Final = (
    "may be chance, given all that is compared (Holm, 5 %); an interval is that of one comparison."
)
UNSETTLED: Final = (
    "Not settled: may be chance too, but so many trainings of each method would show a difference "
    "of this size on these questions, four times in five."
)


def shots_of(summary: Summary) -> list[int]:
    """Return the shots that the summary has, without 0."""
    return sorted({row["shots"] for row in summary["rows"]} - {0})


def percent(row: dict[str, Any]) -> str:
    """Return "66.8 [64.1, 69.4]" from a row of the summary, marked where it was trained once."""
    low, high = row["ci95"]
    mark = ONCE if row.get("one_training") else ""
    return f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]{mark}"


def points(row: dict[str, Any]) -> str:
    """Return "+6.0 [+4.4, +7.8]" from a difference, marked where it may be chance."""
    low, high = row["ci95"]
    mark = ONCE if row["one_training"] else ""
    shown = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{mark}"
    return " ".join(filter(None, (shown, doubt(row))))


def doubt(row: dict[str, Any]) -> str:
    """Return why a difference is none yet: chance, or too few trainings; "" if it is one."""
    if row["separable"]:
        return ""
    if row["trainings_needed"] is None:
        return NOT_SEPARABLE
    return f"not settled by {row['trainings']} trainings ({row['trainings_needed']} would)"


def notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return what the marks in a table mean, of those that it has.

    Args:
        rows: Accuracies or differences, as the summary has them.
    """
    shown = list(rows)
    doubts = [row for row in shown if not row.get("separable", True)]
    unsettled = any(row["trainings_needed"] for row in doubts)
    return [
        *([f"{ONCE} {ONE_TRAINING}"] if any(row.get("one_training") for row in shown) else []),
        *([f"{NOT_SEPARABLE}: {CHANCE}"] if doubts else []),
        *([UNSETTLED] if unsettled else []),
    ]


def accuracy_rows(summary: Summary) -> Iterator[list[str]]:
    """Yield one line a method: name, accuracy at each shot, mean, n, seeds with their spread."""
    shots = shots_of(summary)
    means = {row["method"]: row for row in summary["means"]}
    for method in dict.fromkeys(row["method"] for row in summary["rows"]):
        at = {row["shots"]: row for row in summary["rows"] if row["method"] == method}
        if 0 in at:
            row = at[0]
            yield [method, *[""] * len(shots), percent(row), str(row["n"]), str(row["seeds"])]
            continue
        mean = means[method]
        cells = [f"{100 * at[shot]['accuracy']:.1f}" for shot in shots]
        yield [method, *cells, percent(mean), str(mean["n"]), _seeds(mean)]


def _seeds(row: dict[str, Any]) -> str:
    values = [100 * value for value in row["seed_accuracies"]]
    if len(values) == 1:
        return "1"
    return f"{len(values)} ({min(values):.1f}-{max(values):.1f})"


def mean_differences(summary: Summary) -> list[dict[str, Any]]:
    """Return the differences of the mean over shots."""
    return [row for row in summary["differences"] if row["shots"] == "mean"]


def difference_rows(summary: Summary) -> Iterator[list[str]]:
    """Yield one line a method: its paired differences of the mean over shots."""
    means = mean_differences(summary)
    for method in dict.fromkeys(row["method"] for row in means):
        versus = {row["versus"]: points(row) for row in means if row["method"] == method}
        yield [method, *(versus.get(reference, "") for reference in _references(summary))]


def gain_header(summary: Summary) -> list[str]:
    """Return the heads of `gain_rows`."""
    return ["method", *(f"{NUMERALS.get(shot, f'{shot}th')} [95 %]" for shot in shots_of(summary))]


def gain_rows(summary: Summary) -> Iterator[list[str]]:
    """Yield one line a method: what each further demonstration adds, in points."""
    gains = summary.get("gains", [])
    for method in dict.fromkeys(row["method"] for row in gains):
        added = {row["shots"]: points(row) for row in gains if row["method"] == method}
        yield [method, *(added.get(shot, "") for shot in shots_of(summary))]


def paired_rows(summary: Summary, shots: int | str = "mean") -> Iterator[list[str]]:
    """Yield one line a method and reference: paired difference, wins, losses, ties, p-values."""
    for row in summary["differences"]:
        if row["shots"] == shots:
            counts = [str(row[key]) for key in ("wins", "losses", "ties")]
            pair = [f"{row['method']} - {row['versus']}", points(row), *counts]
            yield [*pair, p_value(row["p"]), p_value(row["p_holm"]), str(row["n"])]


def known(value: float | None, digits: str) -> str:
    """Return a number with so many digits (`,.0f`), "" where it is not known."""
    return "" if value is None else format(value, digits)


def p_value(value: float) -> str:
    """Return a p-value with as many digits as it is good for."""
    return "<.001" if value < 0.001 else f"{value:.3f}"


def accuracy_header(summary: Summary) -> list[str]:
    """Return the heads of `accuracy_rows`."""
    shots = [str(shot) for shot in shots_of(summary)]
    return ["method", *shots, "mean [95 %]", "n", "seeds (range)"]


def difference_header(summary: Summary) -> list[str]:
    """Return the heads of `difference_rows`."""
    return ["method", *(f"minus {name.upper()} [95 %]" for name in _references(summary))]


def cost_rows(summary: Summary, milliseconds: Mapping[str, float]) -> Iterator[list[str]]:
    """Yield one line a method: its mean accuracy, and what it costs; "" where that is not known.

    Args:
        summary: One of an older version says nothing about costs, and yields nothing.
        milliseconds: {method: time to select}, of this machine.
    """
    means = {row["method"]: row for row in summary["means"]}
    rows = {row["method"]: means.get(row["method"], row) for row in summary["rows"]}
    for method, row in rows.items():
        if row.get("demonstrations") is not None:
            yield [
                method,
                percent(row),
                f"{row['demonstrations']:.2f}",
                known(row.get("prompt_tokens"), ",.1f"),
                known(row.get("vlm_requests"), ",.0f"),
                known(milliseconds.get(method), ".2f"),
            ]


def stop_rows(prices: Iterable[dict[str, Any]]) -> list[list[str]]:
    """Return one line a price: accuracy with at most so many demonstrations, and what it takes.

    Args:
        prices: Rows of metrics/stop.json.
    """
    return [
        [
            f"{row['price']:g}",
            percent(row),
            f"{row['demonstrations']:.2f}",
            known(row["prompt_tokens"], ",.1f"),
            str(row["n"]),
            _seeds(row),
        ]
        for row in prices
    ]


def _references(summary: Summary) -> list[str]:
    """Return what the others are compared with, in the summary's order."""
    return list(dict.fromkeys(row["versus"] for row in summary["differences"]))


def method_rows(summary: Summary) -> Iterator[list[str]]:
    """Yield one line a method: its name, its kind, and what it is.

    Raises:
        UserError: The summary is of an older version.
    """
    for method in methods_in(summary):
        yield [method.name, method.kind, method.label]


COST_HEADER = ["method", "mean [95 %]", "shown", "prompt tokens", "requests to train", "ms"]
COST_NOTE: Final = (
    "Beside the mean accuracy, of the same prompts: demonstrations shown, and prompt tokens, those "
    "of images included. Requests to train are all that the VLM is asked for what a method is made "
    "of, as if nothing else were trained and nothing stored; for the fixed pointer, to choose it. "
    "ms: to select the demonstrations of one query, features given, in batches on one core of the "
    "machine that evaluated; what sees the true answers is not timed."
)
STOP_HEADER = ["price", "accuracy [95 %]", "shown", "prompt tokens", "n", "seeds (range)"]
STOP_UNITS: Final = {
    "demonstration": "points of reward for each demonstration",
    "token": "points of reward for each token added",
}
"""{`pointer.price_per`: what a price is}."""
METHOD_HEADER = ["method", "kind", "what it is"]
PAIRED_HEADER = ["methods", "points [95 %]", "wins", "losses", "ties", "p", "p (Holm)", "n"]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def print_tables(
    summary: Summary, console: Console, milliseconds: Mapping[str, float], stop: Mapping[str, Any]
) -> None:
    """Print the tables to a terminal: accuracies, differences, costs, prices, what methods are.

    Args:
        summary: metrics/summary.json.
        console: Where to.
        milliseconds: {method: time to select}, of this machine.
        stop: metrics/stop.json.
    """
    unit = STOP_UNITS[stop["price_per"]]
    tables: tuple[tuple[str, list[str], Iterator[list[str]], list[str]], ...] = (
        (
            "VQA accuracy x 100 on test questions, by number of shots",
            accuracy_header(summary),
            accuracy_rows(summary),
            notes([*summary["rows"], *summary["means"]]),
        ),
        (
            "Differences of the mean over shots, points, paired by question",
            difference_header(summary),
            difference_rows(summary),
            notes(mean_differences(summary)),
        ),
        (
            "What each method costs (ms: to select for one query, on this machine)",
            COST_HEADER,
            cost_rows(summary, milliseconds),
            [],
        ),
        (
            f"{GRPO_STOP} by price, {unit}",
            STOP_HEADER,
            iter(stop_rows(stop["rows"])),
            notes(stop["rows"]),
        ),
        ("Methods", METHOD_HEADER, method_rows(summary), []),
    )
    for title, header, lines, told in tables:
        rows = list(lines)
        if not rows:
            continue
        table = Table(
            title=title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for head in header:
            table.add_column(
                head,
                justify="left" if head in METHOD_HEADER else "right",
                no_wrap=head != METHOD_HEADER[-1],
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for line in told:
            console.print(line)
