"""The pages of `reference/api/` for mkdocstrings: the public face, then one for each subpackage."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tables import table

PACKAGE: Final = Path(__file__).parents[2] / "src" / "lever_plus"
ON_PARAMS: Final = "config"
"""The subpackage whose fields are parameters, which have a page of their own."""
WITHOUT_FIELDS: Final = "    options:\n      show_if_no_docstring: false"
FACE: Final = "index.md"
OPENING: Final = """# Python

The public face is what `import lever_plus` offers. The package consists of subpackages. Each has a
page with every public module, class, function and method; the
[architecture](../../architecture.md#subpackages) says what each is for.
"""


def pages() -> dict[str, str]:
    """Return {file name: text} of every page."""
    return {FACE: _face(), **{f"{name}.md": _subpackage(name) for name in subpackages()}}


def subpackages() -> list[str]:
    """Return the subpackages, and `errors`, in alphabetical order."""
    return sorted({_subpackage_of(path) for path in _files()})


def _files() -> Iterator[Path]:
    return (p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py")


def _subpackage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _says_something(path: Path) -> bool:
    """An `__init__` file with nothing but a docstring says what its page begins with."""
    return path.name != "__init__.py" or len(_tree(path).body) > 1


def _summary(path: Path) -> str:
    return (ast.get_docstring(_tree(path)) or "").strip()


def _subpackage(name: str) -> str:
    files = [path for path in _files() if _subpackage_of(path) == name]
    opening = _summary(files[0])
    modules = [f"::: {_name(path)}" for path in files if _says_something(path)]
    if name == ON_PARAMS:
        modules = [f"{module}\n{WITHOUT_FIELDS}" for module in modules]
    return "\n\n".join([f"# {name}", opening, *modules]) + "\n"


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
    others = ", ".join(f"[{name}]({name}.md)" for name in subpackages())
    return "\n".join([OPENING, names, "", "All subpackages: " + others + ".", ""])


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
