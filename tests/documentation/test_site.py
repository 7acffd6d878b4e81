"""The documentation is built strictly, needs no network, and its search finds everything public."""

import functools
import html
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import chromium
from documentation.code_names import public_names
from documentation.pages import commands, leaves
from tiny_world import ROOT

pytestmark = pytest.mark.slow
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")
BOX = "document.querySelector('[data-md-component=search-query]')"
OPEN = "document.querySelector('[data-md-toggle=search]').click()"
KEY = "new KeyboardEvent('keyup', {bubbles: true})"
HEADINGS = "[...document.querySelectorAll('.md-search-result__item :is(h1, h2)')]"


def build(folder: Path, config: Path = ROOT / "mkdocs.yml") -> "subprocess.CompletedProcess[str]":
    """Build the site into a folder, as `make docs` does.

    Not with --quiet: then MkDocs sees no warnings, which strict mode counts.
    """
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", config, "-d", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The built site; processes that run tests side by side share it."""
    folder = tmp_path_factory.getbasetemp()
    shared = (folder if worker_id == "master" else folder.parent) / "site"
    with FileLock(shared.with_name("site.lock")):
        if not shared.is_dir():
            done = build(shared)
            assert done.returncode == 0, done.stderr
            assert "WARNING" not in done.stderr
    return shared


@pytest.fixture(scope="module")
def index(site: Path) -> dict[str, dict[str, Any]]:
    """What the search knows: {address: section}."""
    content = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    return {section["location"]: section for section in content["docs"]}


def words(section: dict[str, Any]) -> str:
    """Return the text of a section."""
    return html.unescape(re.sub("<[^>]+>", " ", section["title"] + " " + section["text"]))


def test_every_public_class_function_and_method_is_found(index: dict[str, dict[str, Any]]) -> None:
    names = public_names()
    assert len(names) > 1000
    nothing = {"title": "", "text": ""}
    lost = [
        name
        for name, subpackage, _ in names
        if name.rpartition(".")[2]
        not in words(index.get(f"reference/api/{subpackage}.html#{name}", nothing))
    ]
    assert lost == []


def test_every_public_class_function_and_method_says_what_it_is() -> None:
    assert [name for name, _, documented in public_names() if not documented] == []


def test_every_command_and_option_is_found(index: dict[str, dict[str, Any]]) -> None:
    found = list(commands.commands())
    assert len(found) > 40
    lost = []
    for name, command in found:
        section = index[f"reference/commands.html#lever-plus-{name.replace(' ', '-')}"]
        spelled = [commands.spelled(each) for each in commands.shown(command)]
        lost += [f"{name} {each}" for each in spelled if each not in words(section)]
    assert lost == []


def test_every_parameter_is_found(index: dict[str, dict[str, Any]]) -> None:
    page = " ".join(
        words(section) for place, section in index.items() if place.startswith("reference/params")
    ).split()
    assert [key for key in leaves() if key not in page] == []


def test_every_page_of_docs_and_of_the_root_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    pages |= {path.relative_to(ROOT) for path in ROOT.glob("*.md") if path.name != "README.md"}
    assert [str(page) for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


def test_no_page_loads_anything_from_a_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    assert [page.name for page in pages if LOADED.search(page.read_text("utf-8"))] == []


@pytest.mark.parametrize("target", ["guides/gone.md", "training.md#no-such-heading"])
def test_a_link_that_leads_nowhere_is_an_error(target: str, tmp_path: Path) -> None:
    """In a small site with the settings of the whole one."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Home\n\n[gone]({target})\n", encoding="utf-8")
    (docs / "training.md").write_text("# Training\n", encoding="utf-8")
    whole = (ROOT / "mkdocs.yml").read_text("utf-8")
    settings = re.findall(r"^(?:strict: true.*|validation:\n(?:  .*\n)+)", whole, re.MULTILINE)
    assert len(settings) == 2
    (tmp_path / "mkdocs.yml").write_text("\n".join(["site_name: x", *settings]), encoding="utf-8")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    assert target in done.stderr


@pytest.fixture(params=["from the disk", pytest.param("served", marks=pytest.mark.long)])
def address(site: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the site is."""
    if request.param == "from the disk":
        yield site.as_uri()
        return

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.skipif(not chromium.FOUND, reason="needs Chromium")
def test_the_search_box_finds_names_as_people_write_them(address: str, tmp_path: Path) -> None:
    wanted = {
        "load_selector": "load_selector",
        "LivePool": "LivePool",
        "grpo.kl_beta": "grpo",
        "kl_beta": "grpo",
        "price_per": "pointer",
        "store merge": "lever-plus store merge",
        "--pool-questions": "lever-plus select",
        "frac_reward_zero_std": "Training: train/",
        "pool.sqlite": "The folder of a pool",
    }
    with chromium.opened(tmp_path) as tab:
        for typed, heading in wanted.items():
            tab.open("about:blank")  # what the last search found is no longer there
            tab.open(f"{address}/index.html")
            tab.wait(f"document.readyState === 'complete' && {BOX}")
            tab.value(f"{OPEN}, {BOX}.focus(), {BOX}.value = {json.dumps(typed)}")
            tab.value(f"{BOX}.dispatchEvent({KEY})")
            tab.wait(f"{HEADINGS}.length")
            found = tab.value(f"{HEADINGS}.map(each => each.textContent.trim())")
            assert heading in found, (typed, found)
        own = (address, "data:", "about:")
        assert [url for url in tab.requested if not url.startswith(own)] == []
        assert tab.said == []
