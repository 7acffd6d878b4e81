"""`lever-plus power`: what is detectable now, and with more trainings and questions."""

import numpy as np
import pytest

from lever_plus.evaluation.trainings import Spread, questions_needed, smallest_difference
from lever_plus.report.terminal import PLANNED_QUESTIONS, PLANNED_TRAININGS, print_power

SPREADS = {
    ("rce", "sft"): {"trainings": 0.01, "questions": 0.2, "noise": 0.1},
    ("grpo", "sft"): {"trainings": 0.03, "questions": 0.4, "noise": 0.1},
    ("sttr", "sft"): {"trainings": 0.0, "questions": 0.9, "noise": 0.0},
}


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trainings: int
) -> list[list[str]]:
    """Return the printed lines, cut into their cells."""
    kinds = {"rce": "trained", "grpo": "trained", "sft": "trained", "sttr": "similarity"}
    methods = [{"name": n, "stage": "x", "kind": k, "label": ""} for n, k in kinds.items()]
    rows = [
        {
            **{"method": method, "versus": versus, "shots": "mean", "difference": 0.05, "n": 1000},
            **{"ci95": [0.01, 0.09], "one_training": False, "separable": True, "spread": spread},
            "trainings": 0 if method == "sttr" else trainings,
        }
        for (method, versus), spread in SPREADS.items()
    ]
    monkeypatch.setenv("COLUMNS", "150")
    print_power({"methods": methods, "differences": rows}, 4.0)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_every_pair_says_what_is_shown_now_and_what_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = told(capsys, monkeypatch, 3)
    rce = Spread(1.0, 20.0, 10.0)
    shown, needed = smallest_difference(rce, 3, 1000), questions_needed(rce, 4.0, 3)
    start = ["rce", "-", "sft", "1000", "3", f"{shown:.1f}", f"{needed:,}", "+5.0"]
    assert start in [line[: len(start)] for line in lines]
    assert ["grpo", "-", "sft", "1000", "3"] in [line[:5] for line in lines]
    untrained = smallest_difference(Spread(0.0, 90.0, 0.0), 0, 1000)
    assert ["sttr", "-", "sft", "1000", f"{untrained:.1f}"] in [line[:5] for line in lines]


def test_trained_methods_are_planned_by_their_typical_spread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = told(capsys, monkeypatch, 3)
    typical = Spread(np.sqrt((1 + 9) / 2), np.sqrt((400 + 1600) / 2), 10.0)
    for runs in PLANNED_TRAININGS:
        sizes = [f"{smallest_difference(typical, runs, n):.1f}" for n in PLANNED_QUESTIONS]
        needed = questions_needed(typical, 4.0, runs)
        last = ["more", "trainings"] if needed is None else [f"{needed:,}"]
        assert [str(runs), *sizes, *last] in lines
    assert questions_needed(typical, 4.0, 3) is None
    assert questions_needed(typical, 4.0, 10)


def test_without_a_second_training_nothing_is_planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = " ".join(told(capsys, monkeypatch, 0)[-1])
    assert said == "How much trainings differ is unknown: no method was trained more than once."
