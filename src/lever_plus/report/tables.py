"""The tables of results, as rows for the page, the terminal and Markdown."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from lever_plus.config.names import GRPO_STOP
from lever_plus.evaluation.methods import methods_in
from lever_plus.evaluation.plain_names import plain_name

ACCURACY_NOTE: Final = (
    "VQA accuracy x 100 on test questions, by number of demonstrations (1, 2, ...). mean: over "
    "these numbers, with its 95 % interval. n: questions. seeds: trainings or random draws, with "
    "their lowest and highest accuracy."
)
NUMERALS: Final = {1: "1st", 2: "2nd", 3: "3rd"}
Summary = dict[str, Any]
ONCE: Final = "†"
NOT_SEPARABLE: Final = "n.s."
ONE_TRAINING: Final = "trained only once: the interval does not include how much trainings differ."
CHANCE: Final = (
    "the difference may be chance, given all that the table compares (Holm's correction, 5 %); its "
    "interval is that of this comparison alone."
)
UNSETTLED: Final = (
    "not settled: the difference may be chance. With as many trainings of each method as the "
    "brackets say, a difference of this size would be found on these questions four times in five."
)


def shots_of(summary: Summary) -> list[int]:
    """Return the shots that the summary has, without 0."""
    return sorted({row["shots"] for row in summary["rows"]} - {0})


def percent(row: dict[str, Any]) -> str:
    """Return "66.8 [64.1, 69.4]" from a row of the summary, marked if trained once."""
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
    """Return why a difference may be chance: too small, or too few trainings; "" if it may not."""
    if row["separable"]:
        return ""
    if row["trainings_needed"] is None:
        return NOT_SEPARABLE
    return f"not settled by {row['trainings']} trainings ({row['trainings_needed']} would)"


def notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return what the marks of a table mean; only those that it has.

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
    """Yield one line per method: name, accuracy at each shot, mean, n, seeds with their spread."""
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
    """Yield one line per method: its paired differences of the mean over shots."""
    means = mean_differences(summary)
    for method in dict.fromkeys(row["method"] for row in means):
        versus = {row["versus"]: points(row) for row in means if row["method"] == method}
        yield [method, *(versus.get(reference, "") for reference in _references(summary))]


def gain_header(summary: Summary) -> list[str]:
    """Return the heads of `gain_rows`."""
    return ["method", *(f"{NUMERALS.get(shot, f'{shot}th')} [95 %]" for shot in shots_of(summary))]


def gain_rows(summary: Summary) -> Iterator[list[str]]:
    """Yield one line per method: what each further demonstration adds, in points."""
    gains = summary.get("gains", [])
    for method in dict.fromkeys(row["method"] for row in gains):
        added = {row["shots"]: points(row) for row in gains if row["method"] == method}
        yield [method, *(added.get(shot, "") for shot in shots_of(summary))]


def paired_rows(summary: Summary, shots: int | str = "mean") -> Iterator[list[str]]:
    """Yield one line per method and reference: paired difference, wins, losses, ties, p-values."""
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
    """Yield one line per method: its mean accuracy, and what it costs; "" where that is not known.

    Args:
        summary: metrics/summary.json; one that an older version wrote has no costs: no lines.
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
    """Return one line per price: accuracy, demonstrations shown, and prompt tokens.

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
    """Yield one line per method: its name, its plain name, its kind, and how it works.

    Raises:
        UserError: The summary is of an older version.
    """
    for method in methods_in(summary):
        yield [method.name, plain_name(method), method.kind, method.label]


COST_HEADER = ["method", "mean [95 %]", "shown", "prompt tokens", "requests to train", "ms"]
COST_NOTE: Final = (
    "shown: demonstrations in a prompt, on average. prompt tokens: of the whole prompt, images "
    "included. requests to train: all that the VLM is asked until the method is trained, with what "
    "it builds on and with no stored answers; for the fixed demonstrations and the best "
    "instruction, until they are chosen. ms: to select the demonstrations for one query whose "
    "features are known, in batches on one core of the machine that evaluated; methods that see "
    "the true answers are not timed."
)
STOP_HEADER = ["price", "accuracy [95 %]", "shown", "prompt tokens", "n", "seeds (range)"]
STOP_UNITS: Final = {
    "demonstration": "points of reward for each demonstration",
    "token": "points of reward for each token added",
}
"""{`pointer.price_per`: what a price is paid for}."""
METHOD_HEADER = ["method", "in plain words", "kind", "how it works"]
PAIRED_HEADER = ["methods", "points [95 %]", "wins", "losses", "ties", "p", "p (Holm)", "n"]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def print_tables(
    summary: Summary, console: Console, milliseconds: Mapping[str, float], stop: Mapping[str, Any]
) -> None:
    """Print the tables to a terminal: what methods are, accuracies, differences, costs, prices.

    Args:
        summary: metrics/summary.json.
        console: Where to.
        milliseconds: {method: time to select}, of this machine.
        stop: metrics/stop.json.
    """
    unit = STOP_UNITS[stop["price_per"]]
    named = ([name, plain] for name, plain, *_ in method_rows(summary))
    tables: tuple[tuple[str, list[str], Iterator[list[str]], list[str]], ...] = (
        ("Methods", METHOD_HEADER[:2], named, []),
        (
            "VQA accuracy x 100 on test questions, by number of demonstrations",
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
                no_wrap=head != METHOD_HEADER[1] and not head.startswith("minus "),
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for line in told:
            console.print(line)
