"""The subpackages: imports run downwards only, and files stay small."""

import ast
import re
from pathlib import Path

import pytest

from tiny_world import ROOT

PACKAGE = ROOT / "src" / "lever_plus"
SUBPACKAGES = [
    "errors",
    "files",
    "config",
    "data",
    "metric",
    "hub",
    "vlm",
    "features",
    "policy",
    "tracking",
    "selectors",
    "house_words",
    "training",
    "evaluation",
    "hosts",
    "report",
    "pipeline",
    "experiments",
    "bench",
    "cli",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def subpackages_imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert "lever_plus" not in names, f"{path} imports the public face, above all subpackages"
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "lever_plus" and len(part) > 1}


def test_a_file_imports_only_subpackages_listed_before_its_own() -> None:
    below: dict[str, list[str]] = {}
    for path in FILES:
        subpackage = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if subpackage == "__init__":
            continue
        own = SUBPACKAGES.index(subpackage)
        wrong = [each for each in subpackages_imported(path) if SUBPACKAGES.index(each) > own]
        if wrong:
            below[str(path.relative_to(PACKAGE))] = wrong
    assert below == {}


def test_a_file_has_a_docstring_and_at_most_300_lines() -> None:
    texts = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in FILES}
    assert len(texts) > 300
    assert [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []
    assert [name for name, text in texts.items() if text.count("\n") > 300] == []


def test_the_threads_of_torch_are_set_in_one_place() -> None:
    setting = [p for p in FILES if "set_num_threads" in p.read_text(encoding="utf-8")]
    assert setting == [PACKAGE / "hub" / "threads.py"]


def test_image_files_are_opened_in_one_place() -> None:
    """So every part of the code sees the same pixels."""
    opening = [p for p in FILES if "Image.open(" in p.read_text(encoding="utf-8")]
    assert opening == [PACKAGE / "data" / "images.py"]


FACE = PACKAGE / "__init__.py"
INITS = [path for path in FILES if path.name == "__init__.py"]
LAZY = """
from importlib import import_module
from typing import TYPE_CHECKING, Any
if TYPE_CHECKING
_PLACES
__all__
def __getattr__
def __dir__
"""


def outline(statement: ast.stmt) -> str:
    """Return what a statement is about: an import, a condition, a name, a function."""
    match statement:
        case ast.FunctionDef():
            return f"def {statement.name}"
        case ast.If(orelse=[]) if all(isinstance(n, ast.ImportFrom) for n in statement.body):
            return f"if {ast.unparse(statement.test)}"
        case ast.Assign():
            return ", ".join(map(ast.unparse, statement.targets))
        case ast.Expr(value=ast.Constant()):
            return ""
        case _:
            return ast.unparse(statement)


def test_the_public_face_is_lazy() -> None:
    """Modules are imported when their names are used; else only type checkers see the imports."""
    body = ast.parse(FACE.read_text(encoding="utf-8")).body
    assert [line for line in map(outline, body) if line] == LAZY.split("\n")[1:-1]


@pytest.mark.parametrize("path", [path for path in INITS if path != FACE], ids=str)
def test_an_init_file_holds_a_docstring_and_names_at_most(path: Path) -> None:
    """The dependency lists of dvc.yaml leave `__init__` files out, so they must do nothing."""
    _, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest)
    names = [ast.unparse(t) for n in rest if isinstance(n, ast.Assign) for t in n.targets]
    assert names in ([], ["__all__"])


OWNERS = {
    "bench/growth.py": "what its own process printed",
    "bench/reader.py": "files as large as VQAv2's, made to be read",
    "bench/scoring.py": "what its own process printed",
    "experiments/study/fingerprint.py": "a copy of its own settings, as JSON keeps them",
    "experiments/study/lock.py": "a file of its own, read through a descriptor",
    "tracking/makers.py": "a tag of a run; anything else names no process",
    "training/state.py": "the header of a file of tensors",
    "vlm/backends/words.py": "what a server says is wrong, JSON or not",
}
"""Files beside `files/` that parse JSON or YAML or write in place, and why."""
PARSING = re.compile(r"json\.loads?\(|\.write_text\(|\bYAML\(")


def test_files_are_read_and_written_by_one_subpackage() -> None:
    parsing = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if PARSING.search(path.read_text(encoding="utf-8"))
        and path.relative_to(PACKAGE).parts[0] != "files"
    }
    assert parsing == set(OWNERS)
