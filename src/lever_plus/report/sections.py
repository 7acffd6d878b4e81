"""The sections of the page that are tables and text: each turns results into HTML."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lever_plus.evaluation.methods import INSTRUCTED, Methods
from lever_plus.evaluation.plain_names import explained
from lever_plus.report import tables
from lever_plus.report.findings import Way
from lever_plus.report.page import folded, note, table
from lever_plus.report.rl_data import headroom_rows
from lever_plus.report.tables import Summary
from lever_plus.training.rl_data.headroom import Headroom

Row = dict[str, Any]
NUMBERS = {"0": "no demonstration", "1": "one", "2": "two", "3": "three", "4": "four"}

IN_CONTEXT: Final = {
    "plain": "none, and the question in plain words",
    "none": "none",
    "two_random": "two at random",
    "half_attribute": "one that explains the attribute",
    "half_language": "one that explains the language",
    "two_same_halves": "two that explain the same half",
    "both_halves": "one for each half",
    "both_halves_reversed": "the same in the other order",
    "both_halves_then_other": "one for each half, then one with house words of other meanings",
    "twin": "one that explains both (no pool holds such an example)",
}
"""{row of metrics/in_context.json: which demonstrations are shown}, in the order of the story."""
IN_CONTEXT_HEADER: Final = ["shown before a question in two house words", "right"]


def in_context_rows(shares: Mapping[str, float]) -> list[list[str]]:
    """Return one line for each kind of demonstrations: what is shown, and how many are right."""
    return [[text, f"{100 * shares[key]:.1f} %"] for key, text in IN_CONTEXT.items()]


def in_context_section(shares: Mapping[str, float]) -> str:
    """Return what the VLM reads from demonstrations of the embedded data set; "" for other data."""
    if not shares:
        return ""
    text = (
        "Share of dev questions that the VLM answers right. The demonstrations are chosen by rules "
        "that know what the house words mean; the VLM can learn that only from them."
    )
    return note(text) + table(IN_CONTEXT_HEADER, in_context_rows(shares))


def instruction_section(rows: Sequence[Row]) -> str:
    """Return, folded, which instructions were tried; "" where none were."""
    if not rows:
        return ""
    text = (
        "VQA accuracy x 100 without demonstrations on dev questions. The best instruction was "
        "chosen here, which its interval does not take into account. "
        f"{INSTRUCTED} is the VLM with that instruction on test questions."
    )
    cells = [
        [row["instruction"], tables.percent(row), str(row["n"]), "best" if row["chosen"] else ""]
        for row in rows
    ]
    html = note(text) + table(["instruction", "accuracy [95 %]", "n", ""], cells)
    return folded("The instructions", html)


def paired_section(summary: Summary) -> str:
    """Return the paired differences of the mean over shots, and those at every shot, folded."""
    text = (
        "Differences of VQA accuracy in points, paired by question. Wins, losses and ties count "
        "questions. p (Holm) is corrected for all comparisons of one table."
    )
    marks = tables.notes(summary["differences"])
    whole = table(tables.PAIRED_HEADER, list(tables.paired_rows(summary)))
    single = [
        f"<h4>With {shots} demonstrations</h4>"
        + table(tables.PAIRED_HEADER, list(tables.paired_rows(summary, shots)))
        for shots in tables.shots_of(summary)
    ]
    each = folded("For each number of demonstrations", "".join(single))
    return note(" ".join([text, *marks])) + whole + each


def cost_section(summary: Summary, milliseconds: Mapping[str, float]) -> str:
    """Return what each method costs beside its accuracy; "" for a summary without costs."""
    rows = list(tables.cost_rows(summary, milliseconds))
    return note(tables.COST_NOTE) + table(tables.COST_HEADER, rows) if rows else ""


def gain_section(summary: Summary) -> str:
    """Return what each further demonstration adds to every method."""
    rows = list(tables.gain_rows(summary))
    if not rows:
        return note("This is not known, because zero-shot was not evaluated.")
    text = (
        "Points of VQA accuracy that one more demonstration adds, paired by question: the first "
        "compared with none, the second with one, and so on. Holm's correction is over all numbers "
        "of demonstrations of one method."
    )
    marks = tables.notes(summary["gains"])
    return note(" ".join([text, *marks])) + table(tables.gain_header(summary), rows)


def way_section(way: Way | None, methods: Methods) -> str:
    """Return how far each trained method gets from the best by similarity to the oracle."""
    if way is None:
        return note("This is not known: the oracle is missing, or not better than similarity.")
    text = (
        f"With {way.shot} demonstrations, on the {way.questions} questions of the oracle: the best "
        f"method by similarity, {explained(methods[way.baseline])}, reaches {100 * way.low:.1f}, "
        f"the oracle {100 * way.high:.1f}. 100 % is as good as the oracle, which searches with the "
        "true answer; below 0 % is worse than similarity. The interval is not bounded where the "
        "oracle is not better in some resamples."
    )
    rows = [
        [
            closed.method,
            f"{closed.share:.0%}",
            f"[{closed.interval[0]:.0%}, {closed.interval[1]:.0%}]"
            if closed.interval
            else "not bounded",
        ]
        for closed in way.closed
    ]
    return note(text) + table(["method", "share of the way", "95 %"], rows)


def ideal_section(numbers: Mapping[str, Any]) -> str:
    """Return what the ideal reader of the embedded data set says; "" for other data."""
    if not numbers:
        return ""
    text = (
        "The ideal reader is a VLM that reads perfectly: it understands plain words, learns what a "
        "house word means from demonstrations that have a house word for the same half of the "
        "question (attribute or language), and guesses what no demonstration explains. So its "
        "accuracy is how much the demonstrations of a method explain. Where the measured accuracy "
        "is lower, the VLM does not read all that is explained. Where it is higher, the VLM "
        "guesses better than by chance, or the method exploits what the VLM guesses."
    )
    needed = dict(numbers["needed"])
    short, most = needed.pop("none"), max(map(int, needed))
    shares = [
        f"{row['share']:.1%} need {NUMBERS.get(count, count)}" for count, row in needed.items()
    ]
    sentence = (
        f"Of the {numbers['questions']:,} test questions, {', '.join(shares)} from their pool; for "
        f"{short['share']:.1%} even {NUMBERS.get(str(most), most)} are not enough."
    )
    shown = {**needed, f"more than {most}": short}
    cells = [[count, _share(row)] for count, row in shown.items()]
    counts = table(["demonstrations needed", "questions % [95 %]"], cells)
    return (
        note(text)
        + f"<p>{sentence}</p>"
        + folded("With intervals", counts)
        + "<h4>Accuracy</h4>"
        + _ideal_accuracy(numbers["accuracy"])
        + "<h4>Picks</h4>"
        + _picks(numbers["picks"])
    )


def _ideal_accuracy(rows: Sequence[Row]) -> str:
    shots = sorted({row["shots"] for row in rows})
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        pair = f"{100 * row['measured']['accuracy']:.1f} / {100 * row['accuracy']:.1f}"
        found.setdefault(row["method"], {})[row["shots"]] = pair
    cells = [[method, *(at.get(shot, "") for shot in shots)] for method, at in found.items()]
    whole = [
        [
            row["method"],
            str(row["shots"]),
            tables.percent(row["measured"]),
            tables.percent(row),
            str(row["n"]),
        ]
        for row in rows
    ]
    header = ["method", "shots", "measured [95 %]", "ideal reader [95 %]", "n"]
    return (
        note("VQA accuracy x 100 by number of demonstrations: measured / ideal reader.")
        + table(["method", *map(str, shots)], cells)
        + folded("With intervals", table(header, whole))
    )


def _picks(rows: Sequence[Row]) -> str:
    kinds = [key for key, value in rows[0].items() if isinstance(value, dict)]
    text = (
        f"What each pick is, in % of the questions: {' / '.join(kinds)}. A complement explains a "
        "house word that no earlier pick explained, a duplicate only one that is explained "
        "already. A harmful pick has a house word of another meaning, and an idle one has none "
        "that matters."
    )
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        shares = " / ".join(f"{100 * row[kind]['share']:.0f}" for kind in kinds)
        found.setdefault(row["method"], {})[row["position"]] = shares
    positions = sorted({row["position"] for row in rows})
    cells = [[method, *(at.get(p, "") for p in positions)] for method, at in found.items()]
    whole = [
        [
            row["method"],
            str(row["position"]),
            *(_share(row[kind]) for kind in kinds),
            str(row["n"]),
        ]
        for row in rows
    ]
    header = ["method", "pick", *(f"{kind} % [95 %]" for kind in kinds), "n"]
    return (
        note(text)
        + table(["method", *(f"pick {position}" for position in positions)], cells)
        + folded("With intervals", table(header, whole))
    )


def _share(row: Row) -> str:
    return tables.percent({"accuracy": row["share"], "ci95": row["ci95"]})


def headroom_section(found: Headroom) -> str:
    """Return how much there is to learn from the RL data."""
    text = (
        f"The RL data have {found.queries} queries with {found.candidates:.1f} candidates each, on "
        "average. Values are VQA accuracy x 100 with the most demonstrations."
    )
    rows = [list(row) for row in headroom_rows(found)]
    return f"<p>{found.verdict}</p>" + note(text) + table(["", "value"], rows)


def diagnostics_section(diagnostics: Mapping[str, Any]) -> str:
    """Return copy and answer-shown rates, and how much order matters beside choice."""
    order, copy = diagnostics["order"], diagnostics["copy"]
    last = max((row["shots"] for row in copy), default=0)
    text = (
        "copied: answers that equal the answer of any demonstration; copied last: that of the last "
        "one. shown: questions whose true answer is that of a demonstration. if shown, if not "
        "shown: VQA accuracy x 100 on those questions and on the others. A method that is right "
        "only where the answer was shown has learned to retrieve answers."
    )
    sentence = (
        "Order compared with choice: the score of a question has a standard deviation of "
        f"{100 * order['order_spread']:.1f} points over {order['orders']} orders of the same "
        f"demonstrations, and of {100 * order['set_spread']:.1f} points over {order['sets']} "
        f"random sets of demonstrations ({order['questions']} questions)."
    )
    header = ["method", "copied %", "copied last %", "shown %", "if shown", "if not shown"]
    tables_ = {
        shots: table(header, list(_copy_rows(copy, shots)))
        for shots in sorted({row["shots"] for row in copy})
    }
    titled = {s: f"<h4>With {s} demonstrations</h4>{html}" for s, html in tables_.items()}
    shown = titled.pop(last, "")
    fewer = folded("For fewer demonstrations", "".join(titled.values()))
    return f"<p>{sentence}</p>" + note(text) + shown + fewer


def _copy_rows(copy: Sequence[Row], shots: int) -> Iterator[list[str]]:
    keys = ("copied", "copied_last", "shown", "accuracy_shown", "accuracy_not_shown")
    for row in copy:
        if row["shots"] == shots:
            cells = ["" if row[key] is None else f"{100 * row[key]:.1f}" for key in keys]
            yield [row["method"], *cells]


def ablation_section(rows: Sequence[Row], summary: Summary) -> str:
    """Return the ablations' table; one that was made before the present results says so."""
    if not rows:
        return ""
    now = {row["method"]: row["accuracy"] for row in [*summary["rows"], *summary["means"]]}
    old = any(r["variant"] == "default" and r["accuracy"] != now.get(r["method"]) for r in rows)
    warning = "These are older than the results above: run `make ablations` again."
    shots = list(dict.fromkeys(shot for row in rows for shot in row["shots"]))
    header = ["variant", "method", *shots, "mean [95 %]", "n", "requests"]
    cells = [
        [
            row["variant"],
            row["method"],
            *(f"{100 * row['shots'][s]:.1f}" if s in row["shots"] else "" for s in shots),
            tables.percent(row),
            str(row["n"]),
            tables.known(row.get("vlm_requests"), ",.0f"),
            tables.points(row["difference"]) if row["difference"] else "",
            row["versus"],
            tables.known(row["reward_std"], ".3f"),
        ]
        for row in rows
    ]
    html = table([*header, "difference [95 %]", "compared with", "reward std in groups"], cells)
    told = tables.notes([*rows, *(row["difference"] for row in rows if row["difference"])])
    text = (
        "Requests count all that the VLM was asked to train a method and what it builds on. "
        "Differences are corrected for all variants that ask the same question."
    )
    html = note(" ".join([text, *told])) + html
    return (f"<p><strong>{warning}</strong></p>" if old else "") + html
