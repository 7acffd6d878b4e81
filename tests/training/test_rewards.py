"""Rewards of answers: every mode by hand, the clip, and scores that are missing."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from lever_plus.config.training import RewardParams, needed_scores
from lever_plus.training.rewards import Floats, Scores, shot_rewards

PARAMS: TypeAdapter[RewardParams] = TypeAdapter(RewardParams)
# One pointer: a right answer at shot 1 (h = 1), a wrong one at shot 2 (h = 0).
SCORES = Scores(
    hard=np.array([[1, 0]], "f4"),
    soft=np.array([[0.6, 0.0]], "f4"),
    gt_prob=np.array([[0.5, 0.25]], "f4"),
    relevance=np.array([[1.0, 0.4]], "f4"),
    quality=np.array([[-3.0]], "f4"),
)
BOTH: dict[str, Any] = {"hard_weight": 0.5, "soft_weight": 2.0}
LEGACY: dict[str, Any] = {"alpha": 0.1, "beta": 2.0}


def assert_allclose(actual: Floats, expected: object) -> None:
    assert np.asarray(actual) == pytest.approx(np.asarray(expected), rel=1e-6)


def params(mode: str, clip: float = 5.0, **weights: Any) -> RewardParams:
    settings = {"mode": mode, "shot_weights": [0.5, 0.5], "clip": clip, **weights}
    return PARAMS.validate_python(settings)


@pytest.mark.parametrize(
    ("mode", "weights", "expected"),
    [
        ("hard_plus_soft", BOTH, [0.5 + 2 * 0.6, 0.0]),
        ("hard_plus_soft_v2", BOTH, [2 * 0.5 + 2 * 0.6, 0.0]),
        ("separated", BOTH, [2 * 0.5 + 2 * 0.6, 0.0]),
        ("hard_only", {"hard_weight": 0.5}, [0.5, 0.0]),
        ("soft_only", {"soft_weight": 2.0}, [1.2, 0.0]),
        ("hard01_plus_gtprob", BOTH, [0.5 + 2 * 0.5, 2 * 0.25]),
        ("hard01_plus_gtprob_separated", BOTH, [2 * 0.5 + 2 * 0.5, 2 * 0.25]),
        (
            "hard_plus_gtprob_plus_rel",
            {**BOTH, "rel_weight": 3.0},
            [0.5 + 2 * 0.5, 2 * 0.25 + 3 * 0.4],
        ),
        (
            "legacy",
            {**LEGACY, "correctness_mode": "01", "use_logprob": False},
            [-0.3 + 2, -0.3],
        ),
        (
            "legacy",
            {**LEGACY, "correctness_mode": "pm1", "use_logprob": False},
            [-0.3 + 2, -0.3 - 2],
        ),
        ("legacy", {**LEGACY, "correctness_mode": "01", "use_logprob": True}, [0.3 + 2, 0.3]),
        ("legacy", {**LEGACY, "correctness_mode": "pm1", "use_logprob": True}, [0.3 + 2, 0.3 - 2]),
    ],
)
def test_a_mode_is_worth_what_its_formula_says(
    mode: str, weights: dict[str, Any], expected: list[float]
) -> None:
    reward = shot_rewards(SCORES, params(mode, **weights))
    assert reward.dtype == np.float32
    assert_allclose(reward, [expected])


def test_a_low_accuracy_answer_counts_its_soft_score_beside_the_hard_one() -> None:
    """The hard score is 1 wherever any human gave the answer: 0.3 earns 1.3."""
    scores = Scores(np.array([[1.0]], "f4"), np.array([[0.3]], "f4"))
    reward = params("hard_plus_soft", hard_weight=1.0, soft_weight=1.0)
    assert_allclose(shot_rewards(scores, reward), [[1.3]])


@pytest.mark.parametrize(("clip", "expected"), [(5.0, [3.6, -5.0]), (1.5, [1.5, -1.5])])
def test_rewards_are_clipped_on_both_sides(clip: float, expected: list[float]) -> None:
    weights: dict[str, Any] = {
        "alpha": 1.2,
        "beta": 7.2,
        "correctness_mode": "pm1",
        "use_logprob": False,
    }
    assert_allclose(shot_rewards(SCORES, params("legacy", clip, **weights)), [expected])


def test_legacy_without_the_generator_s_log_prob_is_correctness_alone() -> None:
    """On a dev query there is no generator but the policy itself."""
    weights: dict[str, Any] = {**LEGACY, "correctness_mode": "pm1", "use_logprob": False}
    scores = SCORES._replace(quality=None)
    assert_allclose(shot_rewards(scores, params("legacy", **weights)), [[2.0, -2.0]])


@pytest.mark.parametrize(
    ("mode", "weights", "needed"),
    [
        ("hard_plus_soft", BOTH, set()),
        ("hard_plus_soft_v2", BOTH, set()),
        ("separated", BOTH, set()),
        ("hard_only", {"hard_weight": 1.0}, set()),
        ("soft_only", {"soft_weight": 1.0}, set()),
        ("hard01_plus_gtprob", BOTH, {"gt_prob"}),
        ("hard01_plus_gtprob_separated", BOTH, {"gt_prob"}),
        ("hard_plus_gtprob_plus_rel", {**BOTH, "rel_weight": 1.0}, {"gt_prob", "relevance"}),
        ("legacy", {**LEGACY, "correctness_mode": "01", "use_logprob": True}, set()),
    ],
)
def test_a_mode_says_what_it_needs_and_does_without_the_rest(
    mode: str, weights: dict[str, Any], needed: set[str]
) -> None:
    reward = params(mode, **weights)
    assert needed_scores(reward) == needed
    bare = Scores(SCORES.hard, SCORES.soft, quality=SCORES.quality)
    given = {name: getattr(SCORES, name) for name in needed}
    enough = bare._replace(**given)
    assert_allclose(shot_rewards(enough, reward), shot_rewards(SCORES, reward))
    for name in needed:
        with pytest.raises(ValueError, match=f"needs the {name} of every answer"):
            shot_rewards(bare._replace(**{n: given[n] for n in needed - {name}}), reward)
