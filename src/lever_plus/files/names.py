"""Names that become files and folders: variants, methods, schedules, parts of a store."""

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Final

from pydantic import AfterValidator

from lever_plus.errors import UserError

LONGEST: Final = 100
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)


def check_name(name: str, what: str, taken: Collection[str] = ()) -> str:
    """Return a name that can be a file's or a folder's; what else it might be is refused.

    Args:
        name: Letters, digits and `._-`, starting with neither dot nor dash, 100 at most.
        what: Whose name it is: "ablations/variants.yaml: variant".
        taken: Names that mean something else, upper and lower case alike.

    Raises:
        UserError: It is another text, or one of those taken.
    """
    if why := _wrong(name, taken):
        raise UserError(f"{what} {name!r}: {why}.")
    return name


def _wrong(name: str, taken: Collection[str] = ()) -> str:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        return f"a name has letters, digits and ._-, no dot or dash in front, {LONGEST} at most"
    if name.casefold() in {each.casefold() for each in taken}:
        return "this name is taken: choose another"
    return ""


def check_apart(names: Iterable[str], taken: Collection[str] = ()) -> None:
    """Refuse names that mean something else, or of which some file systems would make one.

    Args:
        names: Of things that lie side by side.
        taken: Names that mean something else, upper and lower case alike.

    Raises:
        ValueError: Names one of them, for a model of a file.
    """
    known = {name.casefold(): f"{name!r} means something else" for name in taken}
    for name in names:
        if why := known.get(name.casefold()):
            raise ValueError(f"{name!r}: {why}: choose another name")
        known[name.casefold()] = f"there is {name!r} beside it, and upper or lower case is no name"


def _name(name: str) -> str:
    if why := _wrong(name):
        raise ValueError(f"{name!r}: {why}")
    return name


Name = Annotated[str, AfterValidator(_name)]
"""A name in a model of params.yaml or of another file."""
