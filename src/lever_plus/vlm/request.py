"""A question to the VLM, and what is known about the VLM that answers it."""

from typing import NamedTuple

from typing_extensions import TypedDict


class Request(NamedTuple):
    """One prompt: demonstrations (example ids, in prompt order) and the query's example id."""

    demonstrations: tuple[int, ...]
    query: int


class VlmIdentity(TypedDict):
    """Everything that an answer depends on besides the request; written into every record.

    model: Class of the model; revision: sha256 of its weights and configuration; prompt_hash: see
    `prompt.prompt_hash`; generation: decoding and its limits.
    """

    model: str
    revision: str
    dtype: str
    prompt_hash: str
    generation: str
