"""search/params.yaml: what is searched, how long, and when a trial may become the default."""

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
ADVICE: Final = "run from the project's root folder, or write it as search/params.yaml has it"
DATABASES: Final = ("postgresql", "mysql", "sqlite")
"""What Optuna keeps studies in, beside journal files."""
MOST_EPOCHS: Final = 1000
"""A seed reports its epochs, of RCE and of GRPO, at steps of its own, so many more than RCE has
epochs, and its end at the last of them."""
STEEPEST: Final = 40.0
"""Slope of the shot weights: from here on one shot has all the weight."""
Values = Mapping[str, Any]
"""Values of a trial, by the names of `Space`."""
Each = TypeVar("Each", bound=Sequence[Hashable] | Mapping[str, Any])


def _different(values: Each) -> Each:
    """Refuse a list with the same value twice, and a mapping with two names for one."""
    given = [*values.values()] if isinstance(values, Mapping) else [*values]
    keys = [sorted(each) if isinstance(each, list) else each for each in given]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise ValueError(f"{given[number]} is there twice")
    return values


class Span(Section):
    """A range of numbers."""

    low: float
    high: float
    log: bool = Field(default=False, description="search in orders of magnitude")

    @model_validator(mode="after")
    def _wide(self) -> "Span":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be smaller than high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: orders of magnitude begin above 0")
        return self


def _within(low: float, high: float) -> Callable[[Span], Span]:
    def check(span: Span) -> Span:
        for name, value in (("low", span.low), ("high", span.high)):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, which is not in {low:g}..{high:g}")
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
    """What is searched."""

    learning_rate: Rates = Field(description="grpo.learning_rate")
    kl_beta: Weights = Field(description="grpo.kl_beta")
    epochs: Annotated[int, Field(ge=1, lt=MOST_EPOCHS - 2)] = Field(
        description="largest grpo.epochs; 0 is the RCE-only policy"
    )
    hard_share: Shares = Field(description="hard weight / (hard + soft weight); their sum stays 2")
    shot_slope: Slopes = Field(description="shot weights grow as exp(slope * shot); 0: equal")
    tau_start: Annotated[list[Temperature], Field(min_length=1), AfterValidator(_different)] = (
        Field(description="rce.tau start; it ends at a quarter")
    )
    gen_methods: Annotated[
        dict[Label, Methods | None], Field(min_length=1), AfterValidator(_different)
    ] = Field(description="{name: rl.filter_gen_methods}")


class StudySettings(Section):
    """The whole file."""

    name: Name
    trials: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        description="trials in the study, the baseline included"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        description="processes that `make study` starts"
    )
    seeds: Seeds = Field(min_length=1, description="seeds of RCE and GRPO in every trial")
    sampler_seed: Seed
    startup_trials: Count = Field(description="random trials before TPE")
    kl_budget: Positive = Field(description="largest KL to RCE, nats a pointer: a constraint")
    stale_seconds: Annotated[float, Field(ge=1, le=1e6)] = Field(
        description="a trial of another machine is lost after this"
    )
    storage: str = Field(description="journal file, or the URL of a database")
    top: Count = Field(description="trials that promotion trains again")
    fresh_seeds: Seeds = Field(min_length=2, description="seeds of RCE and GRPO in promotion")
    space: Space

    @model_validator(mode="after")
    def _possible(self) -> "StudySettings":
        if self.top > self.trials:
            raise ValueError(f"top: the best {self.top} of {self.trials} trials")
        seen = sorted(set(self.seeds) & set(self.fresh_seeds))
        if seen:
            raise ValueError(f"fresh_seeds: {seen[0]} is one of seeds, so it is not fresh")
        return self


def read_settings(path: Path) -> StudySettings:
    """Read the file; UserError says what is wrong with it.

    LEVER_PLUS_STUDY_STORAGE of the environment comes before `storage`: a database's password has no
    place in a file that git keeps.
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
    """Return the kind of database of a URL, such as "postgresql"; None for a journal file."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.-]+)(\+[A-Za-z0-9_.-]+)?:", storage)
    return found[1].lower() if found else None


def _check_storage(storage: str, origin: str) -> None:
    scheme = scheme_of(storage)
    if scheme is not None and (scheme not in DATABASES or "://" not in storage):
        raise UserError(
            f"{origin}: {scheme} is no kind of storage: name a journal file, or a database as "
            f"{', '.join(f'{name}://...' for name in DATABASES)}."
        )
    if scheme == "sqlite" and (":memory:" in storage or storage.partition("://")[2] in ("", "/")):
        raise UserError(
            f"{origin}: a database in memory ends with its process: name a file, as "
            "sqlite:///search/study.db."
        )
    if storage.startswith("~"):
        raise UserError(f"{origin}: ~ means nothing here: write the whole path of the file.")
    if not storage.strip() or not storage.isprintable() or storage.endswith(("/", "\\")):
        raise UserError(f"{origin} names no file and no database: write search/study.journal.")


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
