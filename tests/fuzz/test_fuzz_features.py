"""Damaged features: arrays, their ids, and what a stopped encoding has kept."""

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from doors import Bad, try_all
from texts import changed, damaged

from lever_plus.data.examples import Example
from lever_plus.features.embeddings import data_hash, read_embeddings
from lever_plus.features.kept import KeptFeatures
from lever_plus.features.progress import Progress
from lever_plus.features.whitening import PARTS, Array, FeatureSpace, Whitening

ROWS, WIDTH = 12, 6
EXAMPLES = {
    i: Example(f"{i}.png", f"question {i}?", "a", question_id=i, image_sha256=f"{i:064x}")
    for i in range(ROWS)
}


def saved(array: object) -> bytes:
    """Return an array as a file."""
    stream = io.BytesIO()
    np.save(stream, array)  # type: ignore[arg-type]
    return stream.getvalue()


def unit(seed: int) -> Array:
    """Return features of unit length."""
    rows = np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def arrays(
    array: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", rng: random.Random
) -> Iterator[tuple[str, bytes]]:
    """Yield (what is wrong, file) of arrays that differ from this one."""
    row, column = rng.randrange(ROWS), rng.randrange(array.shape[1])
    for value in (np.nan, np.inf, -np.inf, 1e30, 7.0):
        other = array.copy()
        other[row, column] = value
        yield f"{value} at {row}, {column}", saved(other)
    for kind in ("f8", "f2", "i4", "u1", "?", "c8", ">f4", "O", "S4", "U2", "M8[s]"):
        yield f"of type {kind}", saved(array.astype(kind))
    rest = rng.randrange(ROWS)
    yield f"{rest} rows", saved(array[:rest])
    yield "a row more", saved(np.concatenate([array, array[:1]]))
    yield "a column less", saved(array[:, :-1])
    yield "one dimension", saved(array.ravel())
    yield "three dimensions", saved(array[None])
    yield "column by column", saved(np.asfortranarray(array))
    yield "turned", saved(array.T.copy())
    yield "a number", saved(np.float32(1))
    stream = io.BytesIO()
    np.savez(stream, array)
    yield "an archive", stream.getvalue()


def array_files(path: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (what is wrong, file) with a damaged header."""
    content = path.read_bytes()
    for name, header in damaged(content[:128], rng, 40):
        yield name, header + content[128:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of 12 examples, as the stage writes them."""
    features = {part: unit(seed) for seed, part in enumerate(PARTS)}
    rng = np.random.default_rng(7)

    def whitening() -> Whitening:
        numbers = [
            rng.random(shape).astype(np.float32) + 0.5 for shape in ((WIDTH,), (2, WIDTH), (2,))
        ]
        return Whitening(*numbers)

    space = FeatureSpace("e" * 64, {part: whitening() for part in PARTS})
    folder = tmp_path / "embed"
    space.save(folder / "feature_space.safetensors")
    for part in PARTS:
        np.save(folder / f"{part}.npy", features[part])
    np.save(folder / "white.npy", space.candidates(features))
    meta = {"data": data_hash(list(EXAMPLES.values())), "ids": list(EXAMPLES)}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder


def test_features(folder: Path, tmp_path: Path) -> None:
    """What is accepted is what was there, to the bit."""
    found = read_embeddings(folder)
    whole = {part: np.array(found.unit[part]) for part in PARTS}
    white = np.array(found.white)
    shutil.copytree(folder, tmp_path / "other")

    def bad(path: Path, name: str, content: bytes) -> Bad:
        def run() -> None:
            before = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            try:
                found = read_embeddings(folder, EXAMPLES)
                for part in PARTS:
                    np.testing.assert_allclose(found.unit[part], whole[part], atol=0.1)
                np.testing.assert_allclose(found.white, white, atol=0.1)
                assert list(found.rows) == list(range(ROWS))
            finally:
                path.unlink()
                path.write_bytes(before)

        return Bad(f"{path.name}: {name}", run, ("embed",))

    def inputs() -> Iterator[Bad]:
        rng = random.Random(1)
        for file in ("white.npy", *(f"{part}.npy" for part in PARTS)):
            path = folder / file
            for each in (*arrays(np.load(path), rng), *array_files(path, rng)):
                yield bad(path, *each)
        path = folder / "meta.json"
        meta = json.loads(path.read_text(encoding="utf-8"))
        for name, each in changed(meta, rng, 80):
            yield bad(path, name, json.dumps(each).encode())

    try_all("features in files", inputs(), tmp_path / "other")


def test_features_of_another_space(folder: Path) -> None:
    """The sizes are the same, so only the numbers tell the spaces apart."""
    path = folder / "white.npy"
    np.save(path, np.load(path)[::-1].copy())
    with pytest.raises(Exception, match=r"white\.npy was made in another space"):
        read_embeddings(folder)


def test_progress_and_kept_features(tmp_path: Path) -> None:
    """These files only save time, so they are made again, whatever is in their place."""
    rows = unit(3)
    place = tmp_path / "progress"
    Progress(place, "image").add(rows[:5], ROWS)
    contents = [f"text {number}" for number in range(ROWS)]
    KeptFeatures(tmp_path / "kept", "e" * 64).rows("text", contents, lambda _: rows)
    (stored,) = (tmp_path / "kept").iterdir()

    def go_on() -> None:
        progress = Progress(place, "image")
        assert progress.rows in (0, 5)
        progress.add(rows[progress.rows :], ROWS)
        np.testing.assert_array_equal(progress.finished(), rows)

    def ask() -> None:
        kept = KeptFeatures(tmp_path / "kept", "e" * 64)
        found = kept.rows("text", contents, lambda new: rows[[contents.index(c) for c in new]])
        np.testing.assert_array_equal(found, rows)

    def bad(path: Path, name: str, content: bytes, use: Callable[[], None]) -> Bad:
        def run() -> None:
            before = {each: each.read_bytes() for each in place.iterdir()}
            path.unlink()
            path.write_bytes(content)
            try:
                use()
            finally:
                for each, was in before.items():
                    each.unlink(missing_ok=True)
                    each.write_bytes(was)

        return Bad(f"{path.name}: {name}", run, (path.name, path.parent.name))

    def inputs() -> Iterator[Bad]:
        rng = random.Random(2)
        whole = np.load(place / "image.npy")
        for each in (
            *arrays(whole, rng),
            *damaged((place / "image.npy").read_bytes()[:128], rng, 30),
        ):
            yield bad(place / "image.npy", *each, go_on)
        for text in ("", "x", "-1", "0", "13", "12", "9" * 30, "5.0", "\u0665", "5\n", "nan"):
            yield bad(place / "image.done", text, text.encode(), go_on)
        for each in damaged(stored.read_bytes(), rng, 80):
            yield bad(stored, *each, ask)

    try_all("features that are kept", inputs())
