"""The settings of the study in search/params.yaml: what is searched, how long, and what may win."""

import difflib
import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lever_plus.config.base import LARGEST, Count, Positive, Section, Seed, Temperature
from lever_plus.config.rl_data import GenMethod
from lever_plus.errors import UserError
from lever_plus.files.checking import explained
from lever_plus.files.names import Name
from lever_plus.files.yaml_files import read_yaml

STORAGE_VARIABLE: Final = "LEVER_PLUS_STUDY_STORAGE"
ADVICE: Final = (
    "run from the project's root folder, or compare it with the search/params.yaml that came with "
    "the project"
)
DATABASES: Final = ("postgresql", "mysql", "sqlite")
"""Databases in which Optuna can keep studies, besides journal files."""
MOST_EPOCHS: Final = 1000
"""Number of report steps that each seed has besides the epochs of RCE.

Every seed reports its epochs of RCE and GRPO at its own steps, and its end at the last of them.
"""
STEEPEST: Final = 40.0
"""Steepest slope of the shot weights: beyond it, one shot has all the weight."""
Values = Mapping[str, Any]
"""Values of a trial, by the names of `Space`."""
Each = TypeVar("Each", bound=Sequence[Hashable] | Mapping[str, Any])


def _different(values: Each) -> Each:
    """Refuse a list with the same value twice, or a mapping with two names for the same value."""
    given = [*values.values()] if isinstance(values, Mapping) else [*values]
    keys = [sorted(each) if isinstance(each, list) else each for each in given]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise ValueError(f"{given[number]} occurs twice")
    return values


class Span(Section):
    """A range of numbers."""

    low: float
    high: float
    log: bool = Field(default=False, description="whether to search on a logarithmic scale")

    @model_validator(mode="after")
    def _wide(self) -> "Span":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be smaller than high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: it must be above 0 on a logarithmic scale")
        return self


def _within(low: float, high: float) -> Callable[[Span], Span]:
    def check(span: Span) -> Span:
        for name, value in (("low", span.low), ("high", span.high)):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, but must be in {low:g}..{high:g}")
        return span

    return check


Seeds = Annotated[list[Seed], AfterValidator(_different)]
Rates = Annotated[Span, AfterValidator(_within(1e-9, 10))]
Weights = Annotated[Span, AfterValidator(_within(0, LARGEST))]
Shares = Annotated[Span, AfterValidator(_within(0, 1))]
Slopes = Annotated[Span, AfterValidator(_within(-STEEPEST, STEEPEST))]
Temperatures = Annotated[list[Temperature], Field(min_length=1), AfterValidator(_different)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}$")]
Methods = Annotated[list[GenMethod], Field(min_length=1), AfterValidator(_different)]


class Space(Section):
    """The search space of the study."""

    learning_rate: Rates = Field(description="grpo.learning_rate")
    kl_beta: Weights = Field(description="grpo.kl_beta")
    epochs: Annotated[int, Field(ge=1, lt=MOST_EPOCHS - 2)] = Field(
        description="largest grpo.epochs; trials may also have 0, which is the RCE-only policy"
    )
    hard_share: Shares = Field(
        description="reward.hard / (reward.hard + reward.soft); the sum is always 2"
    )
    shot_slope: Slopes = Field(
        description="shot weights are proportional to exp(slope * shot); 0 makes them equal"
    )
    tau_start: Annotated[list[Temperature], Field(min_length=1), AfterValidator(_different)] = (
        Field(description="first value of rce.tau; its last value is a quarter of it")
    )
    gen_methods: Annotated[
        dict[Label, Methods | None], Field(min_length=1), AfterValidator(_different)
    ] = Field(description="choices of rl.filter_gen_methods, by name")


class StudySettings(Section):
    """The whole file search/params.yaml."""

    name: Name
    trials: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        description="number of trials in the study, including the baseline"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        description="processes that `make study` starts"
    )
    seeds: Seeds = Field(min_length=1, description="seeds of RCE and GRPO in every trial")
    sampler_seed: Seed
    startup_trials: Count = Field(description="random trials before TPE begins")
    kl_budget: Positive = Field(
        description="largest KL to the RCE policy, nats per pointer; a constraint"
    )
    stale_seconds: Annotated[float, Field(ge=1, le=1e6)] = Field(
        description="a trial on another machine counts as lost after this silence"
    )
    storage: str = Field(description="journal file, or the URL of a database")
    top: Count = Field(description="number of trials that promotion trains again")
    fresh_seeds: Seeds = Field(min_length=2, description="seeds of RCE and GRPO in promotion")
    space: Space

    @model_validator(mode="after")
    def _possible(self) -> "StudySettings":
        if self.top > self.trials:
            raise ValueError(f"top is {self.top}, but there are only {self.trials} trials")
        seen = sorted(set(self.seeds) & set(self.fresh_seeds))
        if seen:
            raise ValueError(f"fresh_seeds: {seen[0]} is one of seeds, so it is not fresh")
        return self


def read_settings(path: Path) -> StudySettings:
    """Read the settings of the study.

    The environment variable LEVER_PLUS_STUDY_STORAGE takes precedence over `storage`, because a
    database's password must not be in a file that git keeps.

    Raises:
        UserError: The file is missing, a setting is wrong, or the storage can't be used.
    """
    content = read_yaml(path, ADVICE)
    origin = f"{path}: storage"
    if os.environ.get(STORAGE_VARIABLE):
        content["storage"], origin = os.environ[STORAGE_VARIABLE], STORAGE_VARIABLE
    try:
        settings = StudySettings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error.errors()[0])}.") from error
    _check_storage(settings.storage, origin)
    return settings


def scheme_of(storage: str) -> str | None:
    """Return the kind of database in a URL, such as "postgresql"; None for a journal file."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.-]+)(\+[A-Za-z0-9_.-]+)?:", storage)
    return found[1].lower() if found else None


def _check_storage(storage: str, origin: str) -> None:
    scheme = scheme_of(storage)
    if scheme is not None and (scheme not in DATABASES or "://" not in storage):
        raise UserError(
            f"{origin}: {scheme} is not a known kind of storage: name a journal file, or a "
            f"database as {', '.join(f'{name}://...' for name in DATABASES)}."
        )
    if scheme == "sqlite" and (":memory:" in storage or storage.partition("://")[2] in ("", "/")):
        raise UserError(
            f"{origin}: a database in memory is lost when its process ends: name a file, such as "
            "sqlite:///search/study.db."
        )
    if storage.startswith("~"):
        raise UserError(f"{origin}: ~ is not expanded here: write the whole path of the file.")
    if not storage.strip() or not storage.isprintable() or storage.endswith(("/", "\\")):
        raise UserError(
            f"{origin} names neither a file nor a database: write, for example, "
            "search/study.journal."
        )


def _explain(error: ErrorDetails) -> str:
    """Return one sentence, with a suggestion for a mistyped key."""
    if error["type"] != "extra_forbidden":
        return explained(error)
    *way, key = error["loc"]
    known: Any = StudySettings
    for part in way:
        field = known.model_fields.get(part)
        known = field.annotation if field else Section
    near = difflib.get_close_matches(str(key), known.model_fields, n=1)
    return explained(error) + (f" (did you mean {near[0]}?)" if near else "")
