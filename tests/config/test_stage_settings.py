"""A stage gets the settings that it declares, and no others; dvc.yaml lists the same."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from lever_plus.cli.stages import params_read
from lever_plus.config.base import Section
from lever_plus.config.file import load_params, load_with_preset
from lever_plus.config.params import Params
from lever_plus.config.settings import From, keys_read, settings_of
from lever_plus.pipeline import (
    embed,
    evaluate,
    grpo,
    in_context,
    offline,
    pool,
    prepare,
    report,
    rl_data,
    sft,
    sft_data,
)
from tiny_world import ROOT

SETTINGS = {
    "prepare": prepare.Settings,
    "in_context": in_context.Settings,
    "embed": embed.Settings,
    "pool": pool.Settings,
    "sft_data": sft_data.Settings,
    "sft": sft.Settings,
    "rl_data": rl_data.Settings,
    "rce": offline.Settings,
    "grpo": grpo.Settings,
    "evaluate": evaluate.Settings,
    "report": report.Settings,
}
PARAMS = {
    "params": load_params(ROOT / "params.yaml"),
    **{
        path.stem: load_with_preset(ROOT / "params.yaml", path)
        for path in sorted((ROOT / "presets").glob("*.yaml"))
    },
}
"""params.yaml, and what every preset makes of it."""


class Inner(Section):
    """A section."""

    size: int
    where: str


class Other(Section):
    """Another kind of the section, which lacks its fields."""

    size: int


class Whole(Section):
    """All parameters."""

    seed: int
    inner: Inner | Other
    unread: int


class Some(Section):
    """What a stage reads."""

    seed: int
    inner: Inner | Other
    count: Annotated[int, From("inner.size")]
    place: Annotated[str | None, From("inner.where", free=True)]


WHOLE = Whole(seed=3, inner=Inner(size=4, where="here"), unread=5)


def test_a_field_is_the_part_of_its_name_or_the_one_that_it_names() -> None:
    found = settings_of(Some, WHOLE)
    assert dict(found) == {"seed": 3, "inner": WHOLE.inner, "count": 4, "place": "here"}
    assert found.inner is WHOLE.inner
    with pytest.raises(AttributeError, match="unread"):
        getattr(found, "unread")  # noqa: B009


def test_a_section_of_another_kind_lacks_some_fields() -> None:
    found = settings_of(Some, WHOLE.model_copy(update={"inner": Other(size=6)}))
    assert (found.count, found.place) == (6, None)


def test_what_changes_no_result_is_no_key() -> None:
    assert keys_read(Some) == ["seed", "inner", "inner.size"]


def test_equal_settings_are_equal_whatever_is_not_read() -> None:
    other = WHOLE.model_copy(update={"unread": 9})
    assert settings_of(Some, WHOLE) == settings_of(Some, other)
    assert settings_of(Some, WHOLE) != settings_of(Some, WHOLE.model_copy(update={"seed": 9}))


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("stage", SETTINGS)
def test_every_stage_gets_valid_settings(stage: str, name: str) -> None:
    """`settings_of` checks no types: this finds fields of another type than their source."""
    made = settings_of(SETTINGS[stage], PARAMS[name])
    assert SETTINGS[stage].model_validate(dict(made)) == made


def sources(kind: type[Section]) -> list[str]:
    """Return the keys of all fields, including those that change no result."""
    return [
        next((part.key for part in field.metadata if isinstance(part, From)), name)
        for name, field in kind.model_fields.items()
    ]


def resolves(params: BaseModel, key: str) -> bool:
    value: Any = params
    for part in key.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("stage", SETTINGS)
def test_every_source_is_a_parameter_of_some_kind(stage: str) -> None:
    """A mistyped key would be read as None."""
    for key in sources(SETTINGS[stage]):
        assert any(resolves(params, key) for params in PARAMS.values()), key


def test_where_answers_are_kept_is_free_wherever_it_is_read() -> None:
    readers = {stage for stage, kind in SETTINGS.items() if "scoring" in sources(kind)}
    asking = "in_context sft_data sft rl_data rce grpo evaluate"
    assert readers == set(asking.split())
    assert all("scoring" not in keys_read(SETTINGS[stage]) for stage in readers)
    assert "scoring" in Params.model_fields


def test_dvc_yaml_lists_what_the_stages_declare() -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(SETTINGS)
    for stage, entry in stages.items():
        assert entry["params"] == params_read(stage) == keys_read(SETTINGS[stage]), stage
