"""Prints, after the tests, how many bad inputs each door was given and what became of them."""

from collections import Counter
from typing import Any

import pytest

COUNTS: dict[str, Counter[str]] = {}
"""{door: {"tried", "refused", "fine"}}, of this run of the tests."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """If several processes run the tests, each hands its counts to the one that prints."""
    handed_over = getattr(session.config, "workeroutput", None)
    if handed_over is not None:
        handed_over["bad_inputs"] = {door: dict(counts) for door, counts in COUNTS.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for door, counts in getattr(node, "workeroutput", {}).get("bad_inputs", {}).items():
        COUNTS.setdefault(door, Counter()).update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not COUNTS:
        return
    terminalreporter.section("bad inputs: tried, refused with a sentence, fine")
    for door, counts in sorted(COUNTS.items()):
        shares = f"{counts['tried']:6} {counts['refused']:6} {counts['fine']:6}"
        terminalreporter.write_line(f"{shares}  {door}")
    whole = sum(counts["tried"] for counts in COUNTS.values())
    terminalreporter.write_line(f"{whole:6}  in all")
