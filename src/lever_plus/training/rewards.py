"""Rewards: what an answer at one shot is worth, by the formula of `config/reward.py`.

The reward of a pointer is the sum of these over its shots, weighted by `shot_weights`
(`returns.py`); with weights [0, 1] only shot 2 counts.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.reward import RewardParams, reward_function
from lever_plus.errors import UserError

Floats = NDArray[np.float32]


class Scores(NamedTuple):
    """Scores of answers, arrays [pointers, T]; None if a score was not asked for.

    `log_prob` is that of a whole pointer under what generated it, [pointers, 1]; it exists in RL
    data only, not for what a policy draws during training.
    """

    hard: Floats
    soft: Floats
    gt_prob: Floats | None = None
    relevance: Floats | None = None
    log_prob: Floats | None = None


def shot_rewards(scores: Scores, params: RewardParams) -> Floats:
    """Return the reward of every answer, clipped, as a float array of the scores' shape.

    Args:
        scores: Those that the reward needs; the term of `log_prob` is left out if that is None.
        params: Weights of the scores, or the name of a function that takes the scores.

    Raises:
        ValueError: A score that the reward needs is missing.
        UserError: The function does not return a number for every answer.
    """
    own = params.function is not None
    reward = _own_function(scores, str(params.function)) if own else _linear(scores, params)
    clipped: Floats = np.clip(reward, -params.clip, params.clip).astype(np.float32)
    return clipped


def _linear(scores: Scores, params: RewardParams) -> NDArray[Any]:
    reward = params.bias + params.hard * scores.hard + params.soft * scores.soft
    if params.gt_prob != 0:
        reward = reward + params.gt_prob * _given(scores.gt_prob, "gt_prob")
    if params.near_miss != 0:
        near = _given(scores.relevance, "relevance")
        reward = reward + params.near_miss * (1 - scores.hard) * near
    if scores.log_prob is not None:
        reward = reward + params.log_prob * scores.log_prob
    return reward


def _own_function(scores: Scores, name: str) -> NDArray[Any]:
    reward = np.asarray(reward_function(name)(scores))
    if reward.shape != scores.hard.shape or reward.dtype.kind not in "biuf":
        raise UserError(
            f"reward.function: {name} returned {reward.dtype} of shape {list(reward.shape)}: it "
            f"must return one number for every answer, in the shape {list(scores.hard.shape)}."
        )
    if np.isnan(reward).any():
        raise UserError(
            f"reward.function: {name} returned NaN: it must return a number for every answer."
        )
    return reward


def _given(scores: Floats | None, name: str) -> Floats:
    if scores is None:
        raise ValueError(f"this reward needs the {name} of every answer")
    return scores
