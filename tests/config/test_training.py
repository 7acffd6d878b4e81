"""params.yaml about policy, reward and training: what does not fit together is named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lever_plus.config.file import load_params, load_with_preset, overlay
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from tiny_world import ROOT

Content = dict[str, Any]
PAIR = {"hard_weight": 1.0, "soft_weight": 1.0}
OFF_LINE = {"grpo": {"rounds": 0}, "agro": {"rounds": 0}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return copy


@pytest.fixture
def merged(path: Path, tmp_path: Path) -> Callable[[Content], Params]:
    """Lay settings over the project's params and read the result."""

    def merge(content: Content) -> Params:
        preset = tmp_path / "preset.yaml"
        with preset.open("w", encoding="utf-8") as file:
            YAML().dump(content, file)
        return load_with_preset(path, preset)

    return merge


def reward(mode: str, **weights: object) -> Content:
    return {"reward": {"mode": mode, **weights}}


def legacy(alpha: float) -> Content:
    return reward("legacy", alpha=alpha, beta=1.0, correctness_mode="01", use_logprob=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (reward("hard_and_soft", **PAIR), "reward: input tag 'hard_and_soft'"),
        (reward("hard_plus_soft", rel_weight=0.5), "unknown key reward.rel_weight"),
        (reward("hard_only", **PAIR), "unknown key reward.soft_weight"),
        (reward("soft_only", **PAIR), "unknown key reward.hard_weight"),
        (reward("hard01_plus_gtprob", **PAIR, rel_weight=1.0), "unknown key reward.rel_weight"),
        (reward("hard_plus_soft", hard_weigth=1.0), "reward.hard_weigth (did you mean hard_weight"),
        (reward("hard_plus_soft", hard_weight=-1.0), "reward.hard_weight: input should be greater"),
        (reward("hard_plus_soft", clip=0.0), "reward.clip: input should be greater than 0"),
        (reward("soft_only", soft_weight=0.0), "reward.soft_weight: input should be greater than"),
        (reward("hard_only"), "reward.hard_weight: field required"),
        (
            reward("hard01_plus_gtprob", **PAIR),
            "reward.mode hard01_plus_gtprob needs gt_prob in rl_data.scores",
        ),
        (
            reward("hard_plus_gtprob_plus_rel", **PAIR, rel_weight=1.0)
            | {"rl_data": {"scores": ["gt_prob"]}},
            "reward.mode hard_plus_gtprob_plus_rel needs relevance in rl_data.scores",
        ),
        (legacy(0.5) | {"grpo": {"rounds": 1}, "agro": {"rounds": 0}}, "rounds must be 0"),
        (legacy(0.5) | {"grpo": {"rounds": 0}, "agro": {"rounds": 1}}, "rounds must be 0"),
        ({"grpo": {"rounds": "four"}}, "grpo.rounds is the text 'four', not a number"),
        ({"grpo": {"rounds": "4"}}, "grpo.rounds is the text '4', not a number"),
        ({"grpo": {"kl_beta": -1.0}}, "grpo.kl_beta: input should be greater than or equal"),
        ({"grpo": {"ratio": "sequence"}}, "grpo: a sequence ratio has one advantage a pointer"),
        ({"grpo": {"kl_target": [0.2, 0.1]}}, "grpo: kl_target is [min, max]"),
        ({"grpo": {"kl_target": [0.1, 0.1]}}, "grpo: kl_target is [min, max]"),
        ({"grpo": {"kl_target": [0.1]}}, "grpo.kl_target: list should have at least 2 items"),
        ({"grpo": {"kl_target": [0.1, 0.2], "kl_beta": 0.0}}, "grpo: kl_target moves kl_beta"),
        ({"grpo": {"start": "sft"}}, "grpo.start must be agro or one of rce.tau: rce"),
        ({"grpo": {"group_size": 1}}, "grpo.group_size: input should be greater than or equal to"),
        ({"grpo": {"kl": "k2"}}, "grpo.kl: input should be 'exact' or 'k3'"),
        ({"sft": {"schedule": "step"}}, "sft.schedule: input should be 'constant', 'linear' or"),
        ({"sft": {"warmup": -1}}, "sft.warmup: input should be greater than or equal to 0"),
        ({"rce": {"patience": 0}}, "rce.patience: input should be greater than or equal to 1"),
        ({"rl": {"filter_gen_methods": []}}, "rl.filter_gen_methods: list should have at least 1"),
        ({"rl": {"filter_gen_methods": ["beams"]}}, "rl.filter_gen_methods.0: input should be"),
        (
            {"pool": {"size": 64}, "rl_data": {"retrieval": 49}},
            "rl_data.retrieval: a pool of this size has 48 at most",
        ),
        ({"rl_data": {"scores": ["hard"]}}, "rl_data.scores.0: input should be"),
        ({"policy": {"layers": 2}}, "unknown key policy.layers"),
        ({"policy": {"kind": "v3"}}, "policy: input tag 'v3'"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_named(
    merged: Callable[[Content], Params], content: Content, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        merged(content)


@pytest.mark.parametrize(
    "content",
    [
        reward("hard_plus_soft_v2", **PAIR),
        reward("separated", **PAIR),
        reward("hard_only", hard_weight=1.0),
        reward("soft_only", soft_weight=1.0),
        reward("hard01_plus_gtprob_separated", **PAIR) | {"rl_data": {"scores": ["gt_prob"]}},
        reward("hard_plus_gtprob_plus_rel", **PAIR, rel_weight=0.0)
        | {"rl_data": {"scores": ["gt_prob", "relevance"]}},
        legacy(0.5) | OFF_LINE,
        legacy(0.0),
        {"grpo": {"ratio": "sequence", "credit": "total", "kl_target": [0.1, 0.2]}},
        {"grpo": {"start": "agro"}},
        {"pool": {"size": 64}, "rl_data": {"retrieval": 48}},
    ],
    ids=str,
)
def test_what_fits_together_is_accepted(
    merged: Callable[[Content], Params], content: Content
) -> None:
    merged(content)


def test_a_reward_of_another_mode_keeps_shot_weights_and_clip(path: Path, tmp_path: Path) -> None:
    own = path.read_text(encoding="utf-8").replace("clip: 5.0", "clip: 3.0", 1)
    path.write_text(own.replace("[0.25, 0.25, 0.25, 0.25]", "[0.0, 0.0, 0.0, 1.0]", 1))
    preset = tmp_path / "preset.yaml"
    preset.write_text("reward: {mode: soft_only, soft_weight: 0.5}\n")
    overlay(path, preset)
    assert load_params(path).reward.model_dump() == {
        "mode": "soft_only",
        "soft_weight": 0.5,
        "shot_weights": [0.0, 0.0, 0.0, 1.0],
        "clip": 3.0,
    }


def test_a_reward_of_another_mode_may_bring_weights_of_its_own(
    merged: Callable[[Content], Params],
) -> None:
    content = reward("hard_only", hard_weight=1.0, shot_weights=[0.0, 0.0, 0.0, 1.0], clip=2.0)
    found = merged(content).reward
    assert (found.shot_weights, found.clip) == ([0.0, 0.0, 0.0, 1.0], 2.0)


def test_a_reward_of_the_same_mode_is_merged(merged: Callable[[Content], Params]) -> None:
    for content in ({"reward": {"soft_weight": 0.5}}, reward("hard_plus_soft", soft_weight=0.5)):
        found = merged(content).reward.model_dump()
        assert (found["hard_weight"], found["soft_weight"]) == (1.0, 0.5)


def test_a_policy_of_another_kind_replaces_its_section(
    merged: Callable[[Content], Params],
) -> None:
    other = {"kind": "v2", "hidden": 32, "layers": 1, "temperature": 0.1}
    assert merged({"policy": other}).policy.model_dump() == other
    with pytest.raises(UserError, match=r"policy\.hidden: field required"):
        merged({"policy": {key: value for key, value in other.items() if key != "hidden"}})
    assert merged({"policy": {"hidden": 32}}).policy.model_dump() == {
        "kind": "stateful",
        "hidden": 32,
        "logit_clip": 10.0,
    }
