"""A checkpoint gives back the policy it was made of, or refuses to be loaded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lever_plus.errors import UserError
from lever_plus.policy.checkpoint import load_policy, save_policy
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig

POOL, ENCODER = "a" * 64, "b" * 64
NAME = "query_in.weight"
"""A weight that every kind of selector has."""


@pytest.fixture
def trained(config: PolicyConfig) -> Policy:
    torch.manual_seed(1)
    return build_policy(config)


@pytest.fixture
def saved(tmp_path: Path, trained: Policy) -> Path:
    path = tmp_path / "run" / "policy.safetensors"
    save_policy(path, trained, pool_sha256=POOL, encoder=ENCODER)
    return path


def load(path: Path) -> Policy:
    return load_policy(path, pool_sha256=POOL, encoder=ENCODER)


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a checkpoint and leave its header as it is."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path, metadata=header)


def test_a_loaded_policy_has_the_weights_and_the_architecture(saved: Path, trained: Policy) -> None:
    loaded = load(saved)
    assert loaded.config == trained.config
    assert loaded.state_dict().keys() == trained.state_dict().keys()
    for name, weight in trained.state_dict().items():
        assert loaded.state_dict()[name].equal(weight), name


def test_a_loaded_policy_gives_equal_log_probs(saved: Path, trained: Policy) -> None:
    queries, pools = torch.randn(2, 4), torch.randn(2, 5, 6)
    pointers = torch.tensor([[[0, 1, 2], [4, 2, 0]]]).expand(2, -1, -1)
    expected, loaded = trained.eval(), load(saved)
    assert loaded.log_probs(loaded.encode(queries, pools), pointers).equal(
        expected.log_probs(expected.encode(queries, pools), pointers)
    )


def test_a_loaded_policy_is_in_eval_mode(saved: Path) -> None:
    assert not any(module.training for module in load(saved).modules())


def test_equal_policies_give_equal_bytes(saved: Path, tmp_path: Path, trained: Policy) -> None:
    again = tmp_path / "again.safetensors"
    save_policy(again, load(saved), pool_sha256=POOL, encoder=ENCODER)
    assert again.read_bytes() == saved.read_bytes()
    with torch.no_grad():
        trained.get_parameter(NAME).add_(1)
    save_policy(again, trained, pool_sha256=POOL, encoder=ENCODER)
    assert again.read_bytes() != saved.read_bytes()


def test_another_pool_is_refused(saved: Path) -> None:
    with pytest.raises(UserError, match="was trained on pools aaaaaaaaaaaa, not cccccccccccc"):
        load_policy(saved, pool_sha256="c" * 64, encoder=ENCODER)


def test_another_pool_may_be_allowed_explicitly(saved: Path, trained: Policy) -> None:
    loaded = load_policy(saved, pool_sha256="c" * 64, encoder=ENCODER, allow_other_pool=True)
    assert loaded.get_parameter(NAME).equal(trained.get_parameter(NAME))


@pytest.mark.parametrize("allow", [False, True])
def test_another_encoder_is_refused_whatever_the_pool(saved: Path, allow: bool) -> None:
    with pytest.raises(UserError, match="encoder bbbbbbbbbbbb"):
        load_policy(saved, pool_sha256=POOL, encoder="c" * 64, allow_other_pool=allow)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.safetensors is missing"):
        load(tmp_path / "nowhere.safetensors")


def test_a_file_cut_off_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 5, 8, 100, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"{saved.name} is damaged"):
            load(saved)


def test_missing_weights_are_refused(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.pop(NAME))
    with pytest.raises(
        UserError, match=r'other weights than its architecture(.|\n)*"query_in\.weight"'
    ):
        load(saved)


def test_extra_weights_are_refused(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(UserError, match=r'other weights than its architecture(.|\n)*"extra"'):
        load(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.update({NAME: torch.zeros(9)}))
    with pytest.raises(
        UserError, match=r"other weights than its architecture(.|\n)*query_in\.weight"
    ):
        load(saved)


def test_weights_without_a_header_are_refused(saved: Path, trained: Policy) -> None:
    save_file(trained.state_dict(), saved)
    with pytest.raises(UserError, match="is not a Lever-Plus checkpoint"):
        load(saved)


def test_a_pickle_is_refused(saved: Path, trained: Policy) -> None:
    torch.save(trained.state_dict(), saved)
    with pytest.raises(UserError, match="is damaged"):
        load(saved)


def test_a_policy_of_another_kind_has_other_weights(saved: Path, trained: Policy) -> None:
    """The header's kind is believed, so weights of another kind are refused by their names."""
    other = build_policy(
        replace(trained.config, kind="v2" if trained.config.kind == "stateful" else "stateful")
    )

    def exchange(tensors: dict[str, Tensor]) -> None:
        tensors.clear()
        tensors.update(other.state_dict())

    rewrite(saved, exchange)
    with pytest.raises(UserError, match="other weights than its architecture: train it again"):
        load(saved)


def test_an_older_format_is_no_checkpoint(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["lever_plus"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps({**header, "format": "lever-plus-selector-1"})
    save_file(tensors, saved, metadata={"lever_plus": text})
    with pytest.raises(UserError, match="is not a Lever-Plus checkpoint"):
        load(saved)
