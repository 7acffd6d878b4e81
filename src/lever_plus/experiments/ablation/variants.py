"""The variants of `ablations/variants.yaml`: what each changes in params.yaml, and what it asks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from lever_plus.config.base import Distinct, Section, Seed, Text
from lever_plus.config.file import merged_params
from lever_plus.config.names import GRPO, RCE, SFT, stage_of
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import methods_of
from lever_plus.files.checking import checked, explained
from lever_plus.files.names import Name, check_apart, check_name
from lever_plus.files.yaml_files import read_yaml

VARIANTS: Final = Path("ablations") / "variants.yaml"
SCORES: Final = "scores.parquet"
FACTS: Final = "facts.json"
"""Files of a variant's results."""
DEFAULT: Final = "default"
"""The pipeline, where variants are compared with it."""
CHAIN: Final = ("sft_data", SFT, "rl_data", RCE, GRPO)
"""Stages that a variant may run anew, each after those before it."""
ADVICE: Final = "write it as ablations/variants.yaml of the project has it"


def _comparison(text: str) -> str:
    """Refuse what names no variant, or more than a method of one."""
    for name in text.split("/", 1):
        try:
            check_name(name, "the name")
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from error
    return text


def _apart(names: list[str]) -> list[str]:
    check_apart(names)
    return names


class Variant(Section):
    """A variant."""

    asks: Text = Field(description="the table that it stands in: what is compared there")
    methods: Annotated[list[Name], Field(min_length=1), AfterValidator(_apart)] = Field(
        description="trained methods that are evaluated"
    )
    versus: Annotated[str, AfterValidator(_comparison)] = Field(
        description="what differences are paired with: <variant>/<method>, or <variant> for the "
        "same method there; `default` is the pipeline"
    )
    preset: Name | None = Field(default=None, description="file in presets/, applied first")
    params: dict[str, Any] = Field(default_factory=dict, description="changes to params.yaml")

    def compared(self, method: str) -> str:
        """Return the <variant>/<method> that one of its methods is compared with."""
        return self.versus if "/" in self.versus else f"{self.versus}/{method}"


class Variants(Section):
    """The whole file."""

    seeds: Annotated[list[Seed], Field(min_length=1), Distinct] = Field(
        description="training seeds of every variant, some of those of params.yaml"
    )
    curve: Text | None = Field(
        default=None,
        description="what variants ask that are drawn, the pipeline beside them: accuracy over the "
        "VLM requests to train",
    )
    variants: dict[Name, Variant] = Field(min_length=1)

    @model_validator(mode="after")
    def _comparable(self) -> "Variants":
        check_apart(self.variants, (DEFAULT,))
        for name, variant in self.variants.items():
            for method in variant.methods:
                self._check_pair(name, method, variant.compared(method))
        return self

    @model_validator(mode="after")
    def _drawn(self) -> "Variants":
        if self.curve is not None and all(v.asks != self.curve for v in self.variants.values()):
            raise ValueError(f"curve: no variant asks {self.curve!r}")
        return self

    def _check_pair(self, name: str, method: str, versus: str) -> None:
        other, _, compared = versus.partition("/")
        place = f"variants.{name}.versus: {versus}"
        if other != DEFAULT and other not in self.variants:
            raise ValueError(f"{place}: there is no variant {other}")
        if other != DEFAULT and compared not in self.variants[other].methods:
            raise ValueError(f"{place}: {other} does not evaluate {compared}")
        if (other, compared) == (name, method):
            raise ValueError(f"{place} is {method} of the variant itself")


def has_variants(root: Path) -> bool:
    """Return whether a project has a file of variants."""
    return (root / VARIANTS).is_file()


def read_variants(root: Path) -> Variants:
    """Read the file of a project; UserError says what is wrong with it."""
    path = root / VARIANTS
    content = read_yaml(path, "run from the project's root folder, or write it as the README says")
    try:
        return Variants.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explained(error.errors()[0])}: {ADVICE}.") from error


def find_variant(name: str, root: Path) -> Variant:
    """Return one variant; UserError says which there are."""
    variants = read_variants(root).variants
    if name not in variants:
        raise UserError(f"{VARIANTS} has no variant {name}: it has {', '.join(variants)}.")
    return variants[name]


def params_of(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes.

    Raises:
        UserError: They are not valid together, or do not train what the variant evaluates.
    """
    preset = root / "presets" / f"{variant.preset}.yaml" if variant.preset else None
    try:
        params = merged_params(root / "params.yaml", preset, variant.params)
    except UserError as error:
        raise UserError(f"{VARIANTS}, a variant that asks {variant.asks!r}: {error}") from error
    stops = params.stop is not None
    trained = methods_of(params.rce.tau, params.sft.targets, stops=stops).trained
    for method in variant.methods:
        if method not in trained:
            raise UserError(
                f"{VARIANTS}: methods: nothing trains {method}: choose of {', '.join(trained)}."
            )
    return params


class _Stage(BaseModel):
    """What a variant needs to know of a stage of dvc.yaml."""

    params: tuple[str, ...]


class _Pipeline(BaseModel):
    stages: dict[str, _Stage]


def stages_to_run(variant: Variant, base: Params, changed: Params, root: Path) -> list[str]:
    """Return the stages that a variant runs anew: those that DVC would, up to what is evaluated.

    A stage runs if a parameter that dvc.yaml names for it differs, or if one before it runs.

    Raises:
        UserError: A stage before the training chain would have to run: data and models are the
            same for all variants.
    """
    path, advice = root / "dvc.yaml", "restore it (`git checkout dvc.yaml`)"
    pipeline = checked(_Pipeline, read_yaml(path, advice), str(path), advice)
    touched = [
        stage
        for stage, entry in pipeline.stages.items()
        if any(_value(base, key) != _value(changed, key) for key in entry.params)
    ]
    early = [stage for stage in touched if stage not in (*CHAIN, "evaluate", "report")]
    if early:
        raise UserError(f"this variant changes stage {early[0]}, which all variants share.")
    firsts = [CHAIN.index(stage) for stage in touched if stage in CHAIN]
    if not firsts:
        raise UserError("this variant changes nothing that is trained.")
    last = max(CHAIN.index(stage_of(method)) for method in variant.methods)
    return list(CHAIN[min(firsts) : last + 1])


def _value(params: Params, key: str) -> object:
    value: Any = params.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
