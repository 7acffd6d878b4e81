"""What a newcomer looks for in the root: it is there, it is valid, and it calls what there is."""

import hashlib
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tiny_world import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""Of https://www.apache.org/licenses/LICENSE-2.0.txt."""
TARGETS = set(
    re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
)
CFF_KEYS = {
    *("cff-version", "message", "type", "title", "abstract", "version", "license", "authors"),
    *("keywords", "references"),
}
REFERENCE_KEYS = {
    *("type", "title", "notes", "authors", "year", "journal", "volume", "issue", "start", "end"),
    *("collection-title", "collection-type", "identifiers", "url"),
}
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
ARXIV = re.compile(r"arxiv[: ]+(\d{4}\.\d{4,5})", flags=re.IGNORECASE)


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def loaded(path: str | Path) -> Any:
    return YAML(typ="safe").load(read(path))


def called(command: str) -> list[str]:
    """Return the make targets that a shell command names."""
    calls = re.findall(r"\bmake((?: +[a-z][a-z-]*)+)", command)
    return [target for call in calls for target in call.split()]


def commands(workflow: dict[str, Any]) -> list[str]:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


def named(text: str) -> set[str]:
    """Return the files that a page names: targets of its links, and paths in code."""
    links = re.findall(r"\]\(([^)#]+)", text)
    code = re.findall(r"`([^`\n]+)`", text)
    words = [word for piece in code for word in piece.split() if re.fullmatch(r"[\w.*/-]+", word)]
    paths = [word for word in words if "/" in word or word.endswith((".md", ".yaml", ".txt"))]
    return {path for path in (*links, *paths) if "://" not in path}


def test_the_license_is_the_standard_text_and_everything_names_it() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert loaded("CITATION.cff")["license"] == "Apache-2.0"
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in read("Dockerfile")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_everybody_calls_with_no_more_rights_than_it_needs(
    path: Path,
) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text(encoding="utf-8")
    run = commands(workflow)
    assert {target for command in run for target in called(command)} <= TARGETS
    scripts = [word for command in run for word in command.split() if word.startswith(".ci/")]
    assert all((ROOT / script).is_file() for script in scripts)
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_every_change_gets_what_make_test_does_and_every_night_all_of_ci() -> None:
    change, night = (loaded(GITHUB / "workflows" / name) for name in ("ci.yml", "nightly.yml"))
    assert {"push", "pull_request"} <= set(change["on"])
    assert {"lint", "types", "test"} <= {t for text in commands(change) for t in called(text)}
    assert "schedule" in night["on"]
    assert {".ci/run", "make repro"} <= set(commands(night))
    assert set(called(read(".ci/run"))) <= TARGETS


def test_commits_are_checked_by_commands_that_there_are() -> None:
    path = ".pre-commit-config.yaml"
    command = [sys.executable, "-m", "pre_commit", "validate-config", path]
    subprocess.run(command, cwd=ROOT, check=True)
    hooks = [hook for repo in loaded(path)["repos"] for hook in repo["hooks"]]
    assert hooks
    for hook in hooks:
        assert hook["language"] == "system"
        assert called(hook["entry"])
        assert set(called(hook["entry"])) <= TARGETS


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = loaded("CITATION.cff")
    assert set(citation) == CFF_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert (citation["type"], citation["version"]) == ("software", PROJECT["version"])
    for paper in citation["references"]:
        assert set(paper) <= REFERENCE_KEYS
        assert {"type", "title", "authors", "year", "notes"} <= set(paper)
        for author in paper["authors"]:
            assert {"given-names", "family-names"} <= set(author)
            assert set(author) <= {"given-names", "family-names", "name-particle"}
    titles = [paper["title"] for paper in citation["references"]]
    assert len(set(titles)) == len(titles)


def test_every_paper_that_the_code_names_by_its_number_is_cited() -> None:
    papers = loaded("CITATION.cff")["references"]
    values = [i["value"] for paper in papers for i in paper.get("identifiers", [])]
    cited = {number for value in values for number in ARXIV.findall(value)}
    pages = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    found = {number for page in pages for number in ARXIV.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 5
    assert found - cited == set()


def test_the_changelog_begins_with_this_version_and_keeps_its_form() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[(.+)\] - (.+)$", text, flags=re.MULTILINE)
    assert versions[0][0] == PROJECT["version"]
    numbers = [tuple(map(int, version.split("."))) for version, _ in versions]
    assert numbers == sorted(numbers, reverse=True)
    days = [date.fromisoformat(day) for _, day in versions if day != "Unreleased"]
    assert days == sorted(days, reverse=True)
    assert "Unreleased" not in [day for _, day in versions[1:]]
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= CHANGES


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_a_form_needs(path: Path) -> None:
    form = loaded(path)
    assert {"name", "description", "body"} <= set(form)
    asked = [item for item in form["body"] if item["type"] != "markdown"]
    assert {item["type"] for item in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(item["attributes"]["label"] for item in asked)
    ids = [item["id"] for item in asked]
    assert len(set(ids)) == len(ids)
    assert any(item.get("validations", {}).get("required") for item in asked)
    for item in asked:
        if item["type"] in ("dropdown", "checkboxes"):
            assert item["attributes"]["options"]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_and_make_target_that_a_page_names_is_there(page: str) -> None:
    text = read(page)
    paths = named(text)
    assert {"EXPERIMENTS.md", "SECURITY.md"} <= paths
    assert [path for path in sorted(paths) if not list(ROOT.glob(path))] == []
    code = re.findall(r"`([^`\n]+)`|^(make .+)$", text, flags=re.MULTILINE)
    assert {t for pair in code for piece in pair for t in called(piece)} <= TARGETS
