"""Rewards: the formula, the older system's modes as weights of it, own functions, the clip."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count, product
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from lever_plus.config.reward import MODES, RewardParams, needed_scores
from lever_plus.errors import UserError
from lever_plus.training.rewards import Floats, Scores, shot_rewards

# One pointer: a right answer at shot 1 (h = 1), a wrong one at shot 2 (h = 0).
SCORES = Scores(
    hard=np.array([[1, 0]], "f4"),
    soft=np.array([[0.6, 0.0]], "f4"),
    gt_prob=np.array([[0.5, 0.25]], "f4"),
    relevance=np.array([[1.0, 0.4]], "f4"),
    log_prob=np.array([[-3.0]], "f4"),
)
EXTRA = ("gt_prob", "relevance", "log_prob")
Own = Callable[..., RewardParams]
MODULES = count()  # functions are looked up once in each process


def assert_allclose(actual: Floats, expected: object) -> None:
    assert np.asarray(actual) == pytest.approx(np.asarray(expected), rel=1e-6)


def params(**settings: Any) -> RewardParams:
    return RewardParams(**{"clip": 5.0, "shot_weights": [0.5, 0.5], **settings})


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"hard": 0.5}, [0.5, 0.0]),
        ({"soft": 2.0}, [1.2, 0.0]),
        ({"gt_prob": 2.0}, [1.0, 0.5]),
        ({"near_miss": 3.0}, [0.0, 1.2]),
        ({"log_prob": -0.5}, [1.5, 1.5]),
        ({"hard": 1.0, "bias": -0.25}, [0.75, -0.25]),
        (
            {
                "bias": 0.1,
                "hard": 0.5,
                "soft": 2.0,
                "gt_prob": 1.0,
                "near_miss": 3.0,
                "log_prob": 0.1,
            },
            [0.1 + 0.5 + 1.2 + 0.5 - 0.3, 0.1 + 0.25 + 1.2 - 0.3],
        ),
    ],
    ids=str,
)
def test_a_reward_is_the_weighted_sum_of_its_terms(
    weights: dict[str, float], expected: list[float]
) -> None:
    reward = shot_rewards(SCORES, params(**weights))
    assert reward.dtype == np.float32
    assert_allclose(reward, [expected])


class Answer(NamedTuple):
    """Scores of one answer: hard, soft, true answer's probability, nearness, log-probability."""

    h: float
    s: float
    g: float
    r: float
    q: float


# The formulas of the older system: {mode: (of its weights and one answer, values of each weight)}.
Weights = dict[str, Any]
Formula = Callable[[Weights, Answer], float]
HARD, SOFT = [0.0, 0.7, 1.5], [0.0, 0.3, 2.0]
BOTH = {"hard_weight": HARD, "soft_weight": SOFT}


def separated(weights: Weights, right: bool, score: float) -> float:
    if right:
        return 2 * weights["hard_weight"] + weights["soft_weight"] * score
    return weights["soft_weight"] * score


def legacy(weights: Weights, answer: Answer) -> float:
    quality = -answer.q if weights["use_logprob"] else answer.q
    wrong = 0 if weights["correctness_mode"] == "01" else -1
    return weights["alpha"] * quality + weights["beta"] * (1 if answer.h == 1 else wrong)


FORMULAS: dict[str, tuple[Formula, dict[str, Sequence[Any]]]] = {
    "hard_plus_soft": (lambda w, a: w["hard_weight"] * a.h + w["soft_weight"] * a.s, BOTH),
    "hard_plus_soft_v2": (lambda w, a: w["soft_weight"] * a.s + 2 * w["hard_weight"] * a.h, BOTH),
    "hard_only": (lambda w, a: w["hard_weight"] * a.h, {"hard_weight": HARD}),
    "soft_only": (lambda w, a: w["soft_weight"] * a.s, {"soft_weight": SOFT}),
    "separated": (lambda w, a: separated(w, a.h == 1, a.s), BOTH),
    "hard01_plus_gtprob": (lambda w, a: w["hard_weight"] * a.h + w["soft_weight"] * a.g, BOTH),
    "hard01_plus_gtprob_separated": (lambda w, a: separated(w, a.h == 1, a.g), BOTH),
    "hard_plus_gtprob_plus_rel": (
        lambda w, a: (
            w["hard_weight"] * a.h + w["soft_weight"] * a.g + w["rel_weight"] * (1 - a.h) * a.r
        ),
        {**BOTH, "rel_weight": [0.0, 0.25]},
    ),
    "legacy": (
        legacy,
        {
            "alpha": [0.0, 0.2, 1.5],
            "beta": [0.0, 1.0, 3.0],
            "correctness_mode": ["01", "pm1"],
            "use_logprob": [False, True],
        },
    ),
}


def grid(mode: str) -> Iterator[Weights]:
    """Yield all weights of a mode that give a reward."""
    _, values = FORMULAS[mode]
    for chosen in product(*values.values()):
        weights = dict(zip(values, chosen, strict=True))
        if any(value for value in weights.values() if isinstance(value, float)):
            yield weights


def test_every_mode_has_its_formula_here() -> None:
    assert FORMULAS.keys() == MODES.keys()


@pytest.mark.parametrize("mode", FORMULAS)
def test_a_mode_gives_what_it_gave_in_the_older_system(mode: str) -> None:
    formula, _ = FORMULAS[mode]
    answers = list(
        product([0.0, 1.0], [0.0, 0.3, 1.0], [0.0, 0.4, 1.0], [0.0, 0.6], [-8.0, -0.5, 0.0])
    )
    columns = [np.array([list(column)], "f4").T for column in zip(*answers, strict=True)]
    for weights in grid(mode):
        reward = shot_rewards(Scores(*columns), params(mode=mode, **weights))
        expected = [[np.clip(formula(weights, Answer(*answer)), -5, 5)] for answer in answers]
        assert reward == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6), weights


@pytest.mark.parametrize(
    ("mode", "weights"),
    [
        ("separated", {"hard": 3.0, "soft": 0.3}),
        ("hard01_plus_gtprob", {"hard": 1.5, "gt_prob": 0.3}),
    ],
)
def test_a_mode_is_nothing_but_a_name_of_weights(mode: str, weights: dict[str, float]) -> None:
    assert params(mode=mode, hard_weight=1.5, soft_weight=0.3) == params(**weights)


def test_hard_and_soft_have_the_very_bytes_of_their_sum() -> None:
    """Trainings from before there was one formula must not change in the last digit."""
    generator = np.random.default_rng(0)
    hard = generator.integers(0, 2, (64, 4)).astype("f4")
    soft = generator.random((64, 4), "f4")
    for hard_weight, soft_weight in ((1.0, 1.0), (1.6, 0.4), (0.0, 1.0), (0.3, 0.0)):
        before = np.clip(hard_weight * hard + soft_weight * soft, -5.0, 5.0)
        assert before.dtype == np.float32
        reward = shot_rewards(Scores(hard, soft), params(hard=hard_weight, soft=soft_weight))
        assert reward.tobytes() == before.tobytes()


def test_a_low_accuracy_answer_counts_its_soft_score_beside_the_hard_one() -> None:
    """The hard score is 1 if any human gave the answer, so an accuracy of 0.3 earns 1.3."""
    scores = Scores(np.array([[1.0]], "f4"), np.array([[0.3]], "f4"))
    assert_allclose(shot_rewards(scores, params(hard=1.0, soft=1.0)), [[1.3]])


@pytest.mark.parametrize(("clip", "expected"), [(5.0, [3.6, -5.0]), (1.5, [1.5, -1.5])])
def test_rewards_are_clipped_on_both_sides(clip: float, expected: list[float]) -> None:
    reward = params(bias=-7.2, hard=14.4, log_prob=1.2, clip=clip)
    assert_allclose(shot_rewards(SCORES, reward), [expected])


def test_a_reward_without_the_generator_s_log_prob_does_without_its_term() -> None:
    """On a dev query there is no generator, only the policy itself."""
    scores = SCORES._replace(log_prob=None)
    assert_allclose(shot_rewards(scores, params(hard=2.0, log_prob=0.1)), [[2.0, 0.0]])


@pytest.mark.parametrize(
    ("weights", "needed"),
    [
        ({"bias": 1.0, "hard": 1.0, "soft": 1.0}, []),
        ({"soft": 1.0, "gt_prob": 0.5}, ["gt_prob"]),
        ({"soft": 1.0, "gt_prob": 0.0}, []),
        ({"near_miss": 1.0}, ["relevance"]),
        ({"hard": 1.0, "log_prob": -1.0}, ["log_prob"]),
        ({"gt_prob": 1.0, "near_miss": 1.0, "log_prob": 1.0}, sorted(EXTRA)),
    ],
    ids=str,
)
def test_a_reward_needs_the_scores_that_have_a_weight_and_no_other(
    weights: dict[str, float], needed: list[str]
) -> None:
    reward = params(**weights)
    assert sorted(needed_scores(reward)) == needed
    bare = SCORES._replace(**dict.fromkeys(EXTRA))
    enough = bare._replace(**{name: getattr(SCORES, name) for name in needed})
    assert_allclose(shot_rewards(enough, reward), shot_rewards(SCORES, reward))
    for name in set(needed) - {"log_prob"}:
        with pytest.raises(ValueError, match=f"needs the {name} of every answer"):
            shot_rewards(enough._replace(**{name: None}), reward)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Own:
    """Put a function into a module of its own, and return the reward that names it."""

    def named(function: Callable[[Scores], Any], needs: object = None) -> RewardParams:
        if needs is not None:
            function.needs = needs  # type: ignore[attr-defined]
        name = f"own_reward_{next(MODULES)}"
        module = ModuleType(name)
        module.f = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        return params(function=f"{name}:f")

    return named


def test_a_function_of_the_scores_is_a_reward_and_is_clipped(own: Own) -> None:
    reward = own(lambda scores: 7 * scores.hard - 9 * scores.relevance, needs=["relevance"])
    assert needed_scores(reward) == {"relevance"}
    given = shot_rewards(SCORES, reward)
    assert given.dtype == np.float32
    assert_allclose(given, [[-2.0, -3.6]])
    assert_allclose(shot_rewards(SCORES, reward.model_copy(update={"clip": 3.0})), [[-2.0, -3.0]])


def test_a_function_that_says_nothing_needs_no_more_than_hard_and_soft(own: Own) -> None:
    reward = own(lambda scores: scores.soft.astype(int))
    assert needed_scores(reward) == set()
    assert shot_rewards(SCORES, reward).dtype == np.float32


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(2), r"returned float64 of shape \[2\]: it must return one number for every "),
        (1.0, r"returned float64 of shape \[\]"),
        (None, r"returned object of shape \[\]"),
        (np.array([["a", "b"]]), r"returned <U1 of shape \[1, 2\]"),
        (np.array([[0.0, np.nan]]), "returned NaN"),
    ],
    ids=str,
)
def test_a_function_that_gives_no_number_for_every_answer_is_named(
    own: Own, returned: object, message: str
) -> None:
    with pytest.raises(UserError, match=rf"^reward\.function: own_reward_\d+:f {message}"):
        shot_rewards(SCORES, own(lambda _scores: returned))


@pytest.mark.parametrize("needs", ["gt_prob", ["soft"], 3])
def test_needs_that_are_no_list_of_scores_are_named(own: Own, needs: object) -> None:
    with pytest.raises(UserError, match="make it a list of gt_prob, log_prob, relevance"):
        needed_scores(own(lambda scores: scores.hard, needs))
