"""Names that become files and folders: variants, methods, schedules, images, parts of a store."""

import re
from collections.abc import Collection, Iterable
from string import Formatter
from typing import Annotated, Final

from pydantic import AfterValidator

from lever_plus.errors import UserError

LONGEST: Final = 100
SHIPPED: Final = "shipped:"
"""In front of the name of a model that is in the package, where a setting names a folder."""
_FORMAT = re.compile(r"(0?[1-9][0-9]?)?d?", re.ASCII)
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


def check_image_name(template: str, what: str) -> str:
    """Return a template of images' file names; what else it might be is refused.

    Args:
        template: Such as "COCO_val2014_{image_id:012d}.jpg" or "{image_id}/frame.png": a path
            inside the images' folder in which `{image_id}` is the only field, with a width at most.
        what: Whose template it is: "--image-name".

    Raises:
        UserError: It is another text.
    """
    if why := _wrong_image_name(template):
        raise UserError(f"{what} {template!r}: {why}.")
    return template


def _wrong_image_name(template: str) -> str:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        return f"{error}; write {{{{ and }}}} for braces that are meant"
    text = "".join(literal for literal, *_ in pieces)
    fields = [(field, form, how) for _, field, form, how in pieces if field is not None]
    if not fields:
        return "image_name must hold {image_id}, such as {image_id:012d}.jpg"
    for field, form, how in fields:
        if field != "image_id" or how is not None or not _FORMAT.fullmatch(form or ""):
            return (
                "image_name can hold {image_id} or, in twelve digits, {image_id:012d}, and no "
                "other field"
            )
    # The id is a number: no part of the path that it fills is "..".
    filled = "".join(literal + ("" if f is None else "1") for literal, f, *_ in pieces)
    parts = filled.split("/")
    if "\\" in text or any(part in ("", ".", "..") for part in parts):
        return "image_name must stay inside the folder of the images, without .. or a leading /"
    if not text.isprintable():
        return "image_name has a character that can't be printed"
    return ""


def _image_name(template: str) -> str:
    if why := _wrong_image_name(template):
        raise ValueError(f"{why}, not {template!r}")
    return template


ImageName = Annotated[str, AfterValidator(_image_name)]
"""A template of images' file names in a model of params.yaml."""
