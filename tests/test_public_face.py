"""`import lever_plus`: light, and every public name is there."""

import subprocess
import sys

import pytest

import lever_plus

HEAVY = ("torch", "transformers", "pydantic", "pandas", "numpy", "scipy", "typer", "mlflow")
IMPORT = f"""
import sys, time
begun = time.process_time()
import lever_plus
print(time.process_time() - begun, *({set(HEAVY)!r} & sys.modules.keys()))
"""


def test_importing_it_loads_nothing_heavy_and_takes_under_a_fifth_of_a_second() -> None:
    """CPU time of this process, best of three: a busy machine is no failure."""
    command = [sys.executable, "-c", IMPORT]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert [loaded for _, *loaded in said] == [[], [], []]
    assert min(float(seconds) for seconds, *_ in said) < 0.2


def test_examples_and_the_metric_do_without_torch() -> None:
    code = """
import sys
from lever_plus import Example, Query, Selection, UserError, normalize_answer, vqa_accuracy
assert vqa_accuracy("Yes.", ["yes"] * 10) == 1.0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", lever_plus.__all__)
def test_a_public_name_is_there_under_its_own_name(name: str) -> None:
    found = getattr(lever_plus, name)
    assert found.__name__ == name
    assert found.__doc__
    assert getattr(lever_plus, name) is found


def test_dir_lists_the_public_names() -> None:
    assert dir(lever_plus) == sorted(lever_plus.__all__)
    expected = {"Example", "Query", "Selector", "load_selector", "open_vlm", "evaluate"}
    assert expected | {"read_pool", "vqa_accuracy"} <= set(lever_plus.__all__)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module lever_plus has no attribute Exampel"):
        lever_plus.Exampel  # noqa: B018
    with pytest.raises(ImportError):
        from lever_plus import Exampel  # noqa: F401
