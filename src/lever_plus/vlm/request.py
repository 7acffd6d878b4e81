"""A question to the VLM, what is known about the VLM that answers it, and what a VLM can do."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from typing_extensions import TypedDict

from lever_plus.data.examples import Example


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


class Vlm(Protocol):
    """A frozen VLM: a model on this machine, or a server."""

    @property
    def identity(self) -> VlmIdentity:
        """What its answers depend on."""
        ...

    @property
    def examples(self) -> Mapping[int, Example]:
        """All examples that requests may name, by id."""
        ...

    def answers(self, requests: Sequence[Request], description: str = "answers") -> list[str]:
        """Return the answer to each request."""
        ...

    def log_likelihoods(
        self, requests: Sequence[Request], description: str = "likelihoods"
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each query's own answer."""
        ...
