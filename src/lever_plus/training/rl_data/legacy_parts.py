"""The parts of the older system's RL JSON: which keys are read, and which values are allowed.

Other keys are ignored. No value is converted: "0" and true are not accepted as scores.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lever_plus.config.rl_data import GenMethod
from lever_plus.training.rl_data.records import Listed, Share, Shot, whole

OldMethod = Literal[
    "beam", "sample", "stochastic_beam", "random", "retrieval", "aug_diverse", "augmented"
]
"""`gen_method` in such files; "augmented" occurs in this project's own exports only."""
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
    """Base class of a file's parts: its fields are the keys that are read, others are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Scored(Given):
    """A candidate with a score; only this project's exports have `step_log_probs` and `shots`."""

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
    """The keys of a candidate that say whether its score is used."""

    eval_failed: bool | None = None
    vqa_eval_mode: EvalMode | None = None
    shots: Any = None

    @property
    def counts(self) -> bool:
        """Whether the official metric scored it; string matches and failures do not count.

        In this project's own exports, which have `shots`, "fallback" is accepted: there it marks
        exact matches as the RL data themselves do.
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
    """The file's `_meta`: what made the data."""

    vqa_model: str = UNKNOWN
    task_gen_args: Any = UNKNOWN
