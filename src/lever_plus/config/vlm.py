"""The frozen vision-language model."""

from typing import Annotated, Literal

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section


class PromptParams(Section):
    """How prompts look."""

    style: Literal["chat", "flat"] = Field(
        description="the model's chat template, or 'Question:<Q> Short answer:<A>'"
    )
    instruction: str = Field(description="text after every question; may be empty")


class HuggingFaceVlmParams(Section):
    """A frozen vision-language model on this machine."""

    kind: Literal["huggingface"]
    path: str | None = Field(description="Hugging Face folder or hub id; null: the pretrained one")
    revision: str | None = Field(description="commit of a hub id; null for a folder")
    device: str = Field(description="cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "float16", "bfloat16"]
    attn_implementation: str = Field(description="sdpa, eager, flash_attention_2, ...")
    prompt: PromptParams
    max_new_tokens: Count = Field(description="tokens of an answer; house-word answers are one")
    num_beams: Count = Field(description="1 is greedy decoding")
    batch_tokens: Count = Field(description="prompt tokens in one forward pass")
    segment_megabytes: Count = Field(description="memory for image and question embeddings")
    prefix_reuse: bool = Field(description="compute shared demonstrations once, where exact")
    workers: Count = Field(description="threads that run forward passes side by side on a CPU")


class OpenAiVlmParams(Section):
    """A frozen vision-language model behind an OpenAI-compatible server (vLLM, SGLang, ...)."""

    kind: Literal["openai"]
    url: str = Field(description="base URL, such as http://127.0.0.1:8000/v1")
    model: str = Field(description="name under which the server offers the model")
    revision: str = Field(description="what identifies its weights, such as the hub's commit")
    dtype: str = Field(description="precision that the server was started with")
    instruction: str = Field(description="text after every question; may be empty")
    max_new_tokens: Count = Field(description="tokens of an answer")
    concurrency: Count = Field(description="requests under way at once")
    timeout_s: Positive = Field(description="longest wait for one answer, seconds")
    retries: Annotated[int, Field(ge=0)] = Field(description="tries after the first, with backoff")


class PluginVlmParams(Section):
    """A frozen vision-language model that code of your own computes."""

    kind: Literal["plugin"]
    factory: str = Field(
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


def needs_pretraining(vlm: VlmParams, encoder: str | None) -> bool:
    """Return whether a tiny model is used: of the VLM, or of the encoder at path `encoder`."""
    return encoder is None or (isinstance(vlm, HuggingFaceVlmParams) and vlm.path is None)
