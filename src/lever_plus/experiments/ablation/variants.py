"""The variants of `ablations/variants.yaml`: what each changes in params.yaml, and what it asks.

A transfer is a variant that trains nothing: it uses the policies of another variant with another
VLM or with other pools.
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
"""Names of a variant's result files: the score table, and facts about its training."""
DEFAULT: Final = "default"
"""The name of the pipeline itself in comparisons with variants."""
POOL: Final = "pool"
CHAIN: Final = (POOL, "sft_data", SFT, "rl_data", RCE, GRPO)
"""Stages that a variant may run again, in their order."""
MEASURING: Final = ("in_context", "evaluate", "report")
"""Stages that only measure: no policy is made from their outputs, so variants never run them."""
BASELINES: Final = (ZERO_SHOT, *SIMILARITIES)
"""Untrained methods that a variant with another VLM or other pools may evaluate again."""
ADVICE: Final = "compare it with the ablations/variants.yaml that came with the project"


def _comparison(text: str) -> str:
    """Refuse what is not the name of a variant, or <variant>/<method>."""
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
    """One variant of the pipeline."""

    asks: Text = Field(
        description="question that the variant answers; variants with the same one share a table"
    )
    methods: Annotated[list[Name], Field(min_length=1), AfterValidator(_apart)] = Field(
        description="methods to evaluate: trained ones, and also similarities or zero-shot"
    )
    versus: Annotated[str, AfterValidator(_comparison)] = Field(
        description="what the variant is compared with: <variant>/<method>, or <variant> for the "
        "same method there; `default` is the pipeline; a row that it names itself is the baseline"
    )
    preset: Name | None = Field(default=None, description="file in presets/, applied first")
    params: dict[str, Any] = Field(default_factory=dict, description="changes to params.yaml")

    @model_validator(mode="after")
    def _trains(self) -> "Variant":
        if not self.trained:
            raise ValueError("methods: none of them is trained: add one that is")
        return self

    @property
    def trained(self) -> list[str]:
        """Names of the trained methods."""
        return [method for method in self.methods if method not in BASELINES]

    @property
    def baselines(self) -> list[str]:
        """Names of the untrained methods."""
        return [method for method in self.methods if method in BASELINES]

    def compared(self, method: str) -> str:
        """Return the <variant>/<method> that a method of this variant is compared with."""
        return self.versus if "/" in self.versus else f"{self.versus}/{method}"


class Transfer(Variant):
    """A variant that trains nothing: it uses another variant's policies with other VLM or pools."""

    policies: Name = Field(description="the variant whose policies are used")


Found = TypeVar("Found", bound=Variant)


class Variants(Section):
    """The whole file `ablations/variants.yaml`."""

    seeds: Annotated[list[Seed], Field(min_length=1), Distinct] = Field(
        description="training seeds of every variant; each must be in params.yaml"
    )
    curve: Text | None = Field(
        default=None,
        description="the `asks` of the variants whose accuracy is drawn over the VLM requests that "
        "training took, together with the pipeline's",
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
            raise ValueError(f"curve: no variant has {self.curve!r} as its `asks`")
        return self

    @property
    def whole(self) -> dict[str, Variant]:
        """Variants and transfers, by name."""
        return {**self.variants, **self.transfers}

    def place(self, name: str) -> str:
        """Return the name of the place where a variant's selectors are used.

        Selectors are used at the same place if VLM and pools are the same. The place is named after
        the first variant with the same question and the same changes.
        """
        own = self.whole[name]
        changes = (own.asks, own.preset, own.params)
        same = (n for n, v in self.whole.items() if (v.asks, v.preset, v.params) == changes)
        return next(same)

    def trained_there(self, name: str, method: str) -> str:
        """Return the <variant>/<method> that was trained at a transfer's place; "" if none was."""
        there = self.place(name)
        known = name in self.transfers and there in self.variants
        return f"{there}/{method}" if known and method in self.variants[there].trained else ""

    def compared(self, name: str, method: str) -> str:
        """Return the <variant>/<method> that a row is compared with; "" if it is the baseline."""
        versus = self.whole[name].compared(method)
        return "" if versus == f"{name}/{method}" else versus

    def policies_of(self, name: str, method: str) -> str:
        """Return the variant whose policies a row shows; "" if its method is untrained."""
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
            raise ValueError(f"{place} compares the variant with itself")

    def _check_policies(self, place: str, transfer: Transfer) -> None:
        if transfer.policies not in self.variants:
            raise ValueError(f"{place}: there is no variant of this name that trains policies")
        source = self.variants[transfer.policies]
        missing = [method for method in transfer.trained if method not in source.trained]
        if missing:
            raise ValueError(f"{place}: it has no policies of {missing[0]}")
        if (source.preset, source.params) == (transfer.preset, transfer.params):
            raise ValueError(
                f"{place}: these were trained with the same params: change vlm or pool"
            )


def has_variants(root: Path) -> bool:
    """Return whether a project has a file of variants."""
    return (root / VARIANTS).is_file()


def read_variants(root: Path) -> Variants:
    """Read the variants of a project; raise UserError if the file is missing or wrong."""
    path = root / VARIANTS
    content = read_yaml(path, f"run from the project's root folder, or {ADVICE}")
    try:
        return Variants.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explained(error.errors()[0])}: {ADVICE}.") from error


def find_variant(name: str, root: Path) -> Variant:
    """Return a variant that trains; raise UserError, which names all, if there is none."""
    return _found(name, read_variants(root).variants)


def find_transfer(name: str, root: Path) -> Transfer:
    """Return a transfer; raise UserError, which names all, if there is none."""
    return _found(name, read_variants(root).transfers)


def _found(name: str, among: Mapping[str, Found]) -> Found:
    if name not in among:
        raise UserError(f"{VARIANTS} has no variant {name}: it has {', '.join(among)}.")
    return among[name]


def params_of(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes.

    Raises:
        UserError: The changes are not valid together, or do not train what the variant evaluates.
    """
    params = changed_by(variant, root)
    stops = params.stop is not None
    known = methods_of(params.rce.tau, params.sft.targets, stops=stops).trained
    for method in variant.trained:
        if method not in known:
            raise UserError(
                f"{VARIANTS}: methods: {method} is not trained: choose from {', '.join(known)}."
            )
    return params


def changed_by(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes; raise UserError if they do not fit together."""
    preset = root / "presets" / f"{variant.preset}.yaml" if variant.preset else None
    try:
        return merged_params(root / "params.yaml", preset, variant.params)
    except UserError as error:
        raise UserError(f"{VARIANTS}: a variant that asks {variant.asks!r}: {error}") from error


class _Stage(BaseModel):
    """The part of a stage in dvc.yaml that is read here."""

    params: tuple[str, ...]


class _Pipeline(BaseModel):
    stages: dict[str, _Stage]


def stages_to_run(variant: Variant, base: Params, changed: Params, root: Path) -> list[str]:
    """Return the stages that a variant runs again: those that DVC would run, up to its methods.

    A stage runs if one of the parameters that dvc.yaml names for it differs, or if a stage before
    it runs. A variant without changes runs none: it is the pipeline under another name.

    Raises:
        UserError: The variant changes data or features, which all variants share, or it changes
            nothing that affects training.
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
        raise UserError(
            f"{VARIANTS}: this variant changes stage {early[0]}, which all variants share: remove "
            "that change."
        )
    firsts = [CHAIN.index(stage) for stage in touched if stage in CHAIN]
    if not firsts and not variant.params and variant.preset is None:
        return []
    last = max(CHAIN.index(stage_of(method)) for method in variant.trained)
    if not firsts or min(firsts) > last:
        raise UserError(
            f"{VARIANTS}: this variant changes nothing that affects the training of its methods: "
            "change something that does, or remove it."
        )
    return list(CHAIN[min(firsts) : last + 1])


def _value(params: Params, key: str) -> object:
    value: Any = params.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
