"""Notebooks can be read without running them, and say what the committed results are.

That they run on the outputs of a pipeline is in `pipeline/test_end_to_end.py`.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tiny_world import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000
"""Bytes: whoever clones the project gets every version of every picture."""
COMMITTED = "committed"
"""Tag of cells that read nothing but files in git."""
PICTURES = {"image/png", "image/svg+xml"}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> set[str]:
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def sentences(cells: list[Any]) -> list[str]:
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return [data["text/markdown"] for data in outputs if "text/markdown" in data]


def imports(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a notebook takes from the package."""
    code = [cell.source for cell in code_cells(read(path))]
    return [
        (str(node.module), alias.name)
        for source in code
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lever_plus")
        for alias in node.names
    ]


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@each
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    found = imports(path)
    assert found
    for module, name in found:
        assert hasattr(import_module(module), name), f"{module} has no {name}"


@each
def test_a_notebook_opens_with_a_question_then_a_picture_then_the_answer(path: Path) -> None:
    notebook = read(path)
    title = notebook.cells[0].source.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith("?")
    shown = [cell for cell in code_cells(notebook) if cell.outputs]
    assert kinds(shown[0]) & PICTURES
    assert sentences(shown[1:2])[0].startswith("**")


@each
def test_a_notebook_was_run_from_top_to_bottom_and_shows_all_its_outputs(path: Path) -> None:
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"display_data", "execute_result"}
    assert all(kinds(cell) for cell in cells[1:])
    assert sum(bool(kinds(cell) & PICTURES) for cell in cells) >= 2


@each
def test_a_notebook_is_small_and_speaks_of_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not [word for word in ("/home/", "/root/", "/tmp/", "site-packages") if word in text]
    assert max(len(cell.source.splitlines()) for cell in code_cells(read(path))) <= 35


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1_explore_rl_data", "2_compare_runs"])
def test_what_a_notebook_says_of_committed_results_is_what_they_are(name: str) -> None:
    """Mend with `jupyter execute --inplace notebooks/*.ipynb` after a new run."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    shown = [c for c in code_cells(read(path)) if COMMITTED in c.metadata.get("tags", [])]
    said = sentences(shown)
    assert len(said) >= 2
    alone = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.source) for c in shown])
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(alone, timeout=300, resources=where).execute()
    assert sentences(alone.cells) == said
