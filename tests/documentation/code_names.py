"""The public names of the package, by its source: what the documentation must have."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tiny_world import ROOT

PACKAGE = ROOT / "src" / "lever_plus"


class Found(NamedTuple):
    """A module, class, function or method.

    Attributes:
        name: With its module, such as "lever_plus.selectors.learned.load_selector".
        subpackage: The first part after the package.
        documented: Whether it has a docstring.
    """

    name: str
    subpackage: str
    documented: bool


def public_names() -> list[Found]:
    """Return all names without an underscore, of all subpackages."""
    return [found for path in sorted(PACKAGE.rglob("*.py")) for found in _of_file(path)]


def _of_file(path: Path) -> Iterator[Found]:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    subpackage = parts[1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if subpackage != "__init__":
        yield from _inside(tree, module, subpackage)


def _inside(node: ast.Module | ast.ClassDef, place: str, subpackage: str) -> Iterator[Found]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if each.name.startswith("_"):
                continue
            yield Found(f"{place}.{each.name}", subpackage, bool(ast.get_docstring(each)))
            if isinstance(each, ast.ClassDef):
                yield from _inside(each, f"{place}.{each.name}", subpackage)
