"""The frozen vision-language model."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field

from lever_plus.config.base import Count, Device, Few, ModelPath, Prose, Section, Text
from lever_plus.files.secrets import has_secrets

LONGEST_URL: Final = 2000


def base_url(url: str) -> str:
    """Return a server's base URL after checking it.

    A URL that holds a secret is refused, because settings are kept in many places: dvc.lock,
    MLflow, git. No error quotes the URL.

    Raises:
        ValueError: It holds a secret, or is not a base URL; the message says why.
    """
    if has_secrets(url):
        raise ValueError(
            "it holds a user, a password or a key, and settings are kept where others read them: "
            "remove it, and put the key into the environment variable OPENAI_API_KEY"
        )
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not an address: write it like http://127.0.0.1:8000/v1")
    if parts.fragment or "#" in url:
        raise ValueError("a base URL has no fragment: remove the part that begins with #")
    if parts.path.rstrip("/").endswith(("/completions", "/models", "/responses")):
        raise ValueError("it is an endpoint: write only the base URL, which usually ends in /v1")
    return url


def _base_urls(given: Any) -> Any:
    """Return one base URL, or a list of different ones, after checking them."""
    urls = given if isinstance(given, list) else [given]
    if not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError(
            "it is neither an address nor a list of addresses: write it like "
            "http://127.0.0.1:8000/v1"
        )
    checked = [base_url(url) for url in urls]
    if len(set(checked)) < len(checked):
        raise ValueError("it names a server twice")
    return checked if isinstance(given, list) else checked[0]


def _split(url: str) -> Any:
    """Return the parts of a URL, or None if it cannot be used."""
    if not url.isprintable() or " " in url or "\\" in url or len(url) > LONGEST_URL:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts if host and parts.port != 0 else None
    except ValueError:  # the port, the brackets or the host name is wrong
        return None


class PromptParams(Section):
    """How prompts look."""

    style: Literal["chat", "flat"] = Field(
        description="chat: the model's chat template; flat: 'Question:<Q> Short answer:<A>'"
    )
    instruction: Prose = Field(description="text after every question; may be empty")


class HuggingFaceVlmParams(Section):
    """A frozen vision-language model on this machine."""

    kind: Literal["huggingface"] = Field(description="weights that this machine runs")
    path: ModelPath = Field(
        description="Hugging Face folder or hub id, or a shipped VLM: shipped:vlm, shipped:vlm-2"
    )
    revision: Text | None = Field(description="commit, if path is a hub id; null for a folder")
    device: Device
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        description="precision of the weights and of the forward pass"
    )
    attn_implementation: Literal[
        "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = Field(description="attention kernel of transformers")
    prompt: PromptParams
    max_new_tokens: Few = Field(
        description="most tokens of an answer; an answer of the embedded data set is one token"
    )
    num_beams: Few = Field(description="beams of decoding; 1 is greedy")
    batch_tokens: Count = Field(description="most prompt tokens in one forward pass")
    segment_megabytes: Count = Field(
        description="megabytes of memory for embeddings of images and questions"
    )
    prefix_reuse: bool = Field(
        description="compute the demonstrations with which several prompts begin only once, where "
        "that is exact"
    )
    workers: Few = Field(description="threads that run forward passes in parallel on a CPU")


class OpenAiVlmParams(Section):
    """A frozen vision-language model behind an OpenAI-compatible server (vLLM, SGLang, ...)."""

    kind: Literal["openai"] = Field(description="an OpenAI-compatible server")
    # A refused URL may hold a password, which the error would otherwise show.
    model_config = ConfigDict(**Section.model_config, hide_input_in_errors=True)

    url: Annotated[str | list[str], BeforeValidator(_base_urls)] = Field(
        description="base URL, such as http://127.0.0.1:8000/v1, or a list of base URLs of servers "
        "that offer the same model"
    )
    model: Text = Field(description="name under which the server offers the model")
    revision: Text = Field(
        description="what identifies the model's weights, such as their commit on the hub"
    )
    dtype: Text = Field(description="precision with which the server was started")
    instruction: Prose = Field(description="text after every question; may be empty")
    max_new_tokens: Few = Field(description="most tokens of an answer")
    concurrency: Annotated[Count, Field(le=1024)] = Field(
        description="requests that each server gets at the same time"
    )
    timeout_s: Annotated[float, Field(ge=0.01, le=86_400)] = Field(
        description="seconds from a request to the end of its answer, at most"
    )
    patience_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        description="how many seconds a request that fails but may succeed later is repeated; "
        "should be longer than a restart of the server"
    )
    canary: Literal["mark", "refuse", "off"] = Field(
        description="what to do if answers depend on the server's state: mark: note it beside the "
        "answers; refuse: stop; off: do not test for it"
    )

    @property
    def urls(self) -> list[str]:
        """The base URL of every server."""
        return [self.url] if isinstance(self.url, str) else self.url


class PluginVlmParams(Section):
    """A frozen vision-language model that is computed by the user's own code."""

    kind: Literal["plugin"] = Field(description="a back end of your own")
    factory: Text = Field(
        description="what makes the back end: package.module:factory, or the name of an entry "
        "point of lever_plus.backends"
    )
    options: dict[str, str | int | float | bool | None] = Field(
        description="keyword arguments of the factory"
    )


VlmParams = Annotated[
    HuggingFaceVlmParams | OpenAiVlmParams | PluginVlmParams, Field(discriminator="kind")
]
"""The frozen vision-language model."""
