"""Objects that settings name are found: built-in ones, a package's, or the user's own."""

import re
from pathlib import Path

import pytest

from lever_plus.config.plugins import find, load_object
from lever_plus.errors import UserError

MODULE = """
import json
MEANING = 42
def seven():
    return 7
class Box:
    @staticmethod
    def eight():
        return 8
"""
BUILTIN = {"one": 1, "two": 2}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with entry points, and a second one that offers one of the same names."""
    (tmp_path / "numbers_of_a_user.py").write_text(MODULE)
    (tmp_path / "broken_for_a_user.py").write_text("import there_is_no_such_module\n")
    (tmp_path / "wrong_for_a_user.py").write_text("def f(:\n")
    (tmp_path / "script_of_a_user.py").write_text("raise SystemExit(3)\n")
    points = {
        "first": "one = numbers_of_a_user:seven\nseven = numbers_of_a_user:seven\n"
        "eight = numbers_of_a_user:Box.eight\ntwice = numbers_of_a_user:seven\n"
        "gone = numbers_of_a_user:gone\n",
        "second": "twice = numbers_of_a_user:Box.eight\nseven = numbers_of_a_user:seven\n",
    }
    for name, content in points.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lever_plus.numbers]\n{content}")
    monkeypatch.syspath_prepend(str(tmp_path))


def found(name: str) -> object:
    return find("lever_plus.numbers", name, BUILTIN, what="numbers.name")


def test_an_object_is_imported_by_module_and_name() -> None:
    assert load_object("numbers_of_a_user:seven", "numbers.name")() == 7
    assert load_object("numbers_of_a_user:Box.eight", "numbers.name")() == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("numbers_of_a_user", "does not have the form package.module:name"),
        ("numbers_of_a_user:", "does not have the form package.module:name"),
        (":seven", "does not have the form package.module:name"),
        ("numbrs:seven", "numbrs cannot be imported (No module named 'numbrs')"),
        ("broken_for_a_user:f", "cannot be imported (No module named 'there_is_no_such_module')"),
        (".numbers_of_a_user:seven", "does not have the form package.module:name"),
        ("..:seven", "does not have the form package.module:name"),
        ("wrong_for_a_user:f", "wrong_for_a_user fails while it is imported (SyntaxError"),
        ("script_of_a_user:f", "script_of_a_user fails while it is imported (SystemExit: 3)"),
        ("numbers_of_a_user:nine", "numbers_of_a_user has no nine"),
        ("numbers_of_a_user:Box.nine", "numbers_of_a_user has no Box.nine"),
        ("numbers_of_a_user:MEANING", "is of type int, not a function or a class"),
        ("numbers_of_a_user:json", "is of type module, not a function or a class"),
    ],
)
def test_what_cannot_be_loaded_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match="^numbers.name: .*" + re.escape(message)):
        load_object(name, "numbers.name")


def test_a_built_in_object_comes_before_an_entry_point_and_that_before_a_module() -> None:
    assert found("one") == 1
    seven, own = found("seven"), found("numbers_of_a_user:seven")
    assert callable(seven)
    assert seven is own
    assert seven() == 7


def test_an_entry_point_may_lie_in_a_class() -> None:
    eight = found("eight")
    assert callable(eight)
    assert eight() == 8


def test_a_name_that_two_packages_give_to_different_objects_is_refused() -> None:
    options = "numbers_of_a_user:Box.eight, numbers_of_a_user:seven"
    with pytest.raises(UserError, match=re.escape(f"several packages offer twice ({options})")):
        found("twice")


def test_an_entry_point_that_does_not_load_is_named() -> None:
    with pytest.raises(UserError, match=r"numbers\.name: numbers_of_a_user has no gone"):
        found("gone")


def test_an_unknown_name_is_answered_by_those_that_there_are() -> None:
    known = "one of eight, gone, one, seven, twice, two"
    with pytest.raises(UserError, match=rf"^numbers\.name: there is no nine: choose {known}, or"):
        found("nine")
    with pytest.raises(UserError, match=r"^x\.y: there is no nine: choose an object of your own"):
        find("lever_plus.empty", "nine", {}, what="x.y")
