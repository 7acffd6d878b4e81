"""The parts of the older system's RL JSON: what is read of each, and what it may be.

Keys that are not named here are passed over. Nothing is converted: "0" and true are no scores.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lever_plus.config.rl_data import GenMethod
from lever_plus.training.rl_data.records import Listed, Share, Shot, whole

OldMethod = Literal[
    "beam", "sample", "stochastic_beam", "random", "retrieval", "aug_diverse", "augmented"
]
"""The last one is this project's own word, which its exports have."""
METHODS: Final[Mapping[OldMethod, GenMethod]] = {
    "beam": "beam",
    "sample": "sample",
    "stochastic_beam": "stochastic_beam",
    "random": "random",
    "retrieval": "retrieval",
    "aug_diverse": "augmented",
    "augmented": "augmented",
}
UNKNOWN: Final = "unknown (imported)"
EvalMode = Literal["file", "vqaEval", "train", "val", "fallback", "error"]
Ids = Annotated[tuple[int, ...], Listed]


class Given(BaseModel):
    """Base of what such a file holds: the keys that are read of it; others may be there."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Scored(Given):
    """A candidate with a score; `step_log_probs` and `shots` are this project's own keys."""

    pointer: Ids
    pointer_pos: Ids | None = None
    pointer_global: Ids | None = None
    gen_method: OldMethod | None = None
    temperature: float | None = None
    beam_score: float | None = None
    logprob_score: float | None = None
    vqa_pred_answer: str = ""
    vqa_correct: Annotated[Literal[0, 1], BeforeValidator(whole)] | None = None
    vqa_acc_score: Share
    vqa_gt_prob: Share | None = None
    vqa_rel_score: Share | None = None
    vqa_eval_mode: EvalMode | None = None
    step_log_probs: Annotated[tuple[float, ...], Listed] | None = None
    shots: Annotated[tuple[Shot, ...], Field(min_length=1), Listed] | None = None


class Judged(Given):
    """What says of a candidate whether its score counts."""

    eval_failed: bool | None = None
    vqa_eval_mode: EvalMode | None = None
    shots: Any = None

    @property
    def counts(self) -> bool:
        """Whether it was scored by the metric, not by string matching or not at all.

        This project's own exports, which have `shots`, mark exact matches as its RL data do.
        """
        matched = self.vqa_eval_mode == "fallback" and self.shots is None
        return not self.eval_failed and self.vqa_eval_mode != "error" and not matched


class Query(Given):
    """What was asked."""

    question_id: int | None = None


class Group(Given):
    """The candidates of a query."""

    pointer_candidates: Annotated[tuple[dict[str, Any], ...], Listed]
    candidate_pool_ids: Ids | None = None
    query: Query = Field(default_factory=Query)


class Origin(Given):
    """What a file says about itself."""

    vqa_model: str = UNKNOWN
    task_gen_args: Any = UNKNOWN
