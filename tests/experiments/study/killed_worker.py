"""A worker that is to be killed: slow trials in the storage that the arguments name."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "experiments" / "study")]

from typing import cast  # noqa: E402

from formula_trials import FormulaTrials, project_params, settings  # noqa: E402

from lever_plus.experiments.study.objective import Trials  # noqa: E402
from lever_plus.experiments.study.worker import run_worker  # noqa: E402

if __name__ == "__main__":
    found = settings(sys.argv[1], trials=int(sys.argv[2]))
    run_worker(project_params(), found, cast(Trials, FormulaTrials(0.05)))
