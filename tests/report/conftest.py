"""The report of a small made-up project, written once for all tests."""

import pytest
from report_world import Made, make

from lever_plus.pipeline import report


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The project, its report written."""
    project = make(tmp_path_factory.mktemp("project"))
    report.run(project.settings, project.paths)
    return project


@pytest.fixture
def html(project: Made) -> str:
    """The page."""
    return (project.paths.report / "index.html").read_text(encoding="utf-8")
