"""Ray actors give the local results, and the shard of a killed actor is still answered."""

import importlib.util
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import psutil
import pytest

from lever_plus.config.params import Params
from lever_plus.config.scoring import RayParams
from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.errors import UserError
from lever_plus.files.addresses import is_loopback
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.ray import ONE_MACHINE, Actor, RayVlm
from lever_plus.vlm.request import Request
from tiny_world import Folders, World

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray (extra [ray]) is not installed", allow_module_level=True)
pytestmark = pytest.mark.slow
ROUNDING = 0.1
"""Of log-likelihoods in bfloat16, at most."""


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    rng = np.random.default_rng(0)
    train = world.splits["train"]
    return [
        Request(
            tuple(train[i] for i in rng.choice(len(train), shots, replace=False)),
            query.query,
            query.answer,
        )
        for query in world.splits["test"]
        for shots in (0, 1, 2, 3)
    ]


@pytest.fixture(scope="module")
def settings(params: Params) -> HuggingFaceVlmParams:
    changed = params.vlm.model_copy(update={"max_new_tokens": 3, "workers": 1})
    assert isinstance(changed, HuggingFaceVlmParams)
    return changed


@pytest.fixture(scope="module")
def vlm(folders: Folders, settings: HuggingFaceVlmParams) -> Iterator[RayVlm]:
    actors = RayParams(address="local", actors=2, num_cpus=0.5, num_gpus=0.0)
    yield RayVlm(str(folders.vlm), settings, actors)
    import ray  # not before: a cluster of its own is told then where it may listen

    ray.shutdown()


@pytest.fixture(scope="module")
def local(folders: Folders, settings: HuggingFaceVlmParams) -> HuggingFaceVlm:
    return HuggingFaceVlm(str(folders.vlm), settings)


def test_results_are_those_of_this_process(
    vlm: RayVlm, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    assert vlm.identity == local.identity
    assert vlm.answers(requests) == local.answers(requests)
    np.testing.assert_allclose(
        vlm.log_likelihoods(requests), local.log_likelihoods(requests), atol=1e-5
    )
    assert vlm.usage.tokens_whole == local.usage.tokens_whole


@pytest.mark.long
def test_another_instruction_is_asked_on_the_same_actors(
    vlm: RayVlm, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    other, alone = vlm.instructed("Answer in English."), local.instructed("Answer in English.")
    assert other.identity == alone.identity != vlm.identity
    assert other.answers(requests) == alone.answers(requests) != local.answers(requests)
    assert vlm.answers(requests) == local.answers(requests)
    assert other.start() is vlm.start()
    assert other.usage is vlm.usage


@pytest.mark.long
def test_another_model_under_the_same_path_does_not_answer(
    folders: Folders, settings: HuggingFaceVlmParams, requests: list[Request], local: HuggingFaceVlm
) -> None:
    """Its answers would be stored as those of the model that this process knows."""
    actors = RayParams(address="local", actors=1, num_cpus=0.5, num_gpus=0.0)
    vlm = RayVlm(str(folders.vlm), settings, actors)
    vlm.identity = {**local.identity, "revision": "another"}
    kept: list[int] = []
    with pytest.raises(UserError, match=r"is another model than here \(revision .*, not another\)"):
        vlm.answers(requests, lambda numbers, _answers: kept.extend(numbers))
    assert not kept


def test_another_image_under_the_same_path_is_not_shown(
    folders: Folders, settings: HuggingFaceVlmParams, requests: list[Request], local: HuggingFaceVlm
) -> None:
    actor = Actor(str(folders.vlm), settings)
    query = replace(requests[0].query, image_sha256="0" * 64)
    with pytest.raises(UserError, match=f"image {query.image} was changed after"):
        actor.ask("answers", 0, [requests[0]._replace(query=query)], "", local.identity)


def processes(vlm: RayVlm) -> list[int]:
    """Return the process of every actor."""
    asked = [actor.__ray_call__.remote(lambda _actor: os.getpid()) for actor in vlm.start()]
    import ray

    found: list[int] = ray.get(asked)
    return found


def test_a_killed_actor_is_replaced_and_nothing_is_lost(
    vlm: RayVlm, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    """One of two actors is killed by the system, half-way, while shards are under way."""
    before = processes(vlm)
    killed, counts = [], np.zeros(len(requests), dtype=int)

    def done(indices: Sequence[int], _answers: Sequence[str]) -> None:
        counts[list(indices)] += 1
        if not killed:
            os.kill(before[0], signal.SIGKILL)
            killed.append(before[0])

    assert vlm.answers(requests, done) == local.answers(requests)
    assert killed == [before[0]]
    assert counts.tolist() == [1] * len(requests)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        after = processes(vlm)
        if after[0] != before[0]:
            break
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.long
def test_actors_load_a_bfloat16_model(
    folders: Folders, settings: HuggingFaceVlmParams, vlm: RayVlm, requests: list[Request]
) -> None:
    """Its numbers are those of this process up to its rounding, which depends on the batch."""
    assert vlm.start()  # the cluster is up
    half = settings.model_copy(update={"dtype": "bfloat16"})
    actors = RayParams(address="local", actors=2, num_cpus=0.5, num_gpus=0.0)
    here = HuggingFaceVlm(str(folders.vlm), half)
    there = RayVlm(str(folders.vlm), half, actors)
    assert there.identity == here.identity != vlm.identity
    found, whole = there.log_likelihoods(requests), vlm.log_likelihoods(requests)
    np.testing.assert_allclose(found, here.log_likelihoods(requests), atol=ROUNDING)
    np.testing.assert_allclose(found, whole, atol=ROUNDING)
    assert np.abs(np.subtract(found, whole)).max() > ROUNDING / 100


@pytest.mark.long
def test_every_actor_has_a_gpu_of_its_own(
    folders: Folders, settings: HuggingFaceVlmParams, vlm: RayVlm
) -> None:
    """The cluster believes that it has two; the machine may have none, so nothing is asked."""
    import ray

    def seen(actor: Actor) -> tuple[str, str | None]:
        return actor._vlm.params.device, os.environ.get("CUDA_VISIBLE_DEVICES")

    ray.shutdown()
    os.environ[ONE_MACHINE] = "0"
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        on_gpus = settings.model_copy(update={"device": "cuda:1", "dtype": "bfloat16"})
        own = RayParams(address="local", actors=2, num_cpus=0.5, num_gpus=1.0)
        actors = RayVlm(str(folders.vlm), on_gpus, own).start()
        found = ray.get([actor.__ray_call__.remote(seen) for actor in actors])
        assert sorted(found) == [("cuda", "0"), ("cuda", "1")]
        none = own.model_copy(update={"num_gpus": 0.0})
        with pytest.raises(UserError, match="vlm.device is cuda:1, but scoring.ray.num_gpus is 0"):
            RayVlm(str(folders.vlm), on_gpus, none).start()
    finally:
        ray.shutdown()
        vlm._actors.clear()  # they were the other cluster's


def test_more_than_the_cluster_has_is_refused(
    folders: Folders, settings: HuggingFaceVlmParams, vlm: RayVlm
) -> None:
    assert vlm.start()  # the cluster is up
    greedy = RayParams(address="local", actors=2, num_cpus=0.5, num_gpus=8.0)
    with pytest.raises(UserError, match="scoring.ray asks for 16 GPUs, but the cluster has 0"):
        RayVlm(str(folders.vlm), settings, greedy).answers([])


def test_a_cluster_of_its_own_listens_on_loopback_alone(vlm: RayVlm) -> None:
    """Anybody who reaches one of its ports can run code as this user."""
    assert vlm.start()
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    hosts = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in tree
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert hosts
    assert all(is_loopback(host) for host in hosts), hosts


@pytest.mark.parametrize("address", ["auto", "nonsense", "127.0.0.1:9", "http://u:pw@x:1"])
def test_a_cluster_that_is_not_there_is_named(
    address: str, folders: Folders, settings: HuggingFaceVlmParams
) -> None:
    import ray

    ray.shutdown()
    missing = RayParams(address=address, actors=1, num_cpus=1.0, num_gpus=0.0)
    with pytest.raises(UserError, match="scoring.ray.address .*no cluster can be joined") as caught:
        RayVlm(str(folders.vlm), settings, missing).answers([])
    assert "u:pw" not in str(caught.value)
