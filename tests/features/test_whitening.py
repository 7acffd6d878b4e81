"""A feature space: exact whitening, a hash of all its numbers, and files that are read back whole.

Files that are damaged, or of another version, are refused in one sentence.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from lever_plus.errors import UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.whitening import (
    PARTS,
    Array,
    FeatureSpace,
    Whitening,
    fit_whitening,
    read_feature_space,
)

NAMES = [f"{part}.{name}" for part in PARTS for name in ("mean", "components", "scale")]
Tensors = dict[str, Any]


def unit_rows(seed: int, count: int = 60, dimensions: int = 12) -> Array:
    """Return features whose variance falls from one dimension to the next, at unit length."""
    spread = 0.6 ** np.arange(dimensions)
    rows = np.random.default_rng(seed).normal(0.3, 1, (count, dimensions)) * spread
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def make_space(variance: float = 0.95, encoder: str = "a" * 64) -> FeatureSpace:
    fitted = {p: fit_whitening(unit_rows(seed), variance) for seed, p in enumerate(PARTS)}
    return FeatureSpace(encoder, fitted)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "feature_space.safetensors"
    make_space().save(path)
    return path


def rewrite(
    path: Path,
    change: Callable[[Tensors], object] = lambda _: None,
    header: dict[str, str] | None = None,
) -> None:
    """Change the tensors of a file, and its header if one is given."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() if header is None else header
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path, metadata=metadata)


@pytest.mark.invariant
@pytest.mark.parametrize("variance", [0.5, 0.9, 0.999])
def test_whitening_is_that_of_scikit_learn_to_the_last_bit(variance: float) -> None:
    fitted_on, new = unit_rows(0), unit_rows(1, count=7)
    reference = PCA(n_components=variance, whiten=True, svd_solver="full").fit(fitted_on)
    whitening = fit_whitening(fitted_on, variance)
    for rows in (fitted_on, new, new[:1]):
        expected, found = reference.transform(rows), whitening.apply(rows)
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert 1 <= len(whitening.scale) < fitted_on.shape[1]


def test_rounding_errors_of_constant_features_are_not_blown_up() -> None:
    rows = np.full((60, 12), 0.25, dtype=np.float32)
    rows[::2, 3] = np.nextafter(rows[0, 3], np.float32(1))
    reference = PCA(n_components=0.9, whiten=True, svd_solver="full").fit(rows)
    white = fit_whitening(rows, 0.9).apply(rows)
    np.testing.assert_array_equal(white, reference.transform(rows))
    assert 0 < np.abs(white).max() < 0.5


@pytest.mark.invariant
def test_whitening_of_clip_features_is_that_of_scikit_learn(
    embeddings: Embeddings, space: FeatureSpace
) -> None:
    """With the memory-mapped rows of files, on which the stage fits it."""
    for part in PARTS:
        rows = np.asarray(embeddings.unit[part])
        reference = PCA(n_components=0.99, whiten=True, svd_solver="full").fit(rows[:24])
        found = fit_whitening(rows[:24], 0.99)
        np.testing.assert_array_equal(found.apply(rows), reference.transform(rows))
        np.testing.assert_array_equal(found.apply(rows), space.whitening[part].apply(rows))


def test_a_query_has_no_answer_and_its_parts_come_first() -> None:
    space = make_space()
    unit = {part: unit_rows(seed + 10, count=5) for seed, part in enumerate(PARTS)}
    white = [space.whitening[part].apply(unit[part]) for part in ("question", "image", "answer")]
    queries = space.query({part: unit[part] for part in ("question", "image")})
    candidates = space.candidates(unit)
    np.testing.assert_array_equal(queries, np.hstack(white[:2]))
    np.testing.assert_array_equal(candidates, np.hstack(white))
    assert queries.dtype == candidates.dtype == np.float32
    assert space.query_size == queries.shape[1]
    assert space.candidate_size == candidates.shape[1]


@pytest.mark.invariant
def test_the_hash_changes_with_every_number() -> None:
    """By the smallest change that a float can have."""
    space = make_space()
    hashes = {space.sha256}
    for name in NAMES:
        part, field = name.split(".")
        for index in np.ndindex(getattr(space.whitening[part], field).shape):
            changed = getattr(space.whitening[part], field).copy()
            changed[index] = np.nextafter(changed[index], np.float32(np.inf))
            whitening = replace(space.whitening[part], **{field: changed})
            other = FeatureSpace(space.encoder, {**space.whitening, part: whitening})
            assert other.sha256 not in hashes, (name, index)
            hashes.add(other.sha256)


def test_the_hash_changes_with_encoder_variance_and_the_place_of_a_part() -> None:
    space = make_space()
    question, image = space.whitening["question"], space.whitening["image"]
    exchanged = {**space.whitening, "question": image, "image": question}
    others = [
        make_space(encoder="b" * 64),
        make_space(variance=0.9),
        FeatureSpace(space.encoder, exchanged),
    ]
    assert len({space.sha256, *(other.sha256 for other in others)}) == 4
    assert make_space().sha256 == space.sha256


def test_the_hash_does_not_depend_on_how_numbers_lie_in_memory(tmp_path: Path) -> None:
    space = make_space()
    turned = {
        part: Whitening(w.mean, np.asfortranarray(w.components), np.repeat(w.scale, 2)[::2])
        for part, w in reversed(space.whitening.items())
    }
    other = FeatureSpace(space.encoder, turned)
    assert other.sha256 == space.sha256
    space.save(tmp_path / "one")
    other.save(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == (tmp_path / "one").read_bytes()


@pytest.mark.invariant
def test_a_saved_space_comes_back_with_its_hash_and_its_bytes(saved: Path, tmp_path: Path) -> None:
    space, found = make_space(), read_feature_space(saved)
    assert (found.encoder, found.sha256) == (space.encoder, space.sha256)
    for part in PARTS:
        rows = unit_rows(5)
        expected = space.whitening[part].apply(rows)
        np.testing.assert_array_equal(found.whitening[part].apply(rows), expected)
    found.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is missing: run `dvc repro embed`, or copy"):
        read_feature_space(tmp_path / "nowhere")


def test_a_file_cut_off_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 5, 8, 100, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"{saved.name} is damaged.*dvc repro embed"):
            read_feature_space(saved)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_part_is_refused(saved: Path, name: str) -> None:
    rewrite(saved, lambda tensors: tensors.pop(name))
    with pytest.raises(UserError, match="is not a feature space of this version"):
        read_feature_space(saved)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, np.nan, a).astype(np.float32),
        lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, np.inf, a).astype(np.float32),
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.float16),
        lambda a: a[:-1].copy(),
        lambda a: a[None].copy(),
        lambda a: np.array(a.mean()),
    ],
    ids=["nan", "inf", "float64", "float16", "shorter", "one dimension more", "a number"],
)
def test_numbers_of_another_kind_or_shape_are_refused(
    saved: Path, name: str, damage: Callable[[Array], Array]
) -> None:
    rewrite(saved, lambda tensors: tensors.update({name: damage(tensors[name])}))
    part = name.split(".")[0]
    with pytest.raises(UserError, match=rf"{saved.name}: .*{part}.*dvc repro embed"):
        read_feature_space(saved)


def test_a_space_of_another_version_is_refused(saved: Path) -> None:
    header = json.dumps({"format": "lever-plus-feature-space-0", "encoder": "a" * 64})
    rewrite(saved, header={"lever_plus": header})
    with pytest.raises(UserError, match="is not a feature space of this version"):
        read_feature_space(saved)


@pytest.mark.parametrize("text", ["{", "[]", "1", '"text"', "null", "{}", '{"format": "x"}'])
def test_a_header_of_another_kind_is_refused(saved: Path, text: str) -> None:
    rewrite(saved, header={"lever_plus": text})
    with pytest.raises(UserError, match=rf"{saved.name}.*dvc repro embed"):
        read_feature_space(saved)


def test_another_file_is_refused(saved: Path) -> None:
    rewrite(saved, header={})
    with pytest.raises(UserError, match=rf"{saved.name}.*dvc repro embed"):
        read_feature_space(saved)
    saved.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UserError, match=rf"{saved.name}.*dvc repro embed"):
        read_feature_space(saved)


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(saved: Path, value: float) -> None:
    """Features would be divided by that scale."""
    rewrite(saved, lambda tensors: tensors["image.scale"].__setitem__(0, value))
    with pytest.raises(UserError, match="the parts of image do not fit together"):
        read_feature_space(saved)
