"""Reading the files that `evaluate` writes: the score table and the metrics."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.summary import check_complete
from lever_plus.files.checking import STRICT, checked
from lever_plus.files.json_files import read_object
from lever_plus.files.reading import check_file

ADVICE: Final = "run `dvc repro evaluate`"
INTEGERS: Final = ("seed", "query_id", "image_id", "shot", "vqa_correct", "prompt_tokens")
Share = Annotated[float, Field(ge=0, le=1)]
Gain = Annotated[float, Field(ge=-1, le=1)]
Deviation = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Cost = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of a results file; fields that are not shown anywhere are not checked."""

    model_config = ConfigDict(**{**STRICT, "extra": "ignore"})


class MethodPart(Part):
    """A method, see `methods.Method`."""

    name: str
    stage: str
    kind: Literal["trained", "similarity", "baseline", "selector", "ceiling"]
    label: str


class AccuracyPart(Part):
    """An accuracy with its interval, see `scored.accuracy`."""

    accuracy: Share
    ci95: tuple[Share, Share]
    n: Count
    seeds: Count
    one_training: bool
    seed_accuracies: Annotated[tuple[Share, ...], Field(min_length=1)]


class MeanPart(AccuracyPart):
    """The mean accuracy of a method over shots 1..K, and its costs if they are known."""

    method: str
    demonstrations: Cost | None = None
    prompt_tokens: Cost | None = None
    vlm_requests: Cost | None = None


class ShotPart(MeanPart):
    """The accuracy of a method at one shot."""

    shots: Whole


class PricePart(AccuracyPart):
    """The accuracy of policies that can stop, at one price."""

    price: Cost
    shots: Count
    demonstrations: Cost
    prompt_tokens: Cost | None


class StopPart(Part):
    """Policies that can stop, by price."""

    price_per: Literal["demonstration", "token"] = "demonstration"
    rows: tuple[PricePart, ...]


class SpreadPart(Part):
    """The standard deviations behind a difference, see `trainings.Spread`."""

    trainings: Deviation
    questions: Deviation
    noise: Deviation


class GainPart(Part):
    """A paired difference, corrected for the other comparisons of its table."""

    difference: Gain
    ci95: tuple[Gain, Gain]
    n: Count
    trainings: Whole
    one_training: bool
    spread: SpreadPart
    p: Share
    p_holm: Share
    separable: bool
    trainings_needed: Count | None


class DifferencePart(GainPart):
    """The paired difference of two methods."""

    method: str
    versus: str
    shots: Whole | Literal["mean"]
    wins: Whole
    losses: Whole
    ties: Whole


class AddedPart(GainPart):
    """How much one more demonstration adds to the accuracy of a method."""

    method: str
    shots: Count


class SummaryPart(Part):
    """metrics/summary.json, see `summary.summarise`."""

    methods: tuple[MethodPart, ...] = ()
    rows: Annotated[tuple[ShotPart, ...], Field(min_length=1)]
    means: tuple[MeanPart, ...]
    differences: tuple[DifferencePart, ...]
    gains: tuple[AddedPart, ...] = ()


class OrderPart(Part):
    """Order against choice, see `diagnostics.order_and_choice`."""

    questions: Count
    orders: Count
    sets: Count
    order_spread: Share
    set_spread: Share


class CopyPart(Part):
    """Copied and shown answers of one method at one shot, see `diagnostics`."""

    method: str
    shots: Count
    copied: Share
    copied_last: Share
    shown: Share
    accuracy_shown: Share | None
    accuracy_not_shown: Share | None


class DiagnosticsPart(Part):
    """metrics/diagnostics.json."""

    order: OrderPart
    copy_: Annotated[tuple[CopyPart, ...], Field(alias="copy")]


def read_summary(path: Path) -> dict[str, Any]:
    """Return the summary; UserError if the file is missing, damaged or incomplete."""
    content = read_object(path, ADVICE)
    summary = checked(SummaryPart, content, str(path), ADVICE)
    shots = {row.shots for row in summary.rows} - {0}
    means = {row.method for row in summary.means}
    found: dict[str, list[int]] = {}
    for row in summary.rows:
        found.setdefault(row.method, []).append(row.shots)
    for method, own in found.items():
        whole = own == [0] or (method in means and sorted(own) == sorted(shots))
        if not whole:
            raise UserError(f"{path}: method {method} lacks a shot or has one twice: {ADVICE}.")
    known = {method.name for method in summary.methods} or found.keys()
    named = [*found, *means, *(m for row in summary.differences for m in (row.method, row.versus))]
    named += [row.method for row in summary.gains]
    unknown = next((name for name in named if name not in known or name not in found), None)
    if unknown is not None:
        raise UserError(f"{path}: method {unknown} is not described, or has no rows: {ADVICE}.")
    return content


def read_stop(path: Path) -> dict[str, Any]:
    """Return the results of policies that can stop; UserError if missing or damaged."""
    content = read_object(path, ADVICE)
    stop = checked(StopPart, content, str(path), ADVICE)
    prices = [row.price for row in stop.rows]
    if len(set(prices)) < len(prices):
        raise UserError(f"{path} has a price twice: {ADVICE}.")
    if any(row.demonstrations > row.shots for row in stop.rows):
        raise UserError(f"{path}: a row has more demonstrations than shots: {ADVICE}.")
    return {"price_per": stop.price_per, **content}


def read_timing(path: Path) -> dict[str, float]:
    """Return {method: milliseconds per selection}; empty if no evaluation has run here.

    Raises:
        UserError: The file is damaged.
    """
    if not path.is_file():
        return {}
    return checked(dict[str, Cost], read_object(path, ADVICE), str(path), ADVICE)


def read_diagnostics(path: Path) -> dict[str, Any]:
    """Return the diagnostics; UserError if the file is missing or damaged."""
    content = read_object(path, ADVICE)
    checked(DiagnosticsPart, content, str(path), ADVICE)
    return content


def read_scores(path: Path) -> pd.DataFrame:
    """Return the score table.

    Raises:
        UserError: The file is missing or damaged, has other columns or a value out of range, or a
            question is missing or occurs twice.
    """
    import pyarrow as pa

    check_file(path, ADVICE)
    try:
        scores = pd.read_parquet(path)
    except (pa.lib.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a score table ({why}): {ADVICE}.") from error
    wrong = next(_mistakes(scores), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong}: {ADVICE}.")
    check_complete(scores)
    return scores


def _mistakes(scores: pd.DataFrame) -> Iterator[str]:
    """Yield what is wrong with a score table; later checks assume that earlier ones passed."""
    if list(scores.columns) != list(Row._fields):
        yield f"the columns are {', '.join(map(str, scores.columns))[:200]}"
    if scores.empty:
        yield "it has no rows"
    for name in INTEGERS:
        if not pd.api.types.is_integer_dtype(scores[name]) or (scores[name] < 0).any():
            yield f"{name} is not a whole number in every row"
    for name in ("method", "answer"):
        if not scores[name].map(lambda text: isinstance(text, str)).all():
            yield f"{name} is not a text in every row"
    if not pd.api.types.is_bool_dtype(scores["fallback"]):
        yield "fallback is not true or false in every row"
    accuracy = scores["vqa_acc_score"]
    if not pd.api.types.is_float_dtype(accuracy) or not accuracy.between(0, 1).all():
        yield "vqa_acc_score is not from 0 to 1 in every row"
    if (scores["vqa_correct"] != (accuracy > 0)).any():
        yield "vqa_correct is not 1 where vqa_acc_score is above 0, and 0 elsewhere"
    for name in ("pointer", "step_log_probs"):
        if not scores[name].map(lambda values: hasattr(values, "__len__")).all():
            yield f"{name} is not a list in every row"
    lengths = scores["pointer"].map(len)
    if (lengths > scores["shot"]).any():
        yield "a pointer has more examples than its shot"
    steps = scores["step_log_probs"].map(len)
    if ((steps > 0) & (steps != lengths)).any():
        yield "a pointer does not have one log-probability per pick"
    if (scores.groupby("query_id")["image_id"].nunique() > 1).any():
        yield "a question has two images"


def check_scores(scores: pd.DataFrame, examples: Mapping[int, Example], path: Path) -> None:
    """Refuse a score table with ids of unknown examples; the UserError names one."""
    named = np.concatenate([scores["query_id"], *scores["pointer"]])
    unknown = sorted(set(np.unique(named).tolist()) - examples.keys())
    if unknown:
        raise UserError(f"{path} has the id {unknown[0]}, but there is no such example: {ADVICE}.")
