"""What commands print beside the results: headroom, power, and the decisions about one question."""

from rich import box
from rich.console import Console
from rich.table import Table

from lever_plus.evaluation.statistics import questions_needed, smallest_difference
from lever_plus.report.tables import Summary, points
from lever_plus.rl.headroom import Headroom


def print_headroom(found: Headroom) -> None:
    """Print what the RL data hold to be learned."""
    table = _table(f"RL data: {found.queries} groups of {found.candidates:.1f} candidates")
    table.add_column("at the last shot")
    table.add_column("", justify="right")
    table.add_row("accuracy of all candidates", f"{100 * found.accuracy:.1f}")
    for count, best in found.oracle.items():
        table.add_row(f"best of {count}", f"{100 * best:.1f}")
    table.add_row("standard deviation inside groups", f"{100 * found.spread:.1f}")
    for name, share in (
        ("groups without a right candidate", found.all_wrong),
        ("groups without a wrong one", found.all_right),
        ("groups with both", found.mixed),
        ("groups that teach nothing (equal at every shot)", found.flat),
        *((f"right candidates from {m}", share) for m, share in found.positives.items()),
    ):
        table.add_row(name, f"{share:.1%}")
    console = Console()
    console.print(table)
    console.print(found.verdict)


def print_power(summary: Summary, delta: float) -> None:
    """Print how many questions differences of the mean over shots need, with a power of 80 %."""
    table = _table(f"A true difference of {delta} points in the mean over shots, power 80 %")
    heads = ["methods", "n", "standard deviation", f"n for {delta}", "shown by n", "measured"]
    for head in heads:
        table.add_column(head, justify="left" if head == "methods" else "right")
    for row in summary["differences"]:
        if row["shots"] == "mean":
            table.add_row(
                f"{row['method']} - {row['versus']}",
                str(row["n"]),
                f"{100 * row['deviation']:.1f}",
                f"{questions_needed(100 * row['deviation'], delta):,}",
                f"{smallest_difference(100 * row['deviation'], row['n']):.1f}",
                points(row),
            )
    Console().print(table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
