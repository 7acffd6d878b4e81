"""The parts of params.yaml about the policy and its training: network, RL data, the four losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.sources import Count, NonNegative, Positive, Section

Whole = Annotated[int, Field(ge=0)]


class StatefulPolicyParams(Section):
    """A network whose step sees what was picked before."""

    kind: Literal["stateful"]
    hidden: Count = Field(description="width of the policy")
    logit_clip: Positive = Field(description="logits are clip * tanh(score / clip)")


class V2PolicyParams(Section):
    """Cross-attention of the query over the pool, then one static score a candidate."""

    kind: Literal["v2"]
    hidden: Count = Field(description="width of the policy")
    layers: Count = Field(description="cross-attention layers")
    temperature: Positive = Field(description="logits are cosines over this")


PolicyParams = Annotated[StatefulPolicyParams | V2PolicyParams, Field(discriminator="kind")]


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Count = Field(description="sequences kept a step; all of them become targets")
    shots: Count = Field(description="ICDs in a sequence")


class OptimParams(Section):
    """What all training stages share."""

    epochs: Count
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine"] = Field(
        description="of the learning rate, after the warm-up; linear and cosine end at 0"
    )
    warmup: Whole = Field(description="optimiser steps in which the learning rate rises from 0")
    batch_size: Count = Field(description="queries a step")
    weight_decay: NonNegative
    grad_clip: Positive = Field(description="largest norm of a gradient")
    patience: Count | None = Field(
        description="dev evaluations without a better one that end the training; null: none do"
    )


class SftParams(OptimParams):
    """Imitation of the InfoScore sequences."""

    temperature: Positive = Field(description="targets weigh softmax(InfoScore / temperature)")
    dropout: Annotated[float, Field(ge=0, lt=1)]
    dev_every: Count = Field(description="epochs between two dev evaluations")


class RlDataParams(Section):
    """Candidates of the RL data; {} and 0 leave a generator out."""

    beam: Whole = Field(description="candidates from beam search")
    samples: dict[str, Count] = Field(description="{temperature: sampled candidates}")
    stochastic_beam: dict[str, Count] = Field(
        description="{temperature: candidates sampled without replacement}"
    )
    random: Whole = Field(description="uniform candidates")
    retrieval: Whole = Field(description="nearest by question, by image, by both, then the next")
    scores: list[Literal["gt_prob", "relevance"]] = Field(
        description="scores beside hard and soft, for rewards that need them"
    )


GenMethod = Literal["beam", "sample", "stochastic_beam", "random", "retrieval", "augmented"]


class RlParams(Section):
    """What RCE, AGRO and GRPO take from the RL data."""

    filter_gen_methods: list[GenMethod] | None = Field(
        min_length=1, description="generators whose candidates are trained on; null: all"
    )

    min_informative: Annotated[float, Field(ge=0, le=1)] = Field(
        description="smallest share of groups with candidates that score differently; below it the "
        "pipeline stops before training"
    )


class TauSchedule(Section):
    """Temperature of the reward softmax, linear over the optimiser steps."""

    start: Positive
    end: Positive


class RceParams(OptimParams):
    """Reward-weighted cross-entropy."""

    tau: dict[str, TauSchedule] = Field(description="{method: schedule}; each method is a row")


class AgroParams(OptimParams):
    """Group-variance regression."""

    beta: Positive = Field(description="temperature of reference exp(R / beta), units of reward")
    rounds: Whole = Field(description="rounds of fresh candidates that are added to the RL data")
    group_size: Count = Field(description="fresh candidates a query and round")


class GrpoParams(OptimParams):
    """Group-relative policy optimisation."""

    start: str = Field(description="off-line method whose policy it starts from: rce, agro, ...")
    rounds: Whole = Field(description="rounds of fresh candidates; 0: RL data")
    group_size: Annotated[int, Field(ge=2)] = Field(description="fresh candidates a query")
    credit: Literal["reward_to_go", "total"] = Field(
        description="a step's return: weighted rewards from its shot on, or all of them"
    )
    advantage: Literal["leave_one_out", "z_score"] = Field(
        description="return minus the others' mean, or (return - mean) / standard deviation"
    )
    ratio: Literal["step", "sequence"] = Field(description="what is clipped")
    clip_low: Positive = Field(description="ratios below 1 - clip_low give no gradient")
    clip_high: Positive = Field(description="ratios above 1 + clip_high give no gradient")
    kl: Literal["exact", "k3"] = Field(description="of whole distributions, or of the candidates")
    kl_beta: NonNegative = Field(description="weight of the KL to the reference")
    kl_target: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        description="[min, max] nats a pointer: kl_beta is moved by half after an epoch outside"
    )

    @model_validator(mode="after")
    def _effective(self) -> "GrpoParams":
        if self.ratio == "sequence" and self.credit != "total":
            raise ValueError("a sequence ratio has one advantage a pointer: set credit to total")
        if self.kl_target is not None and self.kl_beta == 0:
            raise ValueError("kl_target moves kl_beta, which is 0: give it a start value")
        if self.kl_target is not None and self.kl_target[0] >= self.kl_target[1]:
            raise ValueError("kl_target is [min, max]: the first must be smaller")
        return self
