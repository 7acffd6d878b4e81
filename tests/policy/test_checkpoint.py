"""A checkpoint gives back the policy that was saved, or is refused in one sentence."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lever_plus.errors import UserError
from lever_plus.features.whitening import PARTS, FeatureSpace, Whitening
from lever_plus.policy.checkpoint import (
    CARD,
    CONFIG,
    POLICY,
    SPACE,
    CheckpointConfig,
    EncoderFacts,
    load_checkpoint,
    load_policy,
    save_checkpoint,
)
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig

POOL, ENCODER = "a" * 64, "b" * 64
NAME = "query_in.weight"
"""The end of the name of a weight that every kind of selector has."""
Fields = dict[str, Any]


def make_space(seed: int = 0, encoder: str = ENCODER, size: int = 2) -> FeatureSpace:
    """Return a space with two components per part: queries have 4 and candidates 6."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return rng.random(shape).astype(np.float32) + 0.5

    whitening = {p: Whitening(numbers(5), numbers(size, 5), numbers(size)) for p in PARTS}
    return FeatureSpace(encoder, whitening)


def describe(policy: Policy, space: FeatureSpace, **changed: Any) -> CheckpointConfig:
    fields: Fields = {
        "architecture": policy.config,
        "feature_space": space.sha256,
        "encoder": EncoderFacts(sha256=space.encoder, path="models/clip"),
        "pool_sha256": POOL,
        "vlm": {
            "model": "TinyVlm",
            "revision": "r" * 64,
            "dtype": "float32",
            "prompt_hash": "h" * 12,
            "generation": "greedy, 5 tokens",
        },
        "prompt": {"style": "qa", "instruction": "Answer in one word."},
        "training": {"method": "grpo", "seed": 7, "dev_reward": 0.625},
    }
    return CheckpointConfig(**{**fields, **changed})


def save(folder: Path, policy: Policy, space: FeatureSpace | None = None) -> Path:
    space = space or make_space()
    save_checkpoint(folder, policy, space, describe(policy, space))
    return folder


@pytest.fixture
def trained(config: PolicyConfig) -> Policy:
    torch.manual_seed(1)
    return build_policy(config)


@pytest.fixture
def saved(tmp_path: Path, trained: Policy) -> Path:
    return save(tmp_path / "run", trained)


def load(folder: Path) -> Policy:
    return load_policy(folder, pool_sha256=POOL, space_sha256=make_space().sha256)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights of a checkpoint and leave the rest as it is."""
    with safe_open(folder / POLICY, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, folder / POLICY)


def name_in(names: Iterable[str]) -> str:
    """Return the name of a weight that every kind of selector has."""
    return next(name for name in names if name.endswith(NAME))


def a_weight(policy: Policy) -> Tensor:
    """Return that weight of a policy."""
    return policy.get_parameter(name_in(policy.state_dict()))


def edit(folder: Path, change: Callable[[Fields], object]) -> None:
    """Change config.json."""
    fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    change(fields)
    (folder / CONFIG).write_text(json.dumps(fields), encoding="utf-8")


def refused(folder: Path) -> str:
    """Return the sentence with which a checkpoint is refused."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(folder)
    return str(caught.value)


@pytest.mark.invariant
def test_a_loaded_checkpoint_has_weights_space_and_facts_to_the_bit(
    saved: Path, trained: Policy
) -> None:
    policy, space, config = load_checkpoint(saved)
    assert policy.config == trained.config
    assert policy.state_dict().keys() == trained.state_dict().keys()
    for name, weight in trained.state_dict().items():
        assert policy.state_dict()[name].equal(weight), name
    assert space.sha256 == make_space().sha256
    assert space.encoder == ENCODER
    assert config.model_copy(update={"policy": None}) == describe(trained, make_space())


def test_a_loaded_policy_gives_equal_log_probs(saved: Path, trained: Policy) -> None:
    queries, pools = torch.randn(2, 4), torch.randn(2, 5, 6)
    pointers = torch.tensor([[[0, 1, 2], [4, 2, 0]]]).expand(2, -1, -1)
    expected, loaded = trained.eval(), load(saved)
    assert loaded.log_probs(loaded.encode(queries, pools), pointers).equal(
        expected.log_probs(expected.encode(queries, pools), pointers)
    )


def test_a_loaded_policy_is_in_eval_mode(saved: Path) -> None:
    assert not any(module.training for module in load(saved).modules())


@pytest.mark.invariant
def test_equal_policies_give_equal_bytes(saved: Path, tmp_path: Path, trained: Policy) -> None:
    again = tmp_path / "again"
    save_checkpoint(again, *load_checkpoint(saved))
    assert contents(again) == contents(saved)
    assert contents(saved).keys() == {POLICY, SPACE, CONFIG, CARD}
    with torch.no_grad():
        a_weight(trained).add_(1)
    save(again, trained)
    changed = contents(again)
    assert changed.pop(POLICY) != contents(saved)[POLICY]
    hashes = [
        json.loads(folder[CONFIG]) for folder in (contents(saved), {CONFIG: changed.pop(CONFIG)})
    ]
    assert hashes[0].pop("policy") != hashes[1].pop("policy")
    assert hashes[0] == hashes[1]
    assert all(content == contents(saved)[name] for name, content in changed.items())


def test_a_save_that_breaks_off_leaves_nothing_that_can_be_loaded(
    saved: Path, trained: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the weights of one training would be beside the facts of another."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lever_plus.policy.checkpoint.card", killed)
    with pytest.raises(KeyboardInterrupt):
        save(saved, trained)
    assert f"{POLICY} is missing" in refused(saved)


def test_another_pool_is_refused(saved: Path) -> None:
    with pytest.raises(UserError, match="was trained on pools aaaaaaaaaaaa, not cccccccccccc"):
        load_policy(saved, pool_sha256="c" * 64, space_sha256=make_space().sha256)


def test_another_pool_may_be_allowed_explicitly(saved: Path, trained: Policy) -> None:
    loaded = load_policy(
        saved, pool_sha256="c" * 64, space_sha256=make_space().sha256, allow_other_pool=True
    )
    assert a_weight(loaded).equal(a_weight(trained))


@pytest.mark.invariant
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    "other", [make_space(encoder="c" * 64), make_space(seed=1)], ids=["encoder", "whitening"]
)
def test_another_feature_space_is_refused_whatever_the_pool(
    saved: Path, other: FeatureSpace, allow: bool
) -> None:
    """A space of another encoder, or another whitening of the same encoder."""
    mine = make_space().sha256[:12]
    with pytest.raises(
        UserError, match=f"trained in feature space {mine}, not {other.sha256[:12]} .*whitening"
    ):
        load_policy(saved, pool_sha256=POOL, space_sha256=other.sha256, allow_other_pool=allow)


@pytest.mark.invariant
@pytest.mark.parametrize("encoder", ["c" * 64, ENCODER], ids=["encoder", "whitening"])
def test_a_feature_space_of_another_checkpoint_is_refused(
    saved: Path, trained: Policy, tmp_path: Path, encoder: str
) -> None:
    other = save(tmp_path / "other", trained, make_space(seed=1, encoder=encoder))
    load_checkpoint(other)
    copyfile(other / SPACE, saved / SPACE)
    assert f"{SPACE} is not the feature space that the policy was trained in" in refused(saved)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "nowhere holds no checkpoint: name another folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty holds no checkpoint: name another folder, or run the stage" in refused(
        tmp_path / "empty"
    )


def test_a_missing_part_is_refused_and_named(saved: Path, tmp_path: Path) -> None:
    for name in (POLICY, SPACE):
        folder = copytree(saved, tmp_path / name)
        (folder / name).unlink()
        assert f"{folder / name} is missing" in refused(folder)


def test_a_checkpoint_without_its_card_is_whole(saved: Path, trained: Policy) -> None:
    (saved / CARD).unlink()
    assert a_weight(load(saved)).equal(a_weight(trained))


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path, trained: Policy) -> None:
    """Such a checkpoint is one file, with its facts before the weights."""
    header = json.dumps({"format": "lever-plus-selector-2", "encoder": ENCODER})
    save_file(trained.state_dict(), tmp_path / POLICY, metadata={"lever_plus": header})
    assert re.search(
        rf"holds a checkpoint of an earlier version \(it has no {CONFIG}\), .*train it again",
        refused(tmp_path),
    )


def test_weights_that_are_cut_off_anywhere_are_refused(saved: Path) -> None:
    path = saved / POLICY
    content = path.read_bytes()
    for length in (0, 5, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert f"{POLICY} is damaged" in refused(saved)


def test_a_pickle_is_refused(saved: Path, trained: Policy) -> None:
    torch.save(trained.state_dict(), saved / POLICY)
    assert f"{POLICY} is damaged" in refused(saved)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop(name_in(tensors)), r"query_in\.weight: None, not \("),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), r"extra: \(1,\), not None"),
        (
            lambda tensors: tensors.update({name_in(tensors): torch.zeros(9)}),
            r"query_in\.weight: \(9,\), not",
        ),
    ],
    ids=["missing", "extra", "another shape"],
)
def test_other_weights_than_the_architecture_s_are_refused(
    saved: Path, change: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    rewrite(saved, change)
    message = refused(saved)
    assert f"holds other weights than {CONFIG} describes (" in message
    assert re.search(named, message)


def test_a_policy_of_another_kind_has_other_weights(saved: Path, trained: Policy) -> None:
    """The kind in config.json counts, so the weights of another kind are refused by their names."""
    kind: Literal["stateful", "v2"] = "v2" if trained.config.kind == "stateful" else "stateful"
    other = build_policy(replace(trained.config, kind=kind))

    def exchange(tensors: dict[str, Tensor]) -> None:
        tensors.clear()
        tensors.update(other.state_dict())

    rewrite(saved, exchange)
    assert f"holds other weights than {CONFIG} describes" in refused(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda weight: weight.index_fill(0, torch.tensor([1]), float("nan")),
        lambda weight: weight.index_fill(0, torch.tensor([0]), float("-inf")),
        lambda weight: weight.double(),
        lambda weight: weight.half(),
    ],
    ids=["nan", "inf", "float64", "float16"],
)
def test_weights_that_are_not_finite_float32_are_refused(
    saved: Path, damage: Callable[[Tensor], Tensor]
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        name = name_in(tensors)
        tensors[name] = damage(tensors[name])

    rewrite(saved, change)
    assert re.search(rf"{NAME} holds (numbers that are not finite|F\d\d, not F32)", refused(saved))


def test_weights_of_another_checkpoint_are_refused(
    saved: Path, trained: Policy, tmp_path: Path
) -> None:
    """They have the same architecture, pools and space: another seed, or one number changed."""
    other = tmp_path / "other"
    with torch.no_grad():
        a_weight(trained).add_(1)
    save(other, trained)
    load_checkpoint(other)
    for name in (POLICY, CONFIG):
        mixed = copytree(saved, tmp_path / f"mixed {name}")
        copyfile(other / name, mixed / name)
        assert f"{POLICY} holds the weights of another checkpoint" in refused(mixed)


def test_a_checkpoint_from_before_its_weights_were_hashed_is_loaded(saved: Path) -> None:
    edit(saved, lambda fields: fields.pop("policy"))
    assert load_checkpoint(saved).config.policy is None


@pytest.mark.parametrize("field", ["logit_clip", "temperature", "dropout"])
def test_an_architecture_that_was_changed_is_refused(saved: Path, field: str) -> None:
    """The shapes of the weights do not show it."""
    edit(saved, lambda fields: fields["architecture"].update({field: 0.25}))
    assert f"{CONFIG} was changed" in refused(saved)


@pytest.mark.parametrize("field", ["hidden", "shots", "layers", "query_size"])
@pytest.mark.parametrize("value", [0, -1, 2**18, 10**9, 10**40, True, "8", 8.5])
def test_a_size_that_the_weights_do_not_have_allocates_nothing(
    saved: Path, field: str, value: object
) -> None:
    edit(saved, lambda fields: fields["architecture"].update({field: value}))
    assert re.search(f"({CONFIG} is no|holds other weights|differ in size)", refused(saved))


def test_another_encoder_s_hash_is_refused(saved: Path) -> None:
    edit(saved, lambda fields: fields["encoder"].update(sha256="c" * 64))
    assert f"{SPACE} is not the feature space" in refused(saved)


def test_a_policy_and_a_space_of_other_sizes_are_refused(saved: Path) -> None:
    """Even if the space is the one in config.json."""
    larger = make_space(size=3)
    larger.save(saved / SPACE)
    edit(saved, lambda fields: fields.update(feature_space=larger.sha256))
    assert "the policy and its feature space differ in size" in refused(saved)


def test_a_configuration_of_another_format_is_refused(saved: Path) -> None:
    edit(saved, lambda fields: fields.update(format="lever-plus-selector-4"))
    assert "has format 'lever-plus-selector-4', not 'lever-plus-selector-3'" in refused(saved)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda fields: fields.pop("pool_sha256"), "pool_sha256: Field required"),
        (lambda fields: fields.update(extra=1), "extra: Extra inputs"),
        (lambda fields: fields["encoder"].pop("sha256"), "encoder.sha256: Field required"),
        (lambda fields: fields["vlm"].pop("dtype"), "vlm.dtype: Field required"),
        (lambda fields: fields["architecture"].update(kind="v9"), "architecture.kind: Input"),
        (lambda fields: fields["architecture"].update(hidden="x"), "architecture.hidden: Input"),
    ],
    ids=["missing", "unknown", "encoder", "vlm", "kind", "hidden"],
)
def test_a_configuration_that_is_not_whole_is_refused_and_the_place_named(
    saved: Path, change: Callable[[Fields], object], place: str
) -> None:
    edit(saved, change)
    message = refused(saved)
    assert f"{CONFIG} is not the configuration of a checkpoint ({place}" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\x80"])
def test_a_damaged_configuration_is_refused(saved: Path, text: str) -> None:
    (saved / CONFIG).write_text(text, encoding="latin-1")
    assert re.search(f"{CONFIG} is not ", refused(saved))


def test_the_card_says_what_somebody_must_know_who_finds_the_folder(
    saved: Path, trained: Policy
) -> None:
    card = (saved / CARD).read_text(encoding="utf-8")
    parameters = sum(weight.numel() for weight in trained.state_dict().values())
    for fact in (
        f"picks up to {trained.config.shots} in-context demonstrations",
        f"kind: {trained.config.kind}, {parameters:,} parameters",
        f"VLM: TinyVlm, revision {'r' * 64}, float32",
        "prompt: instruction 'Answer in one word.', style 'qa' (hash hhhhhhhhhhhh)",
        "generation: greedy, 5 tokens",
        f"encoder: sha256 {ENCODER}",
        f"feature space: sha256 {make_space().sha256}",
        f"pools: sha256 {POOL}",
        "- method: grpo\n- seed: 7\n",
        "dev_reward: 0.625",
        'load_selector("PATH OF THIS FOLDER", encoder="PATH OF THE ENCODER")',
    ):
        assert fact in card


def test_the_card_of_a_policy_in_the_shipped_encoder_s_space_asks_for_no_other(
    trained: Policy, tmp_path: Path
) -> None:
    space = make_space()
    encoder = EncoderFacts(sha256=ENCODER, path="shipped:clip")
    save_checkpoint(tmp_path, trained, space, describe(trained, space, encoder=encoder))
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    assert 'load_selector("PATH OF THIS FOLDER")\n' in card
    assert f"sha256 {ENCODER}, shipped with the package as shipped:clip\n" in card
