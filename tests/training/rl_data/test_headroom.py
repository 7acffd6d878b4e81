"""Headroom: shares, the expected best of n, and a refusal if there is nothing to learn."""

from itertools import combinations

import numpy as np
import pytest

from lever_plus.errors import UserError
from lever_plus.training.rl_data.headroom import informative, measure
from lever_plus.training.rl_data.records import Candidate, GenMethod, QueryRecord, Shot


def candidate(score: float, gen_method: GenMethod = "sample", first: float = 0.0) -> Candidate:
    shots = tuple(
        Shot(shot=k, answer="", vqa_correct=1 if s else 0, vqa_acc_score=s, fallback=False)
        for k, s in enumerate((first, score), start=1)
    )
    return Candidate(
        pointer=(1, 2), gen_method=gen_method, temperature=None, step_log_probs=None, shots=shots
    )


def record(*candidates: Candidate) -> QueryRecord:
    return QueryRecord(query_id=7, question_id=7, pool=(1, 2), candidates=candidates)


WRONG = record(candidate(0.0), candidate(0.0))
RIGHT = record(candidate(1.0, "beam"), candidate(0.6))
MIXED = record(candidate(1.0, "beam"), candidate(0.0))


def test_groups_are_sorted_by_what_they_hold() -> None:
    found = measure([WRONG, RIGHT, MIXED, MIXED])
    assert (found.all_wrong, found.all_right, found.mixed, found.flat) == (0.25, 0.25, 0.5, 0.25)
    assert found.accuracy == pytest.approx((0 + 0 + 1.6 + 1 + 1) / 8)
    assert found.best == pytest.approx(3 / 4)
    assert found.positives == {"beam": 1.0, "sample": 0.2}
    assert "something to learn" in found.verdict


@pytest.mark.invariant
def test_the_best_of_n_is_the_mean_over_all_draws() -> None:
    scores = [0.0, 0.3, 0.3, 0.6, 1.0]
    found = measure([record(*(candidate(s) for s in scores))])
    for count in (1, 2, 4, 5):
        exact = np.mean([max(drawn) for drawn in combinations(scores, count)])
        assert found.oracle[count] == pytest.approx(exact)


def test_data_that_teach_nothing_are_called_that_and_stop_the_run() -> None:
    assert "nothing to learn" in measure([WRONG, WRONG]).verdict
    with pytest.raises(UserError, match=r"0.0% of the RL data's groups .* asks for 5.0%"):
        list(informative([WRONG, WRONG], 0.05))
    assert list(informative([WRONG, MIXED], 0.5)) == [WRONG, MIXED]
    assert list(informative([WRONG], 0.0)) == [WRONG]


def test_a_difference_at_an_early_shot_is_something_to_learn() -> None:
    early = record(candidate(0.0, first=1.0), candidate(0.0))
    assert measure([early]).flat == 0
    assert list(informative([early], 1.0)) == [early]
