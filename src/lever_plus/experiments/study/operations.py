"""Checks of a journal's operations: damaged ones would make Optuna fail, or mix up trials.

Optuna ignores what it does not understand from other workers, so after a missing line it would give
one trial's values to another. Here every operation must fit those before it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from optuna.distributions import json_to_distribution
from optuna.trial import TrialState
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lever_plus.errors import UserError
from lever_plus.files.checking import checked

Id = Annotated[int, Field(ge=0)]


def _worked(made: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            made(text)
        except Exception as error:
            raise ValueError(f"{text[:60]!r} can't be read ({error})") from error
        return text

    return check


def _check_value(distribution: str, value: float) -> None:
    """Refuse a value that the distribution can't have."""
    _worked(lambda text: json_to_distribution(text).to_external_repr(value))(distribution)


Time = Annotated[str, AfterValidator(_worked(datetime.fromisoformat))]
Distribution = Annotated[str, AfterValidator(_worked(json_to_distribution))]
State = Annotated[int, Field(ge=0, le=max(TrialState))]
One = Annotated[dict[str, Any], Field(min_length=1, max_length=1)]


class _Operation(BaseModel):
    """The keys that all operations have; other keys are allowed, for later versions of Optuna."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    op_code: int
    worker_id: str


class _NewStudy(_Operation):
    study_name: str
    directions: tuple[Annotated[int, Field(ge=0, le=2)], ...] = Field(min_length=1)


class _OfStudy(_Operation):
    study_id: Id


class _StudyNote(_OfStudy):
    user_attr: One


class _StudySystemNote(_OfStudy):
    system_attr: One


class _NewTrial(_OfStudy):
    datetime_start: Time | None
    datetime_complete: Time = ""
    state: State = TrialState.RUNNING
    value: float | None = None
    values: tuple[float, ...] | None = None
    distributions: dict[str, Distribution] = Field(default_factory=dict)
    params: dict[str, float] = Field(default_factory=dict)
    user_attrs: dict[str, Any] = Field(default_factory=dict)
    system_attrs: dict[str, Any] = Field(default_factory=dict)
    intermediate_values: dict[Annotated[str, AfterValidator(_worked(int))], float] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _whole(self) -> "_NewTrial":
        for name, value in self.params.items():
            if name not in self.distributions:
                raise ValueError(f"{name} has a value but no distribution")
            _check_value(self.distributions[name], value)
        return self


class _OfTrial(_Operation):
    trial_id: Id


class _Proposal(_OfTrial):
    param_name: str
    param_value_internal: float
    distribution: Distribution

    @model_validator(mode="after")
    def _possible(self) -> "_Proposal":
        _check_value(self.distribution, self.param_value_internal)
        return self


class _NewState(_OfTrial):
    state: State
    values: tuple[float, ...] | None
    datetime_start: Time = ""
    datetime_complete: Time = ""

    @model_validator(mode="after")
    def _dated(self) -> "_NewState":
        if TrialState(self.state).is_finished() and not self.datetime_complete:
            raise ValueError("datetime_complete is missing")
        if self.state == TrialState.RUNNING and not self.datetime_start:
            raise ValueError("datetime_start is missing")
        return self


class _Report(_OfTrial):
    step: int
    intermediate_value: float


class _TrialNote(_OfTrial):
    user_attr: One


class _TrialSystemNote(_OfTrial):
    system_attr: One


KINDS: Final[tuple[type[_Operation], ...]] = (
    *(_NewStudy, _OfStudy, _StudyNote, _StudySystemNote, _NewTrial),
    *(_Proposal, _NewState, _Report, _TrialNote, _TrialSystemNote, _Operation),
)
"""Models of the operations, by Optuna's number of the operation."""
REMOVAL: Final = 1
"""Optuna's number of the operation that deletes a study."""


class Operations:
    """The studies and trials that the operations so far have made."""

    def __init__(self) -> None:
        """Start without studies and trials."""
        self._names: dict[int, str] = {}
        self._made = 0
        self._owners: list[str] = []

    def check(self, content: Any, where: str, advice: str) -> None:
        """Check the next operation, and apply it.

        Args:
            content: The JSON content of a line.
            where: File and line, for errors.
            advice: What the user can do if the line is wrong.

        Raises:
            UserError: The line is not an operation, or does not fit the lines before it.
        """
        code = content.get("op_code") if isinstance(content, dict) else None
        if type(code) is not int or code < 0:
            raise UserError(f"{where} is not an operation of a study: {advice}.")
        if code >= len(KINDS):
            raise UserError(
                f"{where} was written by a newer version of Optuna (operation {code}): update "
                "yours (`pip install --upgrade optuna`), or name another storage in "
                "search/params.yaml."
            )
        operation = checked(KINDS[code], content, where, advice)
        if why := self._applied(operation):
            raise UserError(
                f"{where} {why}: lines before it are missing, or two journals were joined into "
                f"one file: {advice}."
            )

    def _applied(self, operation: _Operation) -> str:
        """Apply an operation; return why it can't be at this place, "" if it can."""
        match operation:
            case _NewStudy(study_name=name):
                # If two processes make a study at once, both write this; the second then joins it.
                if name not in self._names.values():
                    self._names[self._made] = name
                    self._made += 1
            case _OfStudy(study_id=study):
                if study >= self._made:
                    return f"belongs to study {study}, which does not exist"
                self._apply_to_study(operation, study)
            case _OfTrial(trial_id=trial):
                if trial >= len(self._owners):
                    return f"belongs to trial {trial}, which does not exist"
                return self._applied_to_trial(operation, trial)
        return ""

    def _apply_to_study(self, operation: _OfStudy, study: int) -> None:
        if isinstance(operation, _NewTrial) and study in self._names:
            running = operation.state == TrialState.RUNNING
            self._owners.append(_process(operation) if running else "")
        elif operation.op_code == REMOVAL:
            self._names.pop(study, None)

    def _applied_to_trial(self, operation: _OfTrial, trial: int) -> str:
        owner, mine = self._owners[trial], _process(operation)
        if isinstance(operation, _NewState) and operation.state == TrialState.RUNNING:
            # If several processes want a waiting trial, the first one gets it.
            self._owners[trial] = owner or mine
        measured = isinstance(operation, _NewState) and operation.state == TrialState.COMPLETE
        if (measured or isinstance(operation, _Proposal | _Report)) and owner != mine:
            return f"is about trial {trial} of another process"
        return ""


def _process(operation: _Operation) -> str:
    """Return which process wrote an operation: the worker's id without its thread at the end."""
    return operation.worker_id.rpartition("-")[0]
