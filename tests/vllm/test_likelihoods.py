"""A real vLLM scores answers without echoing prompts: the same values, half the work at most."""

from dataclasses import replace

import numpy as np
import pytest

from lever_plus.vlm.backends.likelihoods import ECHOES, WAYS
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked
from vllm.house_requests import client

pytestmark = pytest.mark.vllm
MORE_WORDS = " what is the red word" * 8
"""Makes a demonstration longer than a block of the server's cache."""
CHEAPEST = "logprob_token_ids"


def longer(prompts: list[Asked], words: str, answer: str = "") -> list[Request]:
    """Return every query after the first demonstration of every fourth prompt, as a search asks."""

    def shown(each: Asked) -> Request:
        first = each.demonstrations[0]
        asked = each.example.query
        return Request(
            (replace(first, question=first.question + MORE_WORDS + words),),
            replace(asked, question=asked.question + MORE_WORDS + words),
            f"{each.example.answer}{answer}",
        )

    return [shown(each) for each in prompts if len(each.demonstrations) == 1]


def scored(vlm: OpenAiVlm, way: str, requests: list[Request]) -> tuple[list[float], int]:
    """Return the likelihoods in one way, and how many tokens the server ran for them."""
    vlm._start.likelihoods.way = way
    before = vlm.usage.tokens_run
    found = vlm.log_likelihoods(requests)
    return found, vlm.usage.tokens_run - before


def test_the_cheapest_way_runs_less_than_half_of_what_echoes_run(
    vllm_server: str, prompts: list[Asked]
) -> None:
    requests = longer(prompts, " ?")
    vlm = client(vllm_server)
    vlm.log_likelihoods(longer(prompts[:100], " first"))
    assert vlm.usage.likelihoods == CHEAPEST
    cheap, run = scored(vlm, CHEAPEST, requests)
    again, hardly_any = scored(vlm, CHEAPEST, requests)
    echoed, twice = scored(vlm, ECHOES, requests)
    assert cheap == again
    np.testing.assert_allclose(cheap, echoed, atol=1e-6)
    assert run <= twice / 2
    assert hardly_any < run / 2  # the rest came from the cache


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_likelihoods_of_echoes(
    way: str, vllm_server: str, prompts: list[Asked]
) -> None:
    """This includes answers of several tokens."""
    requests = longer(prompts[:100], "", " red") + longer(prompts[:100], "")
    vlm = client(vllm_server)
    echoed, _ = scored(vlm, ECHOES, requests)
    found, _ = scored(vlm, way, requests)
    np.testing.assert_allclose(found, echoed, atol=1e-6)


def test_images_by_their_hash_give_the_same_answers(vllm_server: str, prompts: list[Asked]) -> None:
    requests = [Request(each.demonstrations, each.example.query) for each in prompts[:100]]
    vlm, plain = client(vllm_server), client(vllm_server)
    plain._start._pictures_tried = True  # and so images are sent
    assert vlm.answers(requests) == plain.answers(requests)
    assert vlm._start.known.pictures is not None
    assert plain._start.known.pictures is None


def test_a_server_on_cpus_does_not_depend_on_its_state_and_tells_what_it_is(
    vllm_server: str, prompts: list[Asked]
) -> None:
    requests = [Request(each.demonstrations, each.example.query) for each in prompts[:150]]
    vlm = client(vllm_server, canary="refuse")
    vlm.answers(requests)
    assert vlm._start.dependence["answer"].asked == len(requests) // 30
    assert "fingerprint vllm-" in vlm.identity["revision"]
    assert "max_model_len 512" in vlm.identity["revision"]
