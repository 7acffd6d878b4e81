"""The parts of params.yaml that say where data and models come from, and what all parts share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EmbeddedSource(Section):
    """The embedded data set, house words: made from the seed."""

    kind: Literal["embedded"]
    train: Count = Field(description="training items; every one is a possible ICD")
    dev: Count = Field(description="items that choices (epochs, settings) are made on")
    test: Count = Field(description="items that are only reported")
    plain_share: Share = Field(description="probability of a plain word, per word slot")
    image_size: Count = Field(description="side of the rendered cards, pixels")


class VqaSplit(Section):
    """Files of one split in VQAv2 format; paths are relative to `root`."""

    questions: str = Field(description="questions JSON")
    annotations: str = Field(description="annotations JSON")
    images: str = Field(description="folder of the images")
    image_name: str = Field(description="file name; {image_id:012d} is the id in twelve digits")
    sample: Count | None = Field(description="questions drawn at random; null: all")

    @model_validator(mode="after")
    def _names_an_image(self) -> "VqaSplit":
        if "{image_id" not in self.image_name:
            raise ValueError("image_name must hold {image_id}, such as {image_id:012d}.jpg")
        return self


class HeldOut(Section):
    """A split taken from the training files, by image: no image is on both sides."""

    held_out: Count = Field(description="questions taken from the training split")


class VqaFilesSource(Section):
    """Files in VQAv2 format: VQAv2, OK-VQA, or your own."""

    kind: Literal["vqa_files"]
    root: str = Field(description="folder that the paths of the splits start from")
    answers_per_question: Count = Field(description="human answers of every question")
    allow_fallback: bool = Field(
        description="score questions with another number of answers by exact match, and mark them"
    )
    train: VqaSplit = Field(description="every question is a possible ICD")
    dev: VqaSplit | HeldOut = Field(description="choices (epochs, settings) are made on it")
    test: VqaSplit = Field(description="only reported")


class DataParams(Section):
    """Where examples come from, and the division of the training split."""

    source: Annotated[EmbeddedSource | VqaFilesSource, Field(discriminator="kind")]
    rl_queries: Count = Field(description="training items that are RL queries (the first ones)")
    sft_queries: Count = Field(description="RL queries that are SFT queries too (the first ones)")
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] | None = Field(
        description="images whose perceptual hashes differ in at most so many of 64 bits are "
        "reported; null: not searched"
    )

    @model_validator(mode="after")
    def _nested(self) -> "DataParams":
        if self.sft_queries > self.rl_queries:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        if self.source.kind == "embedded" and self.rl_queries > self.source.train:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        return self


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


VlmParams = Annotated[HuggingFaceVlmParams | OpenAiVlmParams, Field(discriminator="kind")]
"""The frozen vision-language model."""


class EmbedParams(Section):
    """CLIP features."""

    path: str | None = Field(description="Hugging Face folder or hub id of a CLIP or SigLIP")
    revision: str | None = Field(description="commit of a hub id; null for a folder")
    device: str = Field(description="cpu, cuda, cuda:1, ...")
    batch_size: Count = Field(description="images or texts in one forward pass")
    variance: Share = Field(
        description="share of variance that the policy's whitened features keep"
    )


class RayParams(Section):
    """Ray actors that score shards of queries (`scoring.executor: ray`)."""

    address: str | None = Field(description="cluster, such as ray://head:10001; null: a local one")
    actors: Count = Field(description="copies of the VLM")
    num_cpus: Positive = Field(description="CPU cores of an actor")
    num_gpus: Annotated[float, Field(ge=0)] = Field(description="GPUs of an actor")


class ScoringParams(Section):
    """Where answers are computed and kept; this changes no result, so no stage depends on it."""

    store: str = Field(description="file of the answer store")
    features_megabytes: Annotated[int, Field(ge=0)] = Field(
        description="image features that the store keeps for later stages; 0 for none"
    )
    executor: Literal["local", "ray"] = Field(description="this process, or Ray actors")
    ray: RayParams
