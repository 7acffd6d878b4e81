"""Damaged safetensors: checkpoints, feature spaces and training states are refused by name."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from doors import Bad, try_all
from safetensors.torch import save_file
from texts import changed, damaged

from lever_plus.features.whitening import SPACE, read_feature_space
from lever_plus.files.tensors import read_header, read_tensors
from lever_plus.policy.checkpoint import load_checkpoint
from lever_plus.policy.files import CONFIG, POLICY
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import PolicyConfig
from lever_plus.training.state import read_state, save_state
from policy.test_checkpoint import save

TYPES = (
    "F32",
    "F64",
    "F16",
    "BF16",
    "I64",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "",
    "f",
)


def headers(content: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, file) with another header: lengths, fields, types, and offsets."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    for number in range(count):
        if number % 4 == 0:
            other = rng.choice(
                (0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1)
            )
            yield f"a header of {other} bytes", other.to_bytes(8, "little") + content[8:]
            continue
        fresh = json.loads(json.dumps(header))
        if number % 4 == 1:
            done, fresh = next(changed(header, rng, 1))
        elif number % 4 == 2:
            name = rng.choice(names)
            kind = rng.choice([kind for kind in TYPES if kind != header[name]["dtype"]])
            done, fresh[name]["dtype"] = f"{name} is {kind}", kind
        else:
            one, other = rng.sample(names, 2)
            done, fresh[one]["data_offsets"] = (
                f"{one} lies on {other}",
                header[other]["data_offsets"],
            )
            if rng.random() < 0.5:
                fresh[one]["shape"] = header[other]["shape"]
        text = json.dumps(fresh).encode()
        yield done, len(text).to_bytes(8, "little") + text + data


def numbers(content: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, file) with other numbers: not finite, or one bit flipped."""
    start = 8 + int.from_bytes(content[:8], "little")
    for number in range(count):
        at = start + 4 * rng.randrange((len(content) - start) // 4)
        if number % 2:
            value = torch.tensor(rng.choice((float("nan"), float("inf"), float("-inf"))))
            raw = value.numpy().tobytes()
        else:
            raw = bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 : at + 4]
        yield f"{raw.hex()} at {at}", content[:at] + raw + content[at + 4 :]


def bad_files(content: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield all of these."""
    yield from damaged(content, rng, count)
    yield from headers(content, rng, count)
    yield from numbers(content, rng, count)


def given(path: Path, read: Callable[[], object], seed: int, count: int) -> Iterator[Bad]:
    """Give damaged contents of one file; if it is still read, it must be what was there."""
    whole, before = path.read_bytes(), read()

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            assert read() == before

        return Bad(name, run, (path.name, path.parent.name))

    for name, content in bad_files(whole, random.Random(seed), count):
        yield bad(name, content)
    path.write_bytes(whole)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = PolicyConfig("stateful", 4, 6, hidden=8, shots=3)
    return save(tmp_path / "run", build_policy(config))


def test_weights_of_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    def read() -> object:
        policy = load_checkpoint(folder).policy
        return {name: weight.tolist() for name, weight in policy.state_dict().items()}

    shutil.copytree(folder, tmp_path / "other")
    path = folder / POLICY
    bad = given(path, read, 1, 70)
    try_all("checkpoints, policy.safetensors", bad, tmp_path / "other")


def test_feature_spaces(folder: Path) -> None:
    """The hash is in config.json. On its own, a space with other numbers is another space."""
    path = folder / SPACE
    try_all(
        "checkpoints, feature_space.safetensors",
        given(path, lambda: load_checkpoint(folder).space.sha256, 2, 60),
    )

    def alone(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            rows = torch.ones(2, 5).numpy()
            for whitening in read_feature_space(path).whitening.values():
                assert torch.from_numpy(whitening.apply(rows)).isfinite().all()

        return Bad(name, run, (path.name,))

    files = headers(path.read_bytes(), random.Random(3), 120)
    try_all("feature spaces", (alone(*each) for each in files))


def test_configurations_of_checkpoints(folder: Path) -> None:
    """Facts that are only for people may change; what the policy is and needs may not."""
    path = folder / CONFIG
    whole = path.read_bytes()
    facts = json.loads(whole)

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            config = load_checkpoint(folder).config.model_dump(mode="json")
            for key in ("format", "architecture", "feature_space"):
                assert config[key] == facts[key]

        return Bad(name, run, (CONFIG, "run"))

    rng = random.Random(4)
    texts = [(name, json.dumps(each).encode()) for name, each in changed(facts, rng, 150)]
    inputs = [bad(*each) for each in (*texts, *damaged(whole, rng, 100))]
    try_all("checkpoints, config.json", inputs)


def test_states_of_trainings(tmp_path: Path) -> None:
    """A state that is not what was saved under that name means starting anew, not a crash."""
    path = tmp_path / "state.safetensors"
    save_state(path, {"w": torch.arange(9.0), "b": torch.arange(4), "epoch": 2, "rows": [{"a": 1}]})
    whole = path.read_bytes()

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            assert read_state(path) is None or content == whole

        return Bad(name, run, ())

    files = bad_files(whole, random.Random(5), 80)
    try_all("states of trainings", (bad(*each) for each in files))
    other = tmp_path / "other.safetensors"
    other.write_bytes(whole)
    assert read_state(other) is None


def test_any_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    save_file({"w": torch.arange(9.0), "b": torch.ones(2, 3), "c": torch.ones(2).half()}, path)
    whole = path.read_bytes()

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            tensors, _ = read_tensors(path, "make it again")
            assert read_header(path, "make it again").numbers == sum(
                tensor.numel() for tensor in tensors.values()
            )
            assert all(t.float().isfinite().all() for t in tensors.values())

        return Bad(name, run, (path.name,))

    files = bad_files(whole, random.Random(6), 200)
    try_all("safetensors", (bad(*each) for each in files))
