"""The growth benchmark runs on little data, which have the format that the pipeline reads."""

from pathlib import Path

import pytest

from lever_plus.bench import report
from lever_plus.bench.growth import make_rl_data, read, summarise


def test_it_reads_its_records(tmp_path: Path) -> None:
    make_rl_data(tmp_path, 3)
    assert read(tmp_path)["records"] == 3


def test_it_sums_up_its_scores() -> None:
    found = summarise(40)
    assert (found["questions"], found["scores"]) == (40, 40 * 13 * 3 * 4)
    assert found["decisions"] == 40


@pytest.mark.long
def test_it_writes_the_report_of_a_made_up_project(tmp_path: Path) -> None:
    """The page has all its parts, and there is a card for every training."""
    found = report.run(tmp_path, 40, records=3)
    assert (found["questions"], found["scores"]) == (40, 40 * 16 * 3 * 4)
    assert found["page_kb"] > 300
    assert len(list((tmp_path / "artifacts" / "report" / "model_cards").iterdir())) == 3 * 6
