"""What the notebooks import is there; the end-to-end test runs them."""

import ast
import json
from importlib import import_module
from pathlib import Path

import pytest

from tiny_world import ROOT


def imports(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a notebook takes from the package."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        (str(node.module), alias.name)
        for source in code
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lever_plus")
        for alias in node.names
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    found = imports(path)
    assert found
    for module, name in found:
        assert hasattr(import_module(module), name), f"{module} has no {name}"
