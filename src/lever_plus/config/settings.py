"""The settings of one stage: the sections that it reads, and no others.

A stage declares a `Section` of its own. Each field is the part of params.yaml of the same name, or
the one that `From` names. So a stage's code depends only on the sections that it reads, the
stage's `params` in dvc.yaml are written from the declaration, and nothing else can be read.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from lever_plus.config.base import Section

Settings = TypeVar("Settings", bound=Section)


@dataclass(frozen=True)
class From:
    """Where in params.yaml a field of a stage's settings comes from.

    Attributes:
        key: The key in params.yaml, such as "data.rl_queries".
        free: Whether it changes no result (where something is kept, how fast it is computed), so
            that DVC need not run the stage again when it changes.
    """

    key: str
    free: bool = False


def settings_of(kind: type[Settings], params: BaseModel) -> Settings:
    """Return a stage's settings, taken from params that were checked."""
    values = {name: _value(params, origin.key) for name, origin in _origins(kind).items()}
    made: Settings = kind.model_construct(**values)  # type: ignore[assignment]
    return made


def keys_read(kind: type[Section]) -> list[str]:
    """Return the keys of params.yaml that a stage's results depend on, as dvc.yaml lists them."""
    return [origin.key for origin in _origins(kind).values() if not origin.free]


def _origins(kind: type[Section]) -> dict[str, From]:
    found = {}
    for name, field in kind.model_fields.items():
        named = [part for part in field.metadata if isinstance(part, From)]
        found[name] = named[0] if named else From(name)
    return found


def _value(params: BaseModel, key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        # A section of another kind lacks some fields: a VLM behind a server has no path.
        value = getattr(value, part, None)
    return value
