"""No stage is up to date if its code changed: dvc.yaml lists all that it imports."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lever_plus.cli.stages import PIPELINES, params_read
from lever_plus.tracking.lineage import (
    CODE,
    git_commit,
    import_closure,
    module_of,
    with_code_deps,
)
from tiny_world import ROOT


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "src"
    files = {
        "pipeline/one.py": "from lever_plus.a import f\n",
        "a.py": "def f():\n    from lever_plus.part import b\n    return b\n",
        "part/__init__.py": '"""Part."""\n',
        "part/b.py": "import json\n",
        "unused.py": "",
    }
    for name, text in files.items():
        path = root / "lever_plus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_closure_follows_imports_inside_functions(package: Path) -> None:
    closure = import_closure("lever_plus.pipeline.one", package)
    names = [str(path.relative_to(package / "lever_plus")) for path in closure]
    assert names == ["a.py", "part/b.py", "pipeline/one.py"]


@pytest.mark.parametrize(("path", "package"), PIPELINES.items(), ids=str)
def test_dvc_yaml_lists_the_closure_of_every_stage(path: Path, package: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    keys = params_read if package == "pipeline" else None
    assert with_code_deps(text, ROOT, package, keys) == text, "run `make deps`"


def test_a_dependency_that_is_missing_is_added(package: Path) -> None:
    text = "stages:\n  one:\n    deps:\n    - data.json\n    - src/lever_plus/old.py\n"
    after = with_code_deps(text, package.parent)
    assert "src/lever_plus/a.py" in after
    assert "data.json" in after
    assert "old.py" not in after


def test_shipped_models_are_data_wherever_code_is_listed_and_part_of_no_other_dependency(
    package: Path,
) -> None:
    models = "src/lever_plus/house_words/models"
    text = f"stages:\n  one:\n    deps:\n    - {models}\n"
    assert f"- {models}\n" in with_code_deps(text, package.parent)
    for path in PIPELINES:
        listed = re.findall(r"- (src/\S+)", (ROOT / path).read_text(encoding="utf-8"))
        assert {dep for dep in listed if f"{models}/".startswith(f"{dep}/")} <= {models}


def test_a_folder_stands_for_its_files_where_all_of_them_are_imported(package: Path) -> None:
    """One that holds another file too would make the stage depend on what it does not import."""
    text = "stages:\n  one:\n    deps: []\n"
    part = package / "lever_plus" / "part"
    assert "- src/lever_plus/part\n" in with_code_deps(text, package.parent)
    (part / "other.py").write_text("")
    after = with_code_deps(text, package.parent)
    assert "- src/lever_plus/part/b.py\n" in after
    assert "other.py" not in after


def test_a_shared_subpackage_is_listed_whole(package: Path) -> None:
    """Whatever a stage imports from it: dvc.yaml is short enough to be read."""
    lever_plus = package / "lever_plus"
    (lever_plus / "data").mkdir()
    for name in ("data/used.py", "data/unused.py"):
        (lever_plus / name).write_text("")
    (lever_plus / "a.py").write_text("import lever_plus.data.used\n")
    after = with_code_deps("stages:\n  one:\n    deps: []\n", package.parent)
    assert "- src/lever_plus/data\n" in after
    assert "used.py" not in after


def test_a_comment_tells_data_from_code(package: Path) -> None:
    text = "stages:\n  one:\n    deps:\n    - data.json\n"
    after = with_code_deps(text, package.parent)
    assert f"    - data.json\n    # {CODE}\n    - src/lever_plus/a.py\n" in after
    assert with_code_deps(after, package.parent) == after


@pytest.mark.parametrize(("path", "package"), PIPELINES.items(), ids=str)
def test_every_file_of_a_closure_is_a_dependency(path: Path, package: str) -> None:
    stages = YAML(typ="safe").load((ROOT / path).read_text(encoding="utf-8"))["stages"]
    for stage, whole in stages.items():
        deps = {ROOT / dep for dep in whole.get("do", whole)["deps"]}
        code = import_closure(f"lever_plus.{module_of(package, stage)}", ROOT / "src")
        assert code
        assert not [file for file in code if deps.isdisjoint({file, *file.parents})]


def test_the_commit_comes_from_the_environment_where_there_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_COMMIT", "abc")
    assert git_commit() == ("abc", False)
