"""A question to the VLM, what is known about the VLM that answers it, and what a VLM can do."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from typing_extensions import TypedDict

from lever_plus.data.examples import Example
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.usage import Usage

Given = TypeVar("Given", contravariant=True)
Both = TypeVar("Both")


class Request(NamedTuple):
    """One prompt: demonstrations (example ids, in prompt order) and the query's example id."""

    demonstrations: tuple[int, ...]
    query: int


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
    def examples(self) -> Mapping[int, Example]:
        """All examples that requests may name, by id."""
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
        """Return the mean log-probability of the tokens of each query's own answer."""
        ...


class Vlm(Protocol):
    """A frozen VLM as stages ask it; `stored.StoredVlm` puts a store before a backend."""

    @property
    def identity(self) -> VlmIdentity:
        """What its answers depend on."""
        ...

    @property
    def examples(self) -> Mapping[int, Example]:
        """All examples that requests may name, by id."""
        ...

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        """Return the answer to each request."""
        ...

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        """Return the mean log-probability of the tokens of each query's own answer."""
        ...
