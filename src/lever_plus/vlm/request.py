"""A question to the VLM, what is known about the VLM that answers it, and what a VLM can do."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import with_config
from typing_extensions import TypedDict

from lever_plus.data.examples import Example, Query
from lever_plus.files.checking import STRICT
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.usage import Usage

Given = TypeVar("Given", contravariant=True)
Both = TypeVar("Both")
Kind = Literal["answer", "log_likelihood"]
"""What a VLM is asked for."""
HIGHEST: Final = 1e-3
"""A mean log-probability is at most 0, but for rounding."""


class Request(NamedTuple):
    """One prompt: demonstrations in prompt order, and the query.

    answer: For likelihoods, the answer that is scored after the prompt; None asks for one.
    """

    demonstrations: tuple[Example, ...]
    query: Query
    answer: str | None = None

    @property
    def images(self) -> list[str]:
        """Return the paths of its images, in prompt order."""
        return [*(example.image for example in self.demonstrations), self.query.image]


def scored_answer(request: Request) -> str:
    """Return the answer that a request scores.

    Raises:
        ValueError: It has none: likelihoods need one.
    """
    if request.answer is None:
        raise ValueError(f"no answer to score for {request.query.question!r}")
    return request.answer


def prefix_order(requests: Sequence[Request]) -> list[int]:
    """Return the positions of requests, those that begin with the same ICDs beside one another.

    Requests with the same demonstrations keep their order.
    """
    # Not a set: what the order below leaves open must be the same in every process.
    examples = dict.fromkeys(e for request in requests for e in request.demonstrations)
    order = sorted(examples, key=lambda e: (e.question_id, e.image_sha256, e.question, e.answer))
    rank = {example: number for number, example in enumerate(order)}
    keys = [tuple(rank[example] for example in r.demonstrations) for r in requests]
    return sorted(range(len(requests)), key=keys.__getitem__)


@with_config(STRICT)
class VlmIdentity(TypedDict):
    """Everything that an answer depends on besides the request; written into every record.

    model: Class or name of the model; revision: sha256 of its weights and configuration (or the
    server's word); prompt_hash: see `prompt.prompt_hash`; generation: decoding and its limits.
    """

    model: str
    revision: str
    dtype: str
    prompt_hash: str
    generation: str


class Done(Protocol[Given]):
    """Gets answers as soon as they are there, so that they can be stored."""

    def __call__(self, indices: Sequence[int], answers: Sequence[Given], /) -> None:
        """Take the answers to the requests at `indices`."""
        ...


class Ask(Protocol[Both]):
    """A way to ask a VLM: all requests at once, answers reported on the way."""

    def __call__(self, requests: Sequence[Request], done: Done[Both], /) -> list[Both]:
        """Return the answer to each request."""
        ...


def ignore(_indices: Sequence[int], _answers: Sequence[object], /) -> None:
    """Take answers and do nothing with them."""


class Backend(Protocol):
    """A frozen VLM that computes: a model on this machine, on several, or a server."""

    @property
    def identity(self) -> VlmIdentity:
        """What its answers depend on."""
        ...

    @property
    def prompt(self) -> PromptFormat:
        """How its prompts look, and so where an answer ends."""
        ...

    @property
    def usage(self) -> Usage:
        """What asking it cost so far."""
        ...

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, as it is."""
        ...

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        ...


@runtime_checkable
class Instructable(Protocol):
    """A back end that can be asked with another instruction."""

    def instructed(self, instruction: str) -> Backend:
        """Return it with another instruction; weights and usage are shared."""
        ...


@runtime_checkable
class Told(Protocol):
    """A back end that is somebody else's program, whose identity is partly what it tells."""

    def identify(self, known: Sequence[VlmIdentity]) -> VlmIdentity:
        """Return its identity, after asking; `known`: under which answers are stored, in order."""
        ...

    def recorded(self, kind: Kind) -> VlmIdentity:
        """Return what is written beside results of a kind: the identity, and how they were made."""
        ...


class Vlm(Protocol):
    """A frozen VLM as everything above asks it; `StoredVlm` puts a store before a backend."""

    @property
    def identity(self) -> VlmIdentity:
        """What its answers depend on."""
        ...

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        """Return the answer to each request."""
        ...

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        ...

    def prompt_tokens(self, requests: Sequence[Request]) -> list[int] | None:
        """Return how many tokens each prompt has; None where that is not known."""
        ...
