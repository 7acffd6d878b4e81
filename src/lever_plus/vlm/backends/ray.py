"""The same VLM on several devices or machines, as Ray actors that work on shards of requests.

Each actor holds the model; a shard is a part of the requests in prefix order. Ray restarts an actor
that is lost and repeats its shard. Models and images must have the same paths on all machines.
"""

import os
import socket
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from lever_plus.config.scoring import RayParams
from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback
from lever_plus.files.names import SHIPPED
from lever_plus.files.secrets import without_secrets
from lever_plus.hub.threads import use_threads
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, prefix_order
from lever_plus.vlm.usage import Usage

Result = TypeVar("Result")
SHARD: Final = 1000
"""Largest number of requests in a shard."""
RESTARTS: Final = 5
"""How often Ray restarts an actor, and repeats a shard."""
PROBE_SECONDS: Final = 5.0
"""Longest time until a cluster's address accepts a connection."""
ONE_MACHINE: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If this environment variable is 0, all parts of a local cluster listen on loopback only, on every
system. (Ray replaces `_node_ip_address="127.0.0.1"` by the machine's address on the network.)"""


class Actor:
    """One copy of the VLM, in its own process."""

    def __init__(self, path: str, params: HuggingFaceVlmParams) -> None:
        """Name the model; the first shard loads it."""
        use_threads(1)
        self._vlm, self._path = HuggingFaceVlm(path, params), path

    def ask(
        self,
        kind: str,
        number: int,
        requests: Sequence[Request],
        instruction: str,
        identity: VlmIdentity,
    ) -> tuple[int, list[Any], int, int]:
        """Return the shard's number, its answers, and the tokens of its prompts, whole and run.

        Args:
            kind: The method of the VLM to call.
            number: The number of the shard.
            requests: The requests of the shard.
            instruction: The instruction of the prompts.
            identity: The identity under which the answers are stored.

        Raises:
            UserError: This machine has another model than the one that asks, or cannot answer.
        """
        if instruction != self._vlm.prompt.instruction:
            self._vlm = self._vlm.instructed(instruction)
        self._check(identity)
        usage = self._vlm.usage
        whole, run = usage.tokens_whole, usage.tokens_run
        answers = getattr(self._vlm, kind)(requests)
        return number, answers, usage.tokens_whole - whole, usage.tokens_run - run

    def _check(self, identity: VlmIdentity) -> None:
        """Refuse to answer if this machine has another model at the path than the asking one."""
        here, host = self._vlm.identity, socket.gethostname()
        for name, wanted in identity.items():
            if here.get(name) != wanted:
                raise UserError(
                    f"{self._path} on {host} is another model than here ({name} {here.get(name)}, "
                    f"not {wanted}): put the same folder and the same packages on every machine"
                )


class RayVlm:
    """A frozen VLM on Ray actors."""

    def __init__(self, path: str, params: HuggingFaceVlmParams, ray: RayParams) -> None:
        """Name the model and the cluster; actors start when something has to be asked.

        Raises:
            UserError: There is no such model, or Ray is not installed.
        """
        self._named = named = HuggingFaceVlm(path, params)
        self.identity: VlmIdentity = named.identity
        self.prompt, self.processor = named.prompt, named.processor
        self.usage = Usage()
        self._actors: list[Any] = []
        self._path, self._params, self._ray = path, params, ray

    def instructed(self, instruction: str) -> "RayVlm":
        """Return this VLM with another instruction; both share actors and usage.

        Raises:
            UserError: The instruction cannot be in a prompt.
        """
        other = copy(self)
        other._named = self._named.instructed(instruction)
        other.identity, other.prompt = other._named.identity, other._named.prompt
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request."""
        return self._all("answers", requests, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        return self._all("log_likelihoods", requests, done)

    def start(self) -> list[Any]:
        """Start the actors, on a local cluster if no address is given; later calls return them."""
        if not self._actors:
            self._actors += self._started()  # the list is shared by the VLMs of all instructions
        return self._actors

    def _started(self) -> list[Any]:
        settings, device = self._ray, self._device()
        ray = _joined(settings.address)
        needed = settings.actors * settings.num_cpus
        there = ray.cluster_resources()
        for name, need in (("CPU", needed), ("GPU", settings.actors * settings.num_gpus)):
            if need > there.get(name, 0):
                raise UserError(
                    f"scoring.ray asks for {need:g} {name}s, but the cluster has "
                    f"{there.get(name, 0):g}: lower actors, num_cpus or num_gpus."
                )
        here = not self._path.startswith(SHIPPED) and Path(self._path).exists()
        path = str(Path(self._path).resolve()) if here else self._path
        workers = max(1, int(settings.num_cpus))
        params = self._params.model_copy(update={"workers": workers, "device": device})
        remote = ray.remote(Actor).options(
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
        return [remote.remote(path, params) for _ in range(settings.actors)]

    def _device(self) -> str:
        """Return the device of an actor, which sees only its own GPUs, counted from 0."""
        device = self._params.device
        if not device.startswith("cuda"):
            return device
        if not self._ray.num_gpus:
            raise UserError(
                f"vlm.device is {device}, but scoring.ray.num_gpus is 0, and Ray hides all GPUs "
                "from an actor that asks for none: set it to 1.0, or vlm.device to cpu."
            )
        return "cuda"

    def _all(self, kind: str, requests: Sequence[Request], done: Done[Result]) -> list[Result]:
        _import_ray()
        from ray.exceptions import RayError
        from ray.util import ActorPool

        order, named = prefix_order(requests), (self.prompt.instruction, self.identity)
        size = max(1, min(SHARD, -(-len(order) // (2 * self._ray.actors))))
        shards = [order[i : i + size] for i in range(0, len(order), size)]
        work = [
            (kind, n, _with_whole_paths([requests[i] for i in shard]), *named)
            for n, shard in enumerate(shards)
        ]
        results: dict[int, Result] = {}
        pool = ActorPool(self.start())
        try:
            answered = pool.map_unordered(lambda actor, shard: actor.ask.remote(*shard), work)
            for number, answers, whole, run in answered:
                results.update(zip(shards[number], answers, strict=True))
                self.usage.tokens_whole += whole
                self.usage.tokens_run += run
                done(shards[number], answers)
        except RayError as error:
            raise UserError(
                f"Ray could not score a shard ({_last_line(error)}): see its "
                "logs. The answers so far are stored; run again to continue."
            ) from error
        return [results[i] for i in range(len(requests))]


def _last_line(error: Exception) -> str:
    """Return the last line of Ray's message; before it are the stacks of its processes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return quoted(lines[-1])


def _with_whole_paths(requests: Sequence[Request]) -> list[Request]:
    """Return requests with absolute image paths; equal examples become the same object."""
    examples = {example for request in requests for example in request.demonstrations}
    moved = {e: replace(e, image=str(Path(e.image).resolve())) for e in examples}
    return [
        request._replace(
            demonstrations=tuple(moved[example] for example in request.demonstrations),
            query=replace(request.query, image=str(Path(request.query.image).resolve())),
        )
        for request in requests
    ]


def _joined(address: str | None) -> Any:
    """Return Ray after joining a cluster, or starting one that other machines cannot reach.

    Raises:
        UserError: The cluster can't be joined, or a local one would listen on the network.
    """
    local = address in (None, "local")
    if local:
        os.environ[ONE_MACHINE] = "0"
    ray = _import_ray()
    if local:
        _stay_here()
    # If this process has joined a cluster already, its address is not tried again.
    fresh = not ray.is_initialized()
    try:
        if address and fresh:
            _probe(address)
        ray.init(
            address=address or "local",
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    # Ray has no error class of its own for a bad address.
    except Exception as error:
        why = quoted(str(error) or type(error).__name__)
        raise UserError(
            f"scoring.ray.address {without_secrets(address or 'null')}: no cluster can be "
            f"{'started' if local else 'joined'} there ({why}): correct it, or start the cluster."
        ) from error
    if local and fresh and not is_loopback(ray.util.get_node_ip_address()):
        ray.shutdown()
        raise UserError(
            "this version of Ray lets a local cluster listen on the network, where anybody who "
            "reaches it can run code: use another version, or scoring.executor: local."
        )
    return ray


def _stay_here() -> None:
    """Set the variable's effect in Ray itself, which may have been imported before it was set."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def _probe(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at an address; Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs("ray", "scoring.executor: ray", "set it to local"):
        import ray
    return ray
