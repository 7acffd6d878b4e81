"""The variants of `ablations/variants.yaml`: what each changes in params.yaml, and what it asks.

A transfer is a variant that trains nothing: it uses the policies of another one before another VLM,
or with other pools.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from lever_plus.config.base import Distinct, Section, Seed, Text
from lever_plus.config.file import merged_params
from lever_plus.config.names import GRPO, RCE, SFT, stage_of
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import ZERO_SHOT, methods_of
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.files.checking import checked, explained
from lever_plus.files.names import Name, check_apart, check_name
from lever_plus.files.yaml_files import read_yaml

VARIANTS: Final = Path("ablations") / "variants.yaml"
SCORES: Final = "scores.parquet"
FACTS: Final = "facts.json"
"""Files of a variant's results."""
DEFAULT: Final = "default"
"""The pipeline, where variants are compared with it."""
POOL: Final = "pool"
CHAIN: Final = (POOL, "sft_data", SFT, "rl_data", RCE, GRPO)
"""Stages that a variant may run anew, each after those before it."""
MEASURING: Final = ("in_context", "evaluate", "report")
"""Stages whose outputs no other stage is made from: variants need none of them."""
BASELINES: Final = (ZERO_SHOT, *SIMILARITIES)
"""Methods that nothing trains, for a variant before another VLM or with pools of its own."""
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
        description="methods that are evaluated: trained ones, and similarities or zero-shot beside"
    )
    versus: Annotated[str, AfterValidator(_comparison)] = Field(
        description="what differences are paired with: <variant>/<method>, or <variant> for the "
        "same method there; `default` is the pipeline; what it names is the baseline itself"
    )
    preset: Name | None = Field(default=None, description="file in presets/, applied first")
    params: dict[str, Any] = Field(default_factory=dict, description="changes to params.yaml")

    @model_validator(mode="after")
    def _trains(self) -> "Variant":
        if not self.trained:
            raise ValueError("methods: nothing trains any of them: add one that is trained")
        return self

    @property
    def trained(self) -> list[str]:
        """Names of its methods that are trained."""
        return [method for method in self.methods if method not in BASELINES]

    @property
    def baselines(self) -> list[str]:
        """Names of its methods that nothing trains."""
        return [method for method in self.methods if method in BASELINES]

    def compared(self, method: str) -> str:
        """Return the <variant>/<method> that one of its methods is compared with."""
        return self.versus if "/" in self.versus else f"{self.versus}/{method}"


class Transfer(Variant):
    """A variant that trains nothing: policies of another one, used elsewhere."""

    policies: Name = Field(description="the variant whose policies are used")


Found = TypeVar("Found", bound=Variant)


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
    transfers: dict[Name, Transfer] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _comparable(self) -> "Variants":
        check_apart([*self.variants, *self.transfers], (DEFAULT,))
        for name, variant in self.whole.items():
            for method in variant.methods:
                self._check_pair(name, method, variant.compared(method))
        for name, transfer in self.transfers.items():
            self._check_policies(f"transfers.{name}.policies: {transfer.policies}", transfer)
        return self

    @model_validator(mode="after")
    def _drawn(self) -> "Variants":
        if self.curve is not None and all(v.asks != self.curve for v in self.variants.values()):
            raise ValueError(f"curve: no variant asks {self.curve!r}")
        return self

    @property
    def whole(self) -> dict[str, Variant]:
        """Variants and transfers, by name."""
        return {**self.variants, **self.transfers}

    def place(self, name: str) -> str:
        """Return the first variant of the same question that changes the same: it names the place.

        Selectors are used at the same place where VLM and pools are the same.
        """
        own = self.whole[name]
        changes = (own.asks, own.preset, own.params)
        same = (n for n, v in self.whole.items() if (v.asks, v.preset, v.params) == changes)
        return next(same)

    def trained_there(self, name: str, method: str) -> str:
        """Return the <variant>/<method> trained where a transfer uses it; "" if there is none."""
        there = self.place(name)
        known = name in self.transfers and there in self.variants
        return f"{there}/{method}" if known and method in self.variants[there].trained else ""

    def compared(self, name: str, method: str) -> str:
        """Return the <variant>/<method> that a row is compared with; "" if it is the baseline."""
        versus = self.whole[name].compared(method)
        return "" if versus == f"{name}/{method}" else versus

    def policies_of(self, name: str, method: str) -> str:
        """Return the variant whose policies a row is of; "" if nothing trains its method."""
        if method in BASELINES:
            return ""
        return self.transfers[name].policies if name in self.transfers else name

    def _check_pair(self, name: str, method: str, versus: str) -> None:
        other, _, compared = versus.partition("/")
        place = f"{'variants' if name in self.variants else 'transfers'}.{name}.versus: {versus}"
        if other != DEFAULT and other not in self.whole:
            raise ValueError(f"{place}: there is no variant {other}")
        if other != DEFAULT and compared not in self.whole[other].methods:
            raise ValueError(f"{place}: {other} does not evaluate {compared}")
        own = self.whole[name]
        alone = "/" not in own.versus or len(own.methods) == 1
        if (other, compared) == (name, method) and alone:
            raise ValueError(f"{place} is {method} of the variant itself")

    def _check_policies(self, place: str, transfer: Transfer) -> None:
        if transfer.policies not in self.variants:
            raise ValueError(f"{place}: no variant of this name trains any")
        source = self.variants[transfer.policies]
        missing = [method for method in transfer.trained if method not in source.trained]
        if missing:
            raise ValueError(f"{place}: it has no policies of {missing[0]}")
        if (source.preset, source.params) == (transfer.preset, transfer.params):
            raise ValueError(f"{place}: they were trained with these params: change vlm or pool")


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
    """Return a variant that trains; UserError says which there are."""
    return _found(name, read_variants(root).variants)


def find_transfer(name: str, root: Path) -> Transfer:
    """Return a transfer; UserError says which there are."""
    return _found(name, read_variants(root).transfers)


def _found(name: str, among: Mapping[str, Found]) -> Found:
    if name not in among:
        raise UserError(f"{VARIANTS} has no variant {name}: it has {', '.join(among)}.")
    return among[name]


def params_of(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes.

    Raises:
        UserError: They are not valid together, or do not train what the variant evaluates.
    """
    params = changed_by(variant, root)
    stops = params.stop is not None
    known = methods_of(params.rce.tau, params.sft.targets, stops=stops).trained
    for method in variant.trained:
        if method not in known:
            raise UserError(
                f"{VARIANTS}: methods: nothing trains {method}: choose of {', '.join(known)}."
            )
    return params


def changed_by(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes; UserError if they are not valid together."""
    preset = root / "presets" / f"{variant.preset}.yaml" if variant.preset else None
    try:
        return merged_params(root / "params.yaml", preset, variant.params)
    except UserError as error:
        raise UserError(f"{VARIANTS}, a variant that asks {variant.asks!r}: {error}") from error


class _Stage(BaseModel):
    """What a variant needs to know of a stage of dvc.yaml."""

    params: tuple[str, ...]


class _Pipeline(BaseModel):
    stages: dict[str, _Stage]


def stages_to_run(variant: Variant, base: Params, changed: Params, root: Path) -> list[str]:
    """Return the stages that a variant runs anew: those that DVC would, up to what is evaluated.

    A stage runs if a parameter that dvc.yaml names for it differs, or if one before it runs. None
    does for a variant without changes: it is the pipeline, under another name.

    Raises:
        UserError: A stage before the training chain would have to run: data and features are the
            same for all variants. Or it changes what trains nothing.
    """
    path, advice = root / "dvc.yaml", "restore it (`git checkout dvc.yaml`)"
    pipeline = checked(_Pipeline, read_yaml(path, advice), str(path), advice)
    touched = [
        stage
        for stage, entry in pipeline.stages.items()
        if any(_value(base, key) != _value(changed, key) for key in entry.params)
    ]
    early = [stage for stage in touched if stage not in (*CHAIN, *MEASURING)]
    if early:
        raise UserError(f"this variant changes stage {early[0]}, which all variants share.")
    firsts = [CHAIN.index(stage) for stage in touched if stage in CHAIN]
    if not firsts and not variant.params and variant.preset is None:
        return []
    last = max(CHAIN.index(stage_of(method)) for method in variant.trained)
    if not firsts or min(firsts) > last:
        raise UserError("this variant changes nothing that is trained.")
    return list(CHAIN[min(firsts) : last + 1])


def _value(params: Params, key: str) -> object:
    value: Any = params.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
