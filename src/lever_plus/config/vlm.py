"""The frozen vision-language model."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field

from lever_plus.config.base import Count, Device, Few, ModelPath, Prose, Section, Text
from lever_plus.files.secrets import has_secrets

LONGEST_URL: Final = 2000


def base_url(url: str) -> str:
    """Return a server's base URL; what is none, or holds a secret, is refused without quoting it.

    Settings are kept in many places: dvc.lock, MLflow, git.

    Raises:
        ValueError: It is none, with the reason.
    """
    if has_secrets(url):
        raise ValueError(
            "it holds a user, a password or a key, and settings are kept where others read them: "
            "leave it out, and put the key into the environment variable OPENAI_API_KEY"
        )
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no address: write it as http://127.0.0.1:8000/v1")
    if parts.fragment or "#" in url:
        raise ValueError("a base URL has no fragment: leave out what begins with #")
    if parts.path.rstrip("/").endswith(("/completions", "/models", "/responses")):
        raise ValueError("it is an endpoint: write the base URL alone, which ends in /v1 as a rule")
    return url


def _base_urls(given: Any) -> Any:
    """Return one base URL, or the different ones of several servers."""
    urls = given if isinstance(given, list) else [given]
    if not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError("it is no address, and no list of addresses: http://127.0.0.1:8000/v1")
    checked = [base_url(url) for url in urls]
    if len(set(checked)) < len(checked):
        raise ValueError("it names a server twice")
    return checked if isinstance(given, list) else checked[0]


def _split(url: str) -> Any:
    """Return the parts of a URL that can be used, else None."""
    if not url.isprintable() or " " in url or "\\" in url or len(url) > LONGEST_URL:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts if host and parts.port != 0 else None
    except ValueError:  # of the port, the brackets, or the host's name
        return None


class PromptParams(Section):
    """How prompts look."""

    style: Literal["chat", "flat"] = Field(
        description="the model's chat template, or 'Question:<Q> Short answer:<A>'"
    )
    instruction: Prose = Field(description="text after every question; may be empty")


class HuggingFaceVlmParams(Section):
    """A frozen vision-language model on this machine."""

    kind: Literal["huggingface"] = Field(description="weights that this machine runs")
    path: ModelPath = Field(description="Hugging Face folder or hub id, or a shipped one")
    revision: Text | None = Field(description="commit of a hub id; null for a folder")
    device: Device
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        description="precision of the weights and of the forward pass"
    )
    attn_implementation: Literal[
        "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = Field(description="attention kernel of transformers")
    prompt: PromptParams
    max_new_tokens: Few = Field(description="tokens of an answer; house-word answers are one")
    num_beams: Few = Field(description="1 is greedy decoding")
    batch_tokens: Count = Field(description="prompt tokens in one forward pass")
    segment_megabytes: Count = Field(description="memory for image and question embeddings")
    prefix_reuse: bool = Field(description="compute shared demonstrations once, where exact")
    workers: Few = Field(description="threads that run forward passes side by side on a CPU")


class OpenAiVlmParams(Section):
    """A frozen vision-language model behind an OpenAI-compatible server (vLLM, SGLang, ...)."""

    kind: Literal["openai"] = Field(description="an OpenAI-compatible server")
    # A URL that is refused may hold a password, and the error would show it.
    model_config = ConfigDict(**Section.model_config, hide_input_in_errors=True)

    url: Annotated[str | list[str], BeforeValidator(_base_urls)] = Field(
        description="base URL, such as http://127.0.0.1:8000/v1; or a list, of several servers "
        "that offer the same model"
    )
    model: Text = Field(description="name under which the server offers the model")
    revision: Text = Field(description="what identifies its weights, such as the hub's commit")
    dtype: Text = Field(description="precision that the server was started with")
    instruction: Prose = Field(description="text after every question; may be empty")
    max_new_tokens: Few = Field(description="tokens of an answer")
    concurrency: Annotated[Count, Field(le=1024)] = Field(
        description="requests under way at once, for each server"
    )
    timeout_s: Annotated[float, Field(ge=0.01, le=86_400)] = Field(
        description="longest time from a request to the end of its answer, seconds"
    )
    patience_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        description="how long a request is made again that fails but may succeed later, seconds: "
        "longer than a restart of the server takes"
    )
    canary: Literal["mark", "refuse", "off"] = Field(
        description="what is done where answers depend on the server's state; off: not tried"
    )

    @property
    def urls(self) -> list[str]:
        """The base URL of every server."""
        return [self.url] if isinstance(self.url, str) else self.url


class PluginVlmParams(Section):
    """A frozen vision-language model that code of your own computes."""

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
