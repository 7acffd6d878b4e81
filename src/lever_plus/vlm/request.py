"""Requests to a VLM, the identity of a VLM, and the protocols of back ends."""

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
"""What a request asks for: a generated answer, or the log-likelihood of a given answer."""
HIGHEST: Final = 1e-3
"""The largest mean log-probability that is accepted: 0, and a little for rounding."""


class Request(NamedTuple):
    """One prompt: demonstrations in prompt order, and the query.

    answer: The answer whose likelihood is computed; None if the VLM is to generate an answer.
    """

    demonstrations: tuple[Example, ...]
    query: Query
    answer: str | None = None

    @property
    def images(self) -> list[str]:
        """Return the paths of the request's images, in prompt order."""
        return [*(example.image for example in self.demonstrations), self.query.image]


def scored_answer(request: Request) -> str:
    """Return the answer that a request scores.

    Raises:
        ValueError: The request has no answer.
    """
    if request.answer is None:
        raise ValueError(f"no answer to score for {request.query.question!r}")
    return request.answer


def prefix_order(requests: Sequence[Request]) -> list[int]:
    """Return the positions of the requests in an order that puts equal beginnings side by side.

    Requests that begin with the same demonstrations are neighbours; those with exactly the same
    ones keep their order.
    """
    # Not a set: where the sort below leaves ties, the order must be the same in every process.
    examples = dict.fromkeys(e for request in requests for e in request.demonstrations)
    order = sorted(examples, key=lambda e: (e.question_id, e.image_sha256, e.question, e.answer))
    rank = {example: number for number, example in enumerate(order)}
    keys = [tuple(rank[example] for example in r.demonstrations) for r in requests]
    return sorted(range(len(requests)), key=keys.__getitem__)


@with_config(STRICT)
class VlmIdentity(TypedDict):
    """Everything that an answer depends on besides the request; written into every record.

    model: Class or name of the model; revision: sha256 of its weights and configuration, or what
    the settings or the server say; prompt_hash: see `prompt.prompt_hash`; generation: how answers
    are decoded, and how long they may be.
    """

    model: str
    revision: str
    dtype: str
    prompt_hash: str
    generation: str


class Done(Protocol[Given]):
    """A function that gets answers as soon as they are computed, so that they can be stored."""

    def __call__(self, indices: Sequence[int], answers: Sequence[Given], /) -> None:
        """Take the answers to the requests at `indices`."""
        ...


class Ask(Protocol[Both]):
    """A function that asks a VLM all requests at once, and reports answers on the way."""

    def __call__(self, requests: Sequence[Request], done: Done[Both], /) -> list[Both]:
        """Return the answer to each request."""
        ...


def ignore(_indices: Sequence[int], _answers: Sequence[object], /) -> None:
    """Take answers and do nothing with them."""


class Backend(Protocol):
    """A frozen VLM that computes answers: a model on one machine or several, or a server."""

    @property
    def identity(self) -> VlmIdentity:
        """Everything that its answers depend on."""
        ...

    @property
    def prompt(self) -> PromptFormat:
        """The format of its prompts, which also says where an answer ends."""
        ...

    @property
    def usage(self) -> Usage:
        """Counts of its requests so far."""
        ...

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, unchanged."""
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
        """Return the same back end with another instruction; weights and usage are shared."""
        ...


@runtime_checkable
class Told(Protocol):
    """A back end whose identity depends on what another program, such as a server, says."""

    def identify(self, known: Sequence[VlmIdentity]) -> VlmIdentity:
        """Ask, and return the identity; `known` are those of stored answers, newest last."""
        ...

    def recorded(self, kind: Kind) -> VlmIdentity:
        """Return the identity under which results of a kind are stored, and how they were made."""
        ...


class Vlm(Protocol):
    """A frozen VLM as the other subpackages use it; `StoredVlm` is a back end with a store."""

    @property
    def identity(self) -> VlmIdentity:
        """Everything that its answers depend on."""
        ...

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        """Return the answer to each request."""
        ...

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""
        ...

    def prompt_tokens(self, requests: Sequence[Request]) -> list[int] | None:
        """Return how many tokens each prompt has; None if that is not known."""
        ...
