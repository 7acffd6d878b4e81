"""A real vLLM answers and scores as the same VLM does on this machine, whatever its state."""

import random

import numpy as np
import pytest

from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked, Scorer
from lever_plus.vlm.store.cached import StoredVlm
from vllm.house_requests import asked, client

pytestmark = pytest.mark.vllm
SCORED = 30
OWN_SIDE = 32
"""Of images that the VLM sees without resizing, in pixels."""
PROCESSORS = 0.05
"""Nats by which two image processors may change a likelihood; the median is far smaller."""
ROUNDING = 1e-4


def with_answers(prompts: list[Asked]) -> list[Request]:
    return [Request(p.demonstrations, p.example.query, p.example.answer) for p in prompts]


def test_500_answers_and_their_official_accuracy_are_those_of_the_local_model(
    vllm_server: str, local: HuggingFaceVlm, prompts: list[Asked]
) -> None:
    found = Scorer(StoredVlm(client(vllm_server), None)).score(prompts)
    known = Scorer(StoredVlm(local, None)).score(prompts)
    assert len(found) == 500
    assert found == known
    assert 0.2 < np.mean([score.vqa_acc_score for score in found]) < 0.9


def test_likelihoods_differ_by_what_the_image_processors_explain(
    vllm_server: str, local: HuggingFaceVlm, prompts: list[Asked]
) -> None:
    requests = with_answers(prompts[: 5 * SCORED])
    found = np.asarray(client(vllm_server).log_likelihoods(requests))
    difference = np.abs(found - local.log_likelihoods(requests))
    assert difference.max() < PROCESSORS
    assert np.median(difference) < PROCESSORS / 100


def test_likelihoods_are_equal_where_no_image_is_resized(
    vllm_server: str, local: HuggingFaceVlm, tmp_path_factory: pytest.TempPathFactory
) -> None:
    requests = with_answers(asked(tmp_path_factory.mktemp("own"), SCORED, OWN_SIDE))
    found = client(vllm_server).log_likelihoods(requests)
    np.testing.assert_allclose(found, local.log_likelihoods(requests), atol=ROUNDING)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_warm_shuffled_and_side_by_side_change_nothing(
    concurrency: int, vllm_server: str, prompts: list[Asked]
) -> None:
    """To the last bit: what the server computed before, and beside a request, is no part of it."""
    requests = with_answers(prompts[: 5 * SCORED])
    order = random.Random(concurrency).sample(range(len(requests)), len(requests))
    vlm = client(vllm_server, concurrency=concurrency)
    for ask in (client(vllm_server).answers, client(vllm_server).log_likelihoods):
        before = ask(requests)
        changed = getattr(vlm, ask.__name__)([requests[i] for i in order])
        assert changed == [before[i] for i in order]
