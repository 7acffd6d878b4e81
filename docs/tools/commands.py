"""The page of all commands, from the command line itself."""

import inspect
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

import typer
from tables import code, table

from lever_plus.cli.main import app

OPENING: Final = """# Commands

Every command prints this help itself: `lever-plus COMMAND --help`. Run commands in the project's
root folder: they read `params.yaml` there. An error that you can mend is one line without a
traceback, and the exit code is 1.
"""
NAMES: Final = {int: "whole number", float: "number", str: "text", Path: "path"}


def page() -> str:
    """Return the page."""
    found = list(commands())
    rows = [[f"[`lever-plus {name}`](#{_anchor(name)})", first(c.help)] for name, c in found]
    parts = [OPENING, table(["command", "what it does"], rows)]
    for name, command in found:
        parts += [
            "",
            f"## lever-plus {name}",
            "",
            _paragraphs(command.help),
            "",
            _usage(name, command),
        ]
        options = [_row(parameter) for parameter in shown(command)]
        if options:
            parts += ["", table(["argument or option", "type", "default", "meaning"], options)]
    return "\n".join(parts) + "\n"


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("store stat", command) of every command that is not hidden."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        whole = f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, whole)
        elif not command.hidden:
            yield whole, command


def shown(command: Any) -> list[Any]:
    """Return the arguments and options of a command that are not hidden."""
    return [each for each in command.params if not each.hidden]


def spelled(parameter: Any) -> str:
    """Return an option as it is written, an argument in capitals."""
    if parameter.opts[0].startswith("-"):
        return ", ".join([*parameter.opts, *parameter.secondary_opts])
    return str(parameter.opts[0]).upper()


def first(text: str) -> str:
    """Return the first paragraph of a help text, on one line."""
    return " ".join(text.partition("\n\n")[0].split())


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n"))


def _anchor(name: str) -> str:
    return f"lever-plus-{name}".replace(" ", "-")


def _usage(name: str, command: Any) -> str:
    named = [
        spelled(each) + ("..." if _many(each) else "") for each in shown(command) if _bare(each)
    ]
    words = ["lever-plus", name]
    words += [word if _needed(word, command) else f"[{word}]" for word in named]
    words += [
        f"{each.opts[0]} {each.name.upper()}"
        for each in shown(command)
        if each.required and not _bare(each)
    ]
    if any(not each.required and not _bare(each) for each in shown(command)):
        words.append("[OPTIONS]")
    return code(" ".join(words))


def _needed(word: str, command: Any) -> bool:
    return any(
        spelled(each) == word.removesuffix("...") and each.required for each in shown(command)
    )


def _bare(parameter: Any) -> bool:
    """Whether it is an argument."""
    return not parameter.opts[0].startswith("-")


def _many(parameter: Any) -> bool:
    return get_origin(parameter.type_descriptor.annotation) is list


def _row(parameter: Any) -> list[str]:
    default = "required" if parameter.required else _default(parameter.default)
    return [code(spelled(parameter)), _type(parameter), default, parameter.help or ""]


def _default(value: Any) -> str:
    if value is None or value is False:
        return ""
    return code(str(value.value if isinstance(value, Enum) else value))


def _type(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(each for each in get_args(kind) if each is not types.NoneType)
    if get_origin(kind) is list:
        return f"{NAMES[get_args(kind)[0]]}, one or more"
    if kind is bool:
        return "flag"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(code(str(each.value)) for each in kind)
    low, high = parameter.min, parameter.max
    limits = {
        (True, True): f", {low} to {high}",
        (True, False): f", {low} or more",
        (False, True): f", at most {high}",
        (False, False): "",
    }
    return NAMES[kind] + limits[low is not None, high is not None]
