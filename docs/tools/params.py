"""The page of all parameters, from the models that check params.yaml."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from kinds import kind_of
from tables import code, table

from lever_plus.config.file import load_params
from lever_plus.config.params import Params
from lever_plus.config.reward import MODES, OPTIONS
from lever_plus.config.settings import From
from lever_plus.files.yaml_files import read_yaml

ROOT: Final = Path(__file__).parents[2]
OPENING: Final = """# Parameters

Everything that `params.yaml` may hold: all its parameters, and those of the other kinds of a
section (a VLM behind a server, files of your own). The default is the value in the repository's
file. A wrong value, a text where a number belongs (write `1.0e-4`, not `1e-4`) or an unknown key
stops a command before it does anything. `lever-plus params check` only checks; `lever-plus params
overlay PRESET` merges some settings into the file. What must hold between parameters is checked
too, and the error says it.

"Stages" are those whose results depend on a parameter: when it changes, `dvc repro` runs them
again, and the stages after them whose files change with them. A parameter that changes no result
says so, with the stages that read it in brackets.
"""
HEADS: Final = ("parameter", "default", "type and range", "meaning")
STAGES: Final = (
    *("prepare", "in_context", "embed", "pool", "sft_data", "sft"),
    *("rl_data", "rce", "grpo", "evaluate", "report"),
)
MODULES: Final = {"rce": "offline"}
"""Modules of stages that have another name."""
LONGEST: Final = 60
"""Letters of a default that has room in a table."""


class Leaf(NamedTuple):
    """A parameter.

    Attributes:
        key: Its place in params.yaml, such as "grpo.kl_beta"; `<...>` is a name that varies.
        kind: What it may be, and its range.
        meaning: Its description.
    """

    key: str
    kind: str
    meaning: str


class Part(NamedTuple):
    """A section of the page: a section of params.yaml, or one kind of it."""

    title: str
    opening: str
    leaves: list[Leaf]


def page() -> str:
    """Return the page."""
    defaults = _flat(read_yaml(ROOT / "params.yaml", "it is in the repository"))
    read = Readers()
    parts = [OPENING]
    for title, opening, leaves in sections():
        rows = [
            [code(leaf.key), _default(defaults, leaf.key, title), leaf.kind, leaf.meaning]
            for leaf in leaves
        ]
        readers = [read.of(leaf.key) for leaf in leaves]
        parts += ["###" + f" {title}" if "." in title or "," in title else f"## {title}", ""]
        parts += [opening, ""] if opening else []
        if len(set(readers)) == 1:
            parts += [f"Stages: {readers[0]}.", "", table(HEADS, rows), ""]
        elif rows:
            rows = [[*row, reader] for row, reader in zip(rows, readers, strict=True)]
            parts += [table([*HEADS, "stages"], rows), ""]
        if title == "reward":
            parts += _modes()
    return "\n".join(parts).rstrip() + "\n"


def _modes() -> list[str]:
    """Return a table of the modes, which are names for some weights."""
    rows = []
    for mode, terms in MODES.items():
        weights = [
            f"{'twice ' if multiple == 2 else ''}{code(weight)} is the weight of {code(term)}"
            for weight, each in terms.items()
            for term, multiple in each.items()
        ]
        options = [
            f"`{name}`: " + " or ".join(code(written(value)) for value in choices)
            for name, choices in OPTIONS.get(mode, {}).items()
        ]
        rows.append([code(mode), "; ".join(weights + options)])
    opening = (
        "Instead of weights, `reward.mode` with the settings of that mode, which become weights:"
    )
    return [opening, "", table(["mode", "its settings, and what they weigh"], rows), ""]


def sections() -> list[Part]:
    """Return the sections of the page, in the order of params.yaml."""
    schema = Params.model_json_schema()
    known = schema["$defs"]
    top = [
        _leaf(key, each, known)
        for key, each in schema["properties"].items()
        if _is_leaf(each, known)
    ]
    found = [Part("Seeds and threads", "", top)]
    for key, each in schema["properties"].items():
        if not _is_leaf(each, known):
            found += _parts(key, each, known)
    return found


def _parts(key: str, section: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Part]:
    """Yield a section, or one part for each of its kinds, then the kinds of what it holds."""
    members = _members(section, known)
    if len(members) > 1:
        yield Part(key, _other(section), [])
    for member in members:
        kind = member["properties"].get("kind", {}).get("const")
        title = f"{key}, kind: {kind}" if len(members) > 1 else key
        leaves: list[Leaf] = []
        later: list[tuple[str, Any]] = []
        for name, each in member["properties"].items():
            if len(_members(each, known)) > 1 and "kind" in _members(each, known)[0]["properties"]:
                later.append((f"{key}.{name}", each))
            else:
                leaves += _leaves(f"{key}.{name}", each, known)
        yield Part(title, _opening(member, section), leaves)
        for name, each in later:
            yield from _parts(name, each, known)


def _leaves(key: str, each: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Leaf]:
    if _is_leaf(each, known):
        yield _leaf(key, each, known)
        return
    for member in _members(each, known):
        for name, inner in member["properties"].items():
            yield from _leaves(f"{key}.{name}", inner, known)


def _opening(member: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    text = inspect.cleandoc(member.get("description", ""))
    null = _other(section) if {"type": "null"} in section.get("anyOf", []) else ""
    return "\n\n".join(part for part in (text, null) if part)


def _other(section: Mapping[str, Any]) -> str:
    text = str(section.get("description", ""))
    return text[:1].upper() + text[1:] + "." if text else "One of these kinds:"


def _members(each: Mapping[str, Any], known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sections that a value may be; none of a leaf."""
    options = each.get("oneOf") or each.get("anyOf") or [each]
    named = [known[o["$ref"].rpartition("/")[2]] for o in options if "$ref" in o]
    return [each for each in named if "properties" in each]


def _is_leaf(each: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    return not _members(each, known)


def _leaf(key: str, each: Mapping[str, Any], known: Mapping[str, Any]) -> Leaf:
    return Leaf(key, kind_of(each, known), str(each.get("description", "")))


def _flat(values: Any, place: str = "") -> dict[str, Any]:
    """Return {key: value} of a file, of sections and of leaves."""
    found = {}
    for name, value in values.items():
        found[place + name] = value
        if isinstance(value, dict):
            found |= _flat(value, f"{place}{name}.")
    return found


def _default(defaults: Mapping[str, Any], key: str, title: str) -> str:
    section, _, kind = title.partition(", kind: ")
    if kind and defaults.get(f"{section}.kind") != kind:
        return ""
    if key in defaults:
        text = written(defaults[key])
        return code(text) if len(text) <= LONGEST else "see params.yaml"
    field: Any = load_params(ROOT / "params.yaml")
    for name in key.split("."):
        if not hasattr(field, name):
            return ""
        field = getattr(field, name)
    return code(written(field))


def written(value: Any) -> str:
    """Return a value as YAML has it, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else '""'


class Readers:
    """Which stages read a parameter, by what they declare."""

    def __init__(self) -> None:
        """Read every stage's declaration."""
        self._read = {stage: _declared(stage) for stage in STAGES}

    def of(self, key: str) -> str:
        """Return the stages whose results depend on a parameter; in brackets who else reads it."""
        counts = [stage for stage in STAGES if _covers(self._read[stage], key, free=False)]
        reads = [stage for stage in STAGES if _covers(self._read[stage], key, free=True)]
        if counts:
            return ", ".join(counts)
        return "no result" + (f" ({', '.join(reads)})" if reads else "")


def _declared(stage: str) -> Sequence[From]:
    module = import_module(f"lever_plus.pipeline.{MODULES.get(stage, stage)}")
    fields = module.Settings.model_fields.items()
    return [
        next((part for part in field.metadata if isinstance(part, From)), From(name))
        for name, field in fields
    ]


def _covers(declared: Sequence[From], key: str, *, free: bool) -> bool:
    return any(
        origin.free == free
        and (
            key == origin.key
            or key.startswith(f"{origin.key}.")
            or origin.key.startswith(f"{key}.")
        )
        for origin in declared
    )
