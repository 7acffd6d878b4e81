"""The pages of `reference/api/`: the public face, then a page for each room, for mkdocstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tables import table

PACKAGE: Final = Path(__file__).parents[2] / "src" / "lever_plus"
ON_PARAMS: Final = "config"
"""The room whose fields are parameters, which have a page of their own."""
WITHOUT_FIELDS: Final = "    options:\n      show_if_no_docstring: false"
FACE: Final = "index.md"
OPENING: Final = """# Python

The public face is what `import lever_plus` offers. The package has rooms, and each has a page with
every public module, class, function and method. [Architecture](../../architecture.md) says what the
rooms are for; a room imports only rooms that are listed there before it.
"""


def pages() -> dict[str, str]:
    """Return {file name: text} of every page."""
    return {FACE: _face(), **{f"{room}.md": _room(room) for room in rooms()}}


def rooms() -> list[str]:
    """Return the rooms, in alphabetical order."""
    return sorted({_room_of(path) for path in _files()})


def _files() -> Iterator[Path]:
    return (p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py")


def _room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _says_something(path: Path) -> bool:
    """An `__init__` file that holds its docstring alone says what the room's page says first."""
    return path.name != "__init__.py" or len(_tree(path).body) > 1


def _summary(path: Path) -> str:
    return (ast.get_docstring(_tree(path)) or "").strip()


def _room(room: str) -> str:
    files = [path for path in _files() if _room_of(path) == room]
    opening = _summary(files[0])
    modules = [f"::: {_name(path)}" for path in files if _says_something(path)]
    if room == ON_PARAMS:
        modules = [f"{module}\n{WITHOUT_FIELDS}" for module in modules]
    return "\n\n".join([f"# {room}", opening, *modules]) + "\n"


def _face() -> str:
    """Return the page of what `import lever_plus` offers: each name by the module that has it."""
    path = PACKAGE / "__init__.py"
    places: dict[str, str] = next(
        ast.literal_eval(statement.value)
        for statement in _tree(path).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_PLACES"
    )
    rows = [
        [f"[`{name}`]({place.partition('.')[0]}.md#lever_plus.{place}.{name})", _says(place, name)]
        for name, place in sorted(places.items(), key=lambda item: item[0].lower())
    ]
    names = table(["`from lever_plus import ...`", "what it is"], rows)
    others = ", ".join(f"[{room}]({room}.md)" for room in rooms())
    return "\n".join([OPENING, names, "", "All rooms: " + others + ".", ""])


def _says(place: str, name: str) -> str:
    """Return the first sentence about a name of the public face."""
    module = PACKAGE.joinpath(*place.split("."))
    files = [module.with_suffix(".py"), *sorted(module.glob("*.py"))]
    for path in files:
        if path.is_file():
            for node in _tree(path).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                    return (ast.get_docstring(node) or "").partition("\n\n")[0]
    raise LookupError(f"lever_plus.{place} has no {name}")
