"""The variants of `ablations/variants.yaml`: what each changes in params.yaml, and what it asks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from lever_plus.config.base import Section
from lever_plus.config.file import merged_params
from lever_plus.config.names import GRPO, RCE, SFT
from lever_plus.config.params import Params
from lever_plus.errors import UserError

VARIANTS: Final = Path("ablations") / "variants.yaml"
CHAIN: Final = ("sft_data", SFT, "rl_data", RCE, GRPO)
"""Stages that a variant may run anew, each after those before it."""


class Variant(Section):
    """A variant."""

    asks: str = Field(description="the table that it stands in: what is compared there")
    methods: list[str] = Field(min_length=1, description="trained methods that are evaluated")
    versus: str = Field(
        description="what differences are paired with: <variant>/<method>, or <variant> for the "
        "same method there; `default` is the pipeline"
    )
    preset: str | None = Field(default=None, description="file in presets/, applied first")
    anew: Literal["sft_data", "sft", "rl_data", "rce", "grpo"] | None = Field(
        default=None, description="run anew from this stage, though nothing changes before it"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="changes to params.yaml")

    def compared(self, method: str) -> str:
        """Return the <variant>/<method> that one of its methods is compared with."""
        return self.versus if "/" in self.versus else f"{self.versus}/{method}"


class Variants(Section):
    """The whole file."""

    seeds: list[int] = Field(min_length=1, description="training seeds of every variant")
    variants: dict[str, Variant]


def has_variants(root: Path) -> bool:
    """Return whether a project has a file of variants."""
    return (root / VARIANTS).is_file()


def read_variants(root: Path) -> Variants:
    """Read the file of a project; UserError says what is wrong with it."""
    path = root / VARIANTS
    if not path.is_file():
        raise UserError(f"{path} is missing: run from the project's root folder.")
    try:
        return Variants.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def find_variant(name: str, root: Path) -> Variant:
    """Return one variant; UserError says which there are."""
    variants = read_variants(root).variants
    if name not in variants:
        raise UserError(f"{VARIANTS} has no variant {name}: it has {', '.join(variants)}.")
    return variants[name]


def params_of(variant: Variant, root: Path) -> Params:
    """Return params.yaml with a variant's changes."""
    preset = root / "presets" / f"{variant.preset}.yaml" if variant.preset else None
    return merged_params(root / "params.yaml", preset, variant.params)


def stages_to_run(variant: Variant, base: Params, changed: Params, root: Path) -> list[str]:
    """Return the stages that a variant runs anew: those that DVC would, up to what is evaluated.

    A stage runs if a parameter that dvc.yaml names for it differs, or if one before it runs.

    Raises:
        UserError: A stage before the training chain would have to run: data and models are the
            same for all variants.
    """
    pipeline = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    touched = [
        stage
        for stage, entry in pipeline.items()
        if any(_value(base, key) != _value(changed, key) for key in entry["params"])
    ]
    early = [stage for stage in touched if stage not in (*CHAIN, "evaluate", "report")]
    if early:
        raise UserError(f"this variant changes stage {early[0]}, which all variants share.")
    if variant.anew:
        touched.append(variant.anew)
    firsts = [CHAIN.index(stage) for stage in touched if stage in CHAIN]
    if not firsts:
        raise UserError("this variant changes nothing that is trained.")
    methods = set(variant.methods)
    last = GRPO if GRPO in methods else SFT if methods == {SFT} else RCE
    return list(CHAIN[min(firsts) : CHAIN.index(last) + 1])


def _value(params: Params, key: str) -> object:
    value: Any = params.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
