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
PROCESSORS = 0.05
"""Nats by which two image processors may change a likelihood; the median is far smaller."""
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """The same, whose images the VLM's image processor makes smaller."""
    return asked(tmp_path_factory.mktemp("cards"), queries=100)


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


def test_answers_about_resized_images_differ_only_between_as_likely_ones(
    vllm_server: str, local: HuggingFaceVlm, resized: list[Asked]
) -> None:
    requests = [Request(p.demonstrations, p.example.query) for p in resized]
    found = StoredVlm(client(vllm_server), None).answers(requests)
    known = StoredVlm(local, None).answers(requests)
    other = [i for i in range(len(requests)) if found[i] != known[i]]
    assert len(other) <= 0.01 * len(requests)
    theirs = local.log_likelihoods([requests[i]._replace(answer=found[i]) for i in other])
    ours = local.log_likelihoods([requests[i]._replace(answer=known[i]) for i in other])
    assert np.all(np.subtract(ours, theirs) < 2 * PROCESSORS)


def test_likelihoods_after_resized_images_differ_by_what_the_processors_explain(
    vllm_server: str, local: HuggingFaceVlm, resized: list[Asked]
) -> None:
    requests = with_answers(resized[: 5 * SCORED])
    found = client(vllm_server).log_likelihoods(requests)
    difference = np.abs(np.subtract(found, local.log_likelihoods(requests)))
    assert difference.max() < PROCESSORS
    assert np.median(difference) < PROCESSORS / 100


def test_likelihoods_are_equal_where_no_image_is_resized(
    vllm_server: str, local: HuggingFaceVlm, prompts: list[Asked]
) -> None:
    requests = with_answers(prompts[: 5 * SCORED])
    found = client(vllm_server).log_likelihoods(requests)
    np.testing.assert_allclose(found, local.log_likelihoods(requests), atol=ROUNDING)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_warm_shuffled_and_side_by_side_change_nothing(
    concurrency: int, vllm_server: str, prompts: list[Asked]
) -> None:
    """To the last bit: what the server computes before or beside a request has no effect."""
    requests = with_answers(prompts[: 5 * SCORED])
    order = random.Random(concurrency).sample(range(len(requests)), len(requests))
    vlm = client(vllm_server, concurrency=concurrency)
    for ask in (client(vllm_server).answers, client(vllm_server).log_likelihoods):
        before = ask(requests)
        changed = getattr(vlm, ask.__name__)([requests[i] for i in order])
        assert changed == [before[i] for i in order]
