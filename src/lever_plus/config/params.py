"""params.yaml as one frozen model: every setting has a range, and unknown keys are refused.

Each section has a module of its own, so that a stage depends only on the sections that it reads.
What must hold between sections is checked here. `file.py` reads and writes the file.
"""

from collections.abc import Iterator
from math import perm
from typing import Annotated, Any

from pydantic import Field, model_validator

from lever_plus.config.base import Distinct, Few, Section, Seed
from lever_plus.config.data import DataParams
from lever_plus.config.evaluate import SELECTORS, EvaluateParams
from lever_plus.config.features import EmbedParams
from lever_plus.config.grpo import GrpoParams
from lever_plus.config.in_context import InContextParams
from lever_plus.config.names import AGRO, check_methods
from lever_plus.config.offline import AgroParams, RceParams, RlParams
from lever_plus.config.plugins import find
from lever_plus.config.policy import PointerParams, PolicyParams
from lever_plus.config.pool import PoolParams
from lever_plus.config.reward import RewardParams, needed_scores
from lever_plus.config.rl_data import RlDataParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.sft import SftDataParams, SftParams
from lever_plus.config.stop import StopParams
from lever_plus.config.vlm import HuggingFaceVlmParams, PluginVlmParams, VlmParams
from lever_plus.files.names import SHIPPED, check_name
from lever_plus.files.secrets import has_secrets


class Params(Section):
    """params.yaml."""

    seed: Seed = Field(description="seed of data, pools, and all that evaluation draws")
    training_seeds: Annotated[list[Seed], Distinct] = Field(
        min_length=1,
        description="seeds of whole trainings: each has its own SFT, RL data, RCE, AGRO and GRPO",
    )
    threads: Few = Field(
        description="number of torch threads for embedding, and of parts into which an RL batch is "
        "split to be computed in parallel"
    )
    data: DataParams
    pool: PoolParams
    vlm: VlmParams
    scoring: ScoringParams
    in_context: InContextParams
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
    stop: StopParams | None = Field(
        description="training of the policy that decides when to stop; null: there is none"
    )
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if len(self.reward.shot_weights) != self.pointer.shots:
            raise ValueError("reward.shot_weights needs one weight per shot, pointer.shots in all")
        if sum(self.reward.shot_weights) <= 0:
            raise ValueError("reward.shot_weights are all zero: nothing would be learned")
        if self.grpo.start not in (*self.rce.tau, AGRO):
            raise ValueError(
                f"grpo.start must be {AGRO} or one of rce.tau: {', '.join(self.rce.tau)}"
            )
        if self.pool.size <= max(self.pointer.shots, self.sft_data.shots):
            raise ValueError("pool.size must be larger than pointer.shots and sft_data.shots")
        source, shared = self.data.source, self.pool.policy == "shared"
        if source.kind == "embedded" and self.pool.size > source.train - (not shared):
            raise ValueError("pool.size must be smaller than data.source.train")
        return self

    @model_validator(mode="after")
    def _proposable(self) -> "Params":
        """A pool must have as many pointers as a search keeps, and training needs candidates."""
        # An example that shows the query's image is left out of a shared pool.
        smallest = self.pool.size - (self.pool.policy == "shared")
        asked = self.rl_data
        for name, count, shots in (
            ("sft_data.beam", self.sft_data.beam, self.sft_data.shots),
            ("rl_data.beam", asked.beam, self.pointer.shots),
            *(
                (f"rl_data.stochastic_beam.{temperature}", count, self.pointer.shots)
                for temperature, count in asked.stochastic_beam.items()
            ),
        ):
            if count > perm(smallest, shots):
                raise ValueError(
                    f"{name} is too large: a pool of this size has {perm(smallest, shots)} pointers"
                )
        made = asked.counts
        if sum(made.values()) < 2:
            raise ValueError("rl_data must propose at least two candidates per query")
        chosen = self.rl.filter_gen_methods
        known = {"augmented", *(name for name, count in made.items() if count)}
        if chosen is not None and not known & set(chosen):
            raise ValueError(
                f"rl.filter_gen_methods names {', '.join(chosen)}, but rl_data proposes no such "
                "candidates"
            )
        return self

    @model_validator(mode="after")
    def _selectable(self) -> "Params":
        """Look up the user's own selectors now: they are used last, after hours of training."""
        names = [factory.rpartition(":")[2] for factory in self.evaluate.selectors]
        try:
            check_methods([*self.rce.tau, *names])
        except ValueError as error:
            raise ValueError(f"evaluate.selectors: {error}") from error
        for name, factory in zip(names, self.evaluate.selectors, strict=True):
            check_name(name, "evaluate.selectors:")
            find(SELECTORS, factory, {}, what="evaluate.selectors")
        return self

    @model_validator(mode="after")
    def _instructable(self) -> "Params":
        """Say now that a back end cannot try instructions: they are tried last, in `evaluate`."""
        if isinstance(self.vlm, PluginVlmParams) and self.evaluate.instructions:
            raise ValueError(
                "evaluate.instructions must be [] with vlm.kind plugin: a back end of your own "
                "writes its prompts itself, so no other instruction can be tried"
            )
        return self

    @model_validator(mode="after")
    def _rewarded(self) -> "Params":
        needed = needed_scores(self.reward)
        lacking = sorted(needed - {"log_prob"} - set(self.rl_data.scores))
        if lacking:
            raise ValueError(f"the reward uses {lacking[0]}: add it to rl_data.scores")
        if "log_prob" in needed and (self.grpo.rounds or self.agro.rounds or self.stop):
            raise ValueError(
                "a reward with log_prob would reward the policy for its own confidence: "
                "grpo.rounds and agro.rounds must be 0, and stop must be null"
            )
        nearest = 3 * (self.pool.size // self.pointer.shots)
        if self.rl_data.retrieval > nearest:
            raise ValueError(f"rl_data.retrieval: a pool of this size gives at most {nearest}")
        return self

    @model_validator(mode="after")
    def _priced(self) -> "Params":
        if self.stop is not None and self.pointer.price not in self.stop.prices:
            raise ValueError("pointer.price must be one of stop.prices, the prices of training")
        if self.stop is not None and max(self.stop.prices) == 0:
            raise ValueError("stop.prices are all 0: add one above 0")
        return self

    @model_validator(mode="after")
    def _answerable(self) -> "Params":
        if self.data.source.kind == "embedded":
            return self
        local = [self.vlm.path] if isinstance(self.vlm, HuggingFaceVlmParams) else []
        if any(path.startswith(SHIPPED) for path in (*local, self.embed.path)):
            raise ValueError(
                "the shipped tiny models know only the embedded data set: set embed.path, and "
                "vlm.path or a server (vlm.kind: openai)"
            )
        if self.pool.scarcity > 0:
            raise ValueError("pool.scarcity works only with the embedded data set: set it to 0.0")
        return self

    @model_validator(mode="after")
    def _open(self) -> "Params":
        """Refuse secrets: settings are kept in dvc.lock, in MLflow and in git."""
        for place, name, value in _texts(self.model_dump(), ""):
            if has_secrets(value) or has_secrets(f'"{name}": "{value}"'):
                raise ValueError(
                    f"{place} holds a password or a key, and settings are kept where others read "
                    "them: leave it out, and read it from an environment variable"
                )
        return self


def _texts(values: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield (place, name, text) of every setting that is a text."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for name, value in items:
        if isinstance(value, str):
            yield f"{place}{name}", str(name), value
        elif isinstance(value, dict | list | tuple):
            yield from _texts(value, f"{place}{name}.")
