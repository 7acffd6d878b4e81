"""Settings of policy, reward and training that do not fit together are refused by name."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lever_plus.config.file import changed_params, load_params, load_with_preset, overlay
from lever_plus.config.params import Params
from lever_plus.config.reward import RewardParams
from lever_plus.errors import UserError
from tiny_world import ROOT

Content = dict[str, Any]
PAIR = {"hard_weight": 1.0, "soft_weight": 1.0}
OFF_LINE = {"grpo": {"rounds": 0}, "agro": {"rounds": 0}, "stop": None}
NO_ROUNDS = "own confidence: grpo.rounds and agro.rounds must be 0"
OWN = """
def plain(scores):
    return scores.hard
def in_short(scores):
    return scores.gt_prob
in_short.needs = ["gt_prob"]
def in_log(scores):
    return scores.hard + (0 if scores.log_prob is None else scores.log_prob)
in_log.needs = {"log_prob"}
"""


@pytest.fixture(autouse=True)
def user_rewards(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own module with rewards."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "user_rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return copy


@pytest.fixture
def merged(path: Path, tmp_path: Path) -> Callable[[Content], Params]:
    """Merge settings into the project's params and read the result."""

    def merge(content: Content) -> Params:
        preset = tmp_path / "preset.yaml"
        with preset.open("w", encoding="utf-8") as file:
            YAML().dump(content, file)
        return load_with_preset(path, preset)

    return merge


def weights(**given: object) -> Content:
    return {"reward": given}


def reward(mode: str, **given: object) -> Content:
    return weights(mode=mode, **given)


def legacy(alpha: float, **options: object) -> Content:
    given = {"alpha": alpha, "beta": 1.0, "correctness_mode": "01", "use_logprob": False, **options}
    return reward("legacy", **given)


def own(function: str) -> Content:
    return weights(function=function)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (weights(hard=-1.0), "reward.hard: input should be greater than or equal to 0"),
        (weights(hrad=1.0), "unknown key reward.hrad (did you mean hard?)"),
        (weights(hard="1e-4"), "reward.hard is the text '1e-4', not a number"),
        (weights(bias=math.inf), "reward.bias is inf, not a finite number"),
        (weights(hard=0.0, soft=0.0, bias=1.0), "reward: no score has a weight"),
        (weights(clip=0.0), "reward.clip: input should be greater than or equal to 0.000001"),
        (weights(hard_weight=0.5), "reward: hard_weight is a weight of one of the older system's"),
        (weights(gt_prob=1.0), "the reward uses gt_prob: add it to rl_data.scores"),
        (
            weights(gt_prob=1.0, near_miss=1.0) | {"rl_data": {"scores": ["gt_prob"]}},
            "the reward uses relevance: add it to rl_data.scores",
        ),
        (weights(log_prob=0.5) | {"grpo": {"rounds": 1}, "agro": {"rounds": 0}}, NO_ROUNDS),
        (
            weights(log_prob=0.5) | {"grpo": {"rounds": 0}, "agro": {"rounds": 0}},
            "and stop must be",
        ),
        ({"pointer": {"price": 0.02}}, "pointer.price must be one of stop.prices"),
        ({"stop": {"prices": [0.0]}, "pointer": {"price": 0.0}}, "stop.prices are all 0"),
        (weights(log_prob=-0.5) | {"grpo": {"rounds": 0}, "agro": {"rounds": 1}}, NO_ROUNDS),
        (reward("hard_and_soft", **PAIR), "reward: there is no mode hard_and_soft: choose one of"),
        (reward("hard_plus_soft", **PAIR, rel_weight=0.5), "hard_plus_soft has no rel_weight"),
        (reward("hard_only", **PAIR), "reward: mode hard_only has no soft_weight, only hard_wei"),
        (reward("soft_only", **PAIR), "reward: mode soft_only has no hard_weight, only soft_wei"),
        (reward("hard01_plus_gtprob", **PAIR, rel_weight=1.0), "has no rel_weight, only hard_we"),
        (reward("hard_plus_soft", **PAIR, hard=1.0), "reward: mode hard_plus_soft has no hard, "),
        (reward("hard_plus_soft", **PAIR, function="a:b"), "mode hard_plus_soft has no function"),
        (reward("hard_only", hard_weight=-1.0), "reward: hard_weight is -1.0: it must be a number"),
        (
            reward("hard_only", hard_weight="1e-4"),
            "reward: hard_weight is '1e-4': it must be a",
        ),
        (reward("hard_only", hard_weight=True), "reward: hard_weight is true: it must be a number"),
        (reward("soft_only", soft_weight=0.0), "reward: no score has a weight"),
        (reward("hard_only"), "reward: mode hard_only needs hard_weight"),
        (reward("hard01_plus_gtprob", **PAIR), "the reward uses gt_prob: add it to rl_data.scores"),
        (legacy(0.5, correctness_mode="-1"), "reward: correctness_mode is '-1': it must be 01 or"),
        (legacy(0.5, use_logprob=0), "reward: use_logprob is 0: it must be false or true"),
        (legacy(0.5) | {"grpo": {"rounds": 1}, "agro": {"rounds": 0}}, NO_ROUNDS),
        (weights(hard=1.0, function="a:b"), "function is the whole reward: hard has no effect"),
        (own("brevity"), "reward.function: there is no brevity: choose an object of your own"),
        (own("no_such_rewards:f"), "reward.function: no_such_rewards cannot be imported"),
        (own("user_rewards:in_short"), "the reward uses gt_prob: add it to rl_data.scores"),
        (own("user_rewards:in_log") | {"grpo": {"rounds": 1}, "agro": {"rounds": 0}}, NO_ROUNDS),
        ({"grpo": {"rounds": "four"}}, "grpo.rounds is the text 'four', not a number"),
        ({"grpo": {"rounds": "4"}}, "grpo.rounds is the text '4', not a number"),
        ({"grpo": {"kl_beta": -1.0}}, "grpo.kl_beta: input should be greater than or equal"),
        ({"grpo": {"ratio": "sequence"}}, "grpo: a sequence ratio has one advantage per pointer"),
        ({"grpo": {"kl_target": [0.2, 0.1]}}, "grpo: kl_target is [min, max]"),
        ({"grpo": {"kl_target": [0.1, 0.1]}}, "grpo: kl_target is [min, max]"),
        ({"grpo": {"kl_target": [0.1]}}, "grpo.kl_target: list should have at least 2 items"),
        ({"grpo": {"kl_target": [0.1, 0.2], "kl_beta": 0.0}}, "grpo: kl_target moves kl_beta"),
        ({"grpo": {"start": "sft"}}, "grpo.start must be agro or one of rce.tau: rce"),
        ({"grpo": {"group_size": 1}}, "grpo.group_size: input should be greater than or equal to"),
        ({"grpo": {"kl": "k2"}}, "grpo.kl: input should be 'exact' or 'k3'"),
        ({"sft": {"schedule": "step"}}, "sft.schedule: input should be 'constant', 'linear' or"),
        ({"sft": {"warmup": -1}}, "sft.warmup: input should be greater than or equal to 0"),
        ({"sft": {"targets": {"sft-beams": "beams"}}}, "sft.targets: sft is missing, and RL start"),
        ({"sft": {"targets": {"sft": "all"}}}, "sft.targets.sft: input should be 'scores' or 'be"),
        ({"sft": {"targets": {"sft": "scores", "s": "beams"}}}, "input should be 'sft' or 'sft-b"),
        (
            {"sft": {"targets": {"sft": "beams", "sft-beams": "scores"}}},
            "sft.targets: sft-beams must imitate beams",
        ),
        ({"sft": {"patience": 0}}, "sft.patience: input should be greater than or equal to 1"),
        ({"sft": {"patience": 4, "schedule": "cosine"}}, "sft: patience could end the training b"),
        ({"sft": {"patience": 4, "schedule": "linear"}}, "its linear schedule does: set patience"),
        ({"rce": {"patience": 4}}, "unknown key rce.patience"),
        ({"rce": {"credit": "shot"}}, "rce.credit: input should be 'reward_to_go' or 'total'"),
        ({"rce": {"dropout": 1.0}}, "rce.dropout: input should be less than or equal to 0.99"),
        ({"rl": {"constant_groups": "skip"}}, "rl.constant_groups: input should be 'drop' or 'ke"),
        ({"rl": {"filter_gen_methods": []}}, "rl.filter_gen_methods: list should have at least 1"),
        ({"rl": {"filter_gen_methods": ["beams"]}}, "rl.filter_gen_methods.0: input should be"),
        (
            {"pool": {"size": 64}, "rl_data": {"retrieval": 49}},
            "rl_data.retrieval: a pool of this size gives at most 48",
        ),
        ({"rl_data": {"scores": ["hard"]}}, "rl_data.scores.0: input should be"),
        ({"policy": {"logit_clip": 2.0}}, "unknown key policy.logit_clip"),
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
        weights(bias=-1.0, near_miss=0.0),
        weights(gt_prob=1.0, near_miss=1.0) | {"rl_data": {"scores": ["gt_prob", "relevance"]}},
        weights(log_prob=-0.5) | OFF_LINE,
        reward("hard_plus_soft_v2", **PAIR),
        reward("separated", **PAIR),
        reward("hard_only", hard_weight=1.0),
        reward("soft_only", soft_weight=1.0),
        reward("hard01_plus_gtprob_separated", **PAIR) | {"rl_data": {"scores": ["gt_prob"]}},
        reward("hard_plus_gtprob_plus_rel", **PAIR, rel_weight=0.0)
        | {"rl_data": {"scores": ["gt_prob"]}},
        legacy(0.5, use_logprob=True) | OFF_LINE,
        legacy(0.0),
        own("user_rewards:plain"),
        own("user_rewards:in_short") | {"rl_data": {"scores": ["gt_prob"]}},
        own("user_rewards:in_log") | OFF_LINE,
        {"grpo": {"ratio": "sequence", "credit": "total", "kl_target": [0.1, 0.2]}},
        {"grpo": {"start": "agro"}},
        {"pool": {"size": 64}, "rl_data": {"retrieval": 48}},
        {"sft": {"patience": None, "schedule": "cosine"}},
    ],
    ids=str,
)
def test_what_fits_together_is_accepted(
    merged: Callable[[Content], Params], content: Content
) -> None:
    merged(content)


def test_a_reward_given_in_another_way_keeps_shot_weights_and_clip(
    path: Path, tmp_path: Path
) -> None:
    own = path.read_text(encoding="utf-8").replace("clip: 5.0", "clip: 3.0", 1)
    path.write_text(own.replace("[0.25, 0.25, 0.25, 0.25]", "[0.0, 0.0, 0.0, 1.0]", 1))
    preset = tmp_path / "preset.yaml"
    for given, expected in (
        ("mode: soft_only, soft_weight: 0.5", {"soft": 0.5}),
        ("mode: hard_only, hard_weight: 0.5", {"hard": 0.5}),
        ("gt_prob: 0.0, soft: 0.25", {"soft": 0.25}),
        ("function: 'user_rewards:plain'", {"function": "user_rewards:plain"}),
        ("mode: separated, hard_weight: 0.5, soft_weight: 0.5", {"hard": 1.0, "soft": 0.5}),
    ):
        preset.write_text(f"reward: {{{given}}}\n")
        overlay(path, preset)
        kept = {"clip": 3.0, "shot_weights": [0.0, 0.0, 0.0, 1.0]}
        assert load_params(path).reward == RewardParams.model_validate({**kept, **expected})


def test_a_reward_given_in_another_way_may_bring_shot_weights_of_its_own(
    merged: Callable[[Content], Params],
) -> None:
    content = reward("hard_only", hard_weight=1.0, shot_weights=[0.0, 0.0, 0.0, 1.0], clip=2.0)
    found = merged(content).reward
    assert (found.shot_weights, found.clip) == ([0.0, 0.0, 0.0, 1.0], 2.0)


def test_a_reward_given_in_the_same_way_is_merged(path: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    for given, hard, soft in (
        ("soft: 0.5", 1.0, 0.5),
        ("mode: hard_plus_soft, hard_weight: 1.0, soft_weight: 1.0", 1.0, 1.0),
        ("mode: hard_plus_soft, soft_weight: 0.5", 1.0, 0.5),
        ("hard_weight: 0.25", 0.25, 0.5),
        ("clip: 1.0", 0.25, 0.5),
    ):
        preset.write_text(f"reward: {{{given}}}\n")
        overlay(path, preset)
        found = load_params(path).reward
        assert (found.hard, found.soft) == (hard, soft)


def test_params_are_what_their_own_values_give(merged: Callable[[Content], Params]) -> None:
    """Changes to params that were read start from the weights into which a mode was turned."""
    found = merged(legacy(0.5, correctness_mode="pm1") | OFF_LINE)
    assert changed_params(found, {}) == found
    assert changed_params(found, weights(hard=0.5)).reward.log_prob == 0.5
    assert changed_params(found, reward("hard_only", hard_weight=0.5)).reward.log_prob == 0.0


def test_a_policy_of_another_kind_replaces_its_section(
    merged: Callable[[Content], Params],
) -> None:
    other = {"kind": "v2", "hidden": 32, "layers": 1, "temperature": 0.1}
    assert merged({"policy": other}).policy.model_dump() == other
    with pytest.raises(UserError, match=r"policy\.hidden is missing"):
        merged({"policy": {key: value for key, value in other.items() if key != "hidden"}})
    assert merged({"policy": {"hidden": 32}}).policy.model_dump() == {
        "kind": "residual",
        "hidden": 32,
        "layers": 1,
        "temperature": 0.3,
    }
