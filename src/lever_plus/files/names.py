"""Checks names that become names of files and folders: of variants, methods, images and others."""

import re
from collections.abc import Collection, Iterable
from string import Formatter
from typing import Annotated, Final

from pydantic import AfterValidator

from lever_plus.errors import UserError

LONGEST: Final = 100
"""Characters of a name."""
SHIPPED: Final = "shipped:"
"""Prefix of a model in the package, where a setting otherwise names a folder: `shipped:vlm`."""
_FORMAT = re.compile(r"(0?[1-9][0-9]?)?d?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)


def check_name(name: str, what: str, taken: Collection[str] = ()) -> str:
    """Return a name after checking that a file or a folder can have it.

    Args:
        name: At most 100 letters, digits and `._-`; it starts with neither a dot nor a dash.
        what: Whose name it is, for the error: "ablations/variants.yaml: variant".
        taken: Names that already have a meaning; upper and lower case are not told apart.

    Raises:
        UserError: The name has another form, or is one of those taken.
    """
    if why := _wrong(name, taken):
        raise UserError(f"{what} {name!r}: {why}.")
    return name


def _wrong(name: str, taken: Collection[str] = ()) -> str:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        return (
            f"a name has at most {LONGEST} letters, digits and ._-, and does not start with a dot "
            "or a dash"
        )
    if name.casefold() in {each.casefold() for each in taken}:
        return "this name is taken: choose another"
    return ""


def check_apart(names: Iterable[str], taken: Collection[str] = ()) -> None:
    """Refuse names that are taken, and names that differ in nothing but upper and lower case.

    Some file systems would make one file of the latter.

    Args:
        names: Names of things that lie side by side.
        taken: Names that already have a meaning; upper and lower case are not told apart.

    Raises:
        ValueError: Names the first that is refused; pydantic makes it part of a model's error.
    """
    reserved, known = {name.casefold(): name for name in taken}, dict[str, str]()
    for name in names:
        folded = name.casefold()
        why = ""
        if folded in reserved:
            why = f"{reserved[folded]!r} is reserved"
        elif folded in known:
            case = f"it differs from {known[folded]!r} only in upper and lower case"
            why = "it occurs twice" if name == known[folded] else case
        if why:
            raise ValueError(f"{name!r}: {why}: choose another name")
        known[folded] = name


def _name(name: str) -> str:
    if why := _wrong(name):
        raise ValueError(f"{name!r}: {why}")
    return name


Name = Annotated[str, AfterValidator(_name)]
"""A name in a model of params.yaml or of another file."""


def check_image_name(template: str, what: str) -> str:
    """Return a template of image file names after checking it.

    Args:
        template: A path inside the images' folder, such as "COCO_val2014_{image_id:012d}.jpg" or
            "{image_id}/frame.png". Its only field is `{image_id}`, which may have a width.
        what: Whose template it is, for the error: "--image-name".

    Raises:
        UserError: The template has another form.
    """
    if why := _wrong_image_name(template):
        raise UserError(f"{what} {template!r}: {why}.")
    return template


def _wrong_image_name(template: str) -> str:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        return f"{error}; write {{{{ and }}}} for braces in the name itself"
    text = "".join(literal for literal, *_ in pieces)
    fields = [(field, form, how) for _, field, form, how in pieces if field is not None]
    if not fields:
        return "image_name must hold {image_id}, such as {image_id:012d}.jpg"
    for field, form, how in fields:
        if field != "image_id" or how is not None or not _FORMAT.fullmatch(form or ""):
            return (
                "image_name can hold {image_id}, or {image_id:012d} for twelve digits, and no "
                "other field"
            )
    # The id is a number, so any number shows whether a part of the path is "..".
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
"""A template of image file names in a model of params.yaml."""
