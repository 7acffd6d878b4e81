"""Prints, after the tests, how many bad inputs every door was given and what became of them."""

import pytest
from doors import COUNTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not COUNTS:
        return
    terminalreporter.section("bad inputs: tried, refused with a sentence, fine")
    for door, counts in sorted(COUNTS.items()):
        shares = f"{counts['tried']:6} {counts['refused']:6} {counts['fine']:6}"
        terminalreporter.write_line(f"{shares}  {door}")
    whole = sum(counts["tried"] for counts in COUNTS.values())
    terminalreporter.write_line(f"{whole:6}  in all")
