"""The order of the tests, and whether one may be skipped.

Whoever waits for the tests hears first what can be heard soon: files without slow tests run before
those that have some, and of these the longest first, so that both processes end at the same time.
"""

import os
from collections.abc import Generator

import pytest

NO_SKIPS = "LEVER_PLUS_NO_SKIPS"
"""Environment variable: with 1, a test that is skipped fails. CI sets it, where all parts are."""
LONGEST = ("test_end_to_end.py", "test_killed_stages.py", "test_params_table.py", "test_kills.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests last."""
    late = {i.path for i in items if i.get_closest_marker("slow") or i.get_closest_marker("long")}

    def place(item: pytest.Item) -> int:
        if item.path not in late:
            return 0
        return 1 + LONGEST.index(item.path.name) if item.path.name in LONGEST else 1 + len(LONGEST)

    items.sort(key=place)


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get(NO_SKIPS) == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIPS}=1, but {report.nodeid} was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test that is skipped fail, if none may be."""
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let a file that is skipped as a whole fail, if none may be."""
    report = yield
    _refuse(report)
    return report
