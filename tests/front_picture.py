"""Writes docs/accuracy_over_shots.png, the plot of the README, from metrics/summary.json.

`python tests/front_picture.py`, after `make repro`.
"""

from pathlib import Path

from lever_plus.evaluation.stored import read_summary
from lever_plus.report.front import write_front_png

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    summary = read_summary(ROOT / "metrics" / "summary.json")
    write_front_png(ROOT / "docs" / "accuracy_over_shots.png", summary)
