"""Rewards: what an answer at one shot is worth.

With h = `vqa_correct` (0/1: any human gave the answer), s = `vqa_acc_score` (official accuracy in
[0, 1]), g = `vqa_gt_prob` (probability of the true answer), r = `vqa_rel_score` (nearness to a
human answer), q = the pointer's log-probability under its generator (minus, with `use_logprob`):

| mode | reward, before the clip to [-clip, clip] |
| --- | --- |
| hard_plus_soft (default; weights 1, 1: range [0, 2]) | hard h + soft s |
| hard_plus_soft_v2 | 2 hard h + soft s |
| separated | 2 hard + soft s where h = 1, else soft s |
| hard_only / soft_only | hard h / soft s |
| hard01_plus_gtprob | hard h + soft g |
| hard01_plus_gtprob_separated | 2 hard + soft g where h = 1, else soft g |
| hard_plus_gtprob_plus_rel | hard h + soft g + rel (1 - h) r |
| legacy | alpha q + beta c, with c = h (`01`) or 2 h - 1 (`pm1`) |

`hard`, `soft`, `rel` stand for the weights. As h is 0 or 1, `hard_plus_soft_v2` and `separated` are
equal in value; both names are kept because settings of the older system carry them. A mode has
exactly the weights that it uses: another one in params.yaml is an error. The reward of a pointer is
the sum over its shots of `shot_weights` times these (`returns.py`); weights [0, 1] count shot 2
alone.
"""

from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.training import (
    GtProbReward,
    HardReward,
    LegacyReward,
    RelevanceReward,
    RewardParams,
    SoftReward,
    SumReward,
)

Floats = NDArray[np.float32]


class Scores(NamedTuple):
    """Scores of answers, arrays of one shape; None where a score was not asked for."""

    hard: Floats
    soft: Floats
    gt_prob: Floats | None = None
    relevance: Floats | None = None
    quality: Floats | None = None


def shot_rewards(scores: Scores, params: RewardParams) -> Floats:
    """Return the reward of every answer, float of the scores' shape.

    Args:
        scores: Those that the mode needs; without `quality`, legacy has no term for it.
        params: Mode and weights.

    Raises:
        ValueError: A score that the mode needs is missing.
    """
    reward = _unclipped(scores, params)
    clipped: Floats = np.clip(reward, -params.clip, params.clip).astype(np.float32)
    return clipped


def _unclipped(scores: Scores, params: RewardParams) -> NDArray[Any]:
    hard, soft = scores.hard, scores.soft
    match params:
        case SumReward():
            return _factor(params.mode) * params.hard_weight * hard + params.soft_weight * soft
        case HardReward():
            return params.hard_weight * hard
        case SoftReward():
            return params.soft_weight * soft
        case GtProbReward():
            gt_prob = params.soft_weight * _given(scores.gt_prob, "gt_prob")
            return _factor(params.mode) * params.hard_weight * hard + gt_prob
        case RelevanceReward():
            near = params.rel_weight * (1 - hard) * _given(scores.relevance, "relevance")
            gt_prob = params.soft_weight * _given(scores.gt_prob, "gt_prob")
            return np.asarray(params.hard_weight * hard + gt_prob + near)
        case LegacyReward():
            correct = hard if params.correctness_mode == "01" else 2 * hard - 1
            quality = np.zeros_like(hard) if scores.quality is None else scores.quality
            sign = -1.0 if params.use_logprob else 1.0
            return np.asarray(params.alpha * sign * quality + params.beta * correct)
    assert_never(params)


def _factor(mode: str) -> float:
    """Return what a right answer's weight is multiplied by: h is 0 or 1."""
    return 2.0 if mode.endswith(("_v2", "separated")) else 1.0


def _given(scores: Floats | None, name: str) -> Floats:
    if scores is None:
        raise ValueError(f"this reward needs the {name} of every answer")
    return scores
