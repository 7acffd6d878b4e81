"""params.yaml as frozen models: every setting has a unit or meaning, a range, and no unknown keys.

`sources.py` holds the parts about data and models, `reward.py` the reward, `training.py` what is
about the policy and its training; `file.py` reads and writes the file itself.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.names import AGRO
from lever_plus.config.reward import RewardParams, needed_scores
from lever_plus.config.sources import (
    Count,
    DataParams,
    EmbedParams,
    Positive,
    ScoringParams,
    Section,
    Share,
    VlmParams,
)
from lever_plus.config.training import (
    AgroParams,
    GrpoParams,
    PolicyParams,
    RceParams,
    RlDataParams,
    RlParams,
    SftDataParams,
    SftParams,
)


class PoolParams(Section):
    """What the policy may choose from."""

    policy: Literal["per_query", "shared"] = Field(description="one pool a query, or one for all")
    sampler: Literal["random", "text", "image", "mixed"] = Field(
        description="how a query's pool is drawn: at random, the nearest by question or image, or "
        "half at random and a quarter by each"
    )
    search: Literal["exact", "approximate"] = Field(
        description="of the nearest: all similarities, or an index (faiss) for more than 100,000"
    )
    size: Annotated[int, Field(ge=2)] = Field(description="examples in a pool (K)")
    scarcity: Share = Field(description="share of pools without an exact twin of their query")

    @model_validator(mode="after")
    def _effective(self) -> "PoolParams":
        if self.policy == "shared" and self.sampler != "random":
            raise ValueError("a shared pool has no query to be near: sampler must be random")
        return self


class ClipPretrainParams(Section):
    """The tiny CLIP."""

    cards: Count = Field(description="training images rendered for both tiny models")
    width: Count = Field(description="width of the text tower")
    vision_width: Count = Field(description="width of the vision tower")
    text_layers: Count
    vision_layers: Annotated[int, Field(ge=2)]
    projection: Count = Field(description="dimensions of an embedding")
    learning_rate: Positive
    batch_size: Count = Field(description="image-caption pairs a step")
    hard_groups: Count = Field(description="groups that differ in the digit alone, every 2nd step")
    steps: Count


class VlmPretrainParams(Section):
    """The tiny VLM."""

    width: Count
    mlp_width: Count
    layers: Count
    heads: Count
    learning_rate: Positive
    warmup: Count = Field(description="warm-up steps")
    plain_steps: Count = Field(description="steps of plain VQA, before the episodes")
    steps: Count = Field(description="steps of few-shot episodes")
    batch_size: Count = Field(description="episodes a step")
    episode_length: Count = Field(description="examples in an episode")
    plain_share: Share = Field(description="probability of a plain word in an episode")
    theme_share: Share = Field(description="probability that an example keeps the episode's theme")


class PretrainParams(Section):
    """The tiny models of the embedded world."""

    clip: ClipPretrainParams
    vlm: VlmPretrainParams
    probes: Count = Field(description="questions per row of the in-context table")


class PointerParams(Section):
    """Pointers."""

    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="ICDs in a pointer (K of shot K)")


class EvaluateParams(Section):
    """Evaluation on the test split."""

    random_seeds: Count = Field(description="draws of the random baseline")
    diverse_relevance: Share = Field(
        description="weight of being near the query, in maximal marginal relevance"
    )
    fixed_pointers: Count = Field(description="pointers that the one for all queries is chosen of")
    best_of: Count = Field(description="pointers sampled from SFT for the best-of-n row")
    order_queries: Count = Field(description="test questions of the order diagnostics")
    oracle_queries: Count = Field(description="test questions of the oracle (the first ones)")
    oracle_beam: Count = Field(description="beam of the oracle's InfoScore search")
    resamples: Annotated[int, Field(ge=100)] = Field(description="bootstrap resamples")


class Params(Section):
    """params.yaml."""

    seed: Annotated[int, Field(ge=0)] = Field(description="seed of data, pools, models and SFT")
    training_seeds: list[int] = Field(min_length=1, description="seeds of RCE and GRPO runs")
    threads: Count = Field(
        description="torch threads of pretraining and embedding; parts of an RL batch side by side"
    )
    data: DataParams
    pool: PoolParams
    pretrain: PretrainParams
    vlm: VlmParams
    scoring: ScoringParams
    embed: EmbedParams
    policy: PolicyParams
    pointer: PointerParams
    reward: RewardParams
    sft_data: SftDataParams
    sft: SftParams
    rl_data: RlDataParams
    rl: RlParams
    rce: RceParams
    agro: AgroParams
    grpo: GrpoParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if len(self.reward.shot_weights) != self.pointer.shots:
            raise ValueError("reward.shot_weights needs one weight for each of pointer.shots")
        if sum(self.reward.shot_weights) <= 0:
            raise ValueError("reward.shot_weights are all zero: nothing would be learned")
        if self.grpo.start not in (*self.rce.tau, AGRO):
            raise ValueError(
                f"grpo.start must be {AGRO} or one of rce.tau: {', '.join(self.rce.tau)}"
            )
        if self.pool.size <= max(self.pointer.shots, self.sft_data.shots):
            raise ValueError("pool.size must be larger than pointer.shots and sft_data.shots")
        return self

    @model_validator(mode="after")
    def _rewarded(self) -> "Params":
        needed = needed_scores(self.reward)
        lacking = sorted(needed - {"log_prob"} - set(self.rl_data.scores))
        if lacking:
            raise ValueError(f"the reward needs {lacking[0]} in rl_data.scores")
        if "log_prob" in needed and (self.grpo.rounds or self.agro.rounds):
            raise ValueError(
                "a reward with log_prob rewards a generator for its own confidence: grpo.rounds "
                "and agro.rounds must be 0"
            )
        nearest = 3 * (self.pool.size // self.pointer.shots)
        if self.rl_data.retrieval > nearest:
            raise ValueError(f"rl_data.retrieval: a pool of this size has {nearest} at most")
        return self

    @model_validator(mode="after")
    def _answerable(self) -> "Params":
        if self.data.source.kind == "embedded":
            return self
        if self.needs_pretraining:
            raise ValueError(
                "the pretrained tiny models know the embedded data set alone: set vlm.path (or a "
                "server) and embed.path"
            )
        if self.pool.scarcity > 0:
            raise ValueError("pool.scarcity is a setting of the embedded data set: set it to 0.0")
        return self

    @property
    def needs_pretraining(self) -> bool:
        """Whether a tiny model is used: of the VLM or of the encoder."""
        own_vlm = self.vlm.kind == "huggingface" and self.vlm.path is None
        return own_vlm or self.embed.path is None
