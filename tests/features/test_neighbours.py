"""Nearest neighbours: all similarities, or an index."""

import sys

import numpy as np
import pytest

from lever_plus.errors import UserError
from lever_plus.features import neighbours
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.neighbours import nearest_ids
from lever_plus.features.whitening import Array

TRAIN, TEST, COUNT = range(20_000), range(20_000, 20_100), 64


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """Examples around 500 topics, as questions are."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(500, 32))
    rows = topics[rng.integers(500, size=20_100)] + 0.4 * rng.normal(size=(20_100, 32))
    ids = {i: i for i in range(20_100)}
    return Embeddings(
        ids, {"question": unit(rows)}, np.empty((20_100, 0)), query_size=0, space_sha256="test"
    )


@pytest.fixture
def _faiss() -> None:
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")


@pytest.mark.usefixtures("_faiss")
def test_an_index_finds_most_of_the_nearest_and_the_same_again(embeddings: Embeddings) -> None:
    exact = nearest_ids(embeddings, "question", TEST, TRAIN, COUNT)
    found = nearest_ids(embeddings, "question", TEST, TRAIN, COUNT, "approximate")
    shared = [len(set(exact[q]) & set(found[q])) / COUNT for q in TEST]
    assert np.mean(shared) > 0.9
    assert found == nearest_ids(embeddings, "question", TEST, TRAIN, COUNT, "approximate")
    assert all(len(set(row)) == COUNT for row in found.values())
    vectors = embeddings.unit["question"]
    for query, row in found.items():
        cosines = vectors[row] @ vectors[query]
        assert (np.diff(cosines) < 1e-6).all()


@pytest.mark.usefixtures("_faiss")
def test_more_neighbours_than_candidates_are_an_error(embeddings: Embeddings) -> None:
    with pytest.raises(ValueError, match="more than the 40 candidates"):
        nearest_ids(embeddings, "question", TEST, range(40), 41, "approximate")


@pytest.mark.usefixtures("_faiss")
def test_where_the_nearest_cells_hold_too_few_all_are_searched(embeddings: Embeddings) -> None:
    few = range(400)
    exact = nearest_ids(embeddings, "question", TEST, few, 390)
    found = nearest_ids(embeddings, "question", TEST, few, 390, "approximate")
    for query in TEST:
        assert set(exact[query]) == set(found[query])


def test_blocks_find_what_all_cosines_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for equal neighbours: every vector is there twice, and many are alike."""
    rows = unit(np.random.default_rng(1).integers(0, 3, size=(400, 6)).astype(np.float32) + 0.1)
    ids = {i: i for i in range(800)}
    embeddings = Embeddings(
        ids, {"question": np.concatenate([rows, rows])}, np.empty((800, 0)), 0, space_sha256="test"
    )
    at_once = nearest_ids(embeddings, "question", range(300), range(800), 50)
    monkeypatch.setattr(neighbours, "LARGEST_BLOCK", 800 * 37)
    assert nearest_ids(embeddings, "question", range(300), range(800), 50) == at_once


def test_without_faiss_the_message_says_what_to_do(
    embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"lever-plus\[ann\]"):
        nearest_ids(embeddings, "question", TEST, TRAIN, COUNT, "approximate")
