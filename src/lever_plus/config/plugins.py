"""Finds the objects that settings name: built in, from an installed package, or the user's own."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from types import ModuleType
from typing import Any

from lever_plus.errors import UserError


def load_object(name: str, what: str) -> Callable[..., Any]:
    """Import what a setting names as "package.module:name".

    Args:
        name: A module and, after the colon, a name in it; names may be dotted.
        what: The setting, such as "reward.function"; errors begin with it.

    Raises:
        UserError: The name has another form, the module cannot be imported, or it has no such name,
            or what it has under that name cannot be called.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute) or module.startswith("."):
        raise UserError(f"{what}: {name} does not have the form package.module:name.")
    try:
        found = attrgetter(attribute)(_imported(module, what))
    except ImportError as error:
        raise UserError(
            f"{what}: {module} cannot be imported ({error}): install its package, or put its "
            "folder into PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise UserError(f"{what}: {module} has no {attribute} ({error}).") from error
    if not callable(found):
        raise UserError(
            f"{what}: {name} is of type {type(found).__name__}, not a function or a class."
        )
    return found  # type: ignore[no-any-return]


def _imported(module: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise
    # Importing a module may raise anything; a script may even end the process.
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise UserError(
            f"{what}: {module} fails while it is imported ({kind}: {error}): correct it."
        ) from error


def find(group: str, name: str, builtin: Mapping[str, Any], *, what: str) -> Any:
    """Return the object that a name stands for.

    Args:
        group: The group of entry points of installed packages, such as "lever_plus.rewards"; they
            are looked up after the built-in objects.
        name: The name of a built-in object or of an entry point, or "package.module:name".
        builtin: The built-in objects by name.
        what: The setting, such as "reward.function"; errors begin with it.

    Raises:
        UserError: Nothing has that name, two packages offer it, or it cannot be loaded.
    """
    if name in builtin:
        return builtin[name]
    offered = entry_points(group=group)
    targets = {point.value: point for point in offered if point.name == name}
    if len(targets) > 1:
        raise UserError(
            f"{what}: several packages offer {name} ({', '.join(sorted(targets))}): name one of "
            "these instead."
        )
    if targets:
        return load_object(_target(*targets.values()), what)
    if ":" in name:
        return load_object(name, what)
    known = sorted({*builtin, *(point.name for point in offered)})
    raise UserError(
        f"{what}: there is no {name}: choose "
        + (f"one of {', '.join(known)}, or " if known else "")
        + "an object of your own, as package.module:name."
    )


def _target(point: EntryPoint) -> str:
    return f"{point.module}:{point.attr}"
