"""The report of a small made-up project, written once for all tests."""

import os
from pathlib import Path

import pytest
from report_world import Made, make

from lever_plus.pipeline import paths, report


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The project, its report written; its folder is the current one only while that happens."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    os.chdir(folder)
    try:
        project = make(folder)
        report.run(project.params)
    finally:
        os.chdir(before)
    return project


@pytest.fixture
def project(made: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The project, as the current folder."""
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def html(project: Made) -> str:
    """The page."""
    return (project.folder / paths.REPORT / "index.html").read_text(encoding="utf-8")
