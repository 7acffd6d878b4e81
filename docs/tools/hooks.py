"""What MkDocs cannot do by itself: pages and links outside docs/, patterns in `nav`.

Markdown files of the project's root are pages of the site too, but README.md: the site has a home
page. Links between them and docs/ work in the repository and on the site; a link to any other
file of the repository, which the site does not have, becomes its text.
"""

import posixpath
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parents[2]
LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
ELSEWHERE: Final = re.compile(r"^([a-z]+:|#|/)")
README: Final = "README.md"
API: Final = "reference/api/"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root, and write out `nav` where it has a pattern such as guides/*.md."""
    for path in root_pages():
        files.append(File.generated(config, path.name, abs_src_path=str(path)))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    if config.nav:
        config.nav = expanded(config.nav, pages, set(_named(config.nav)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Let links lead to where pages are on the site; rank guides above the API in the search."""
    uri = page.file.src_uri
    if uri.startswith(API):
        page.meta["search"] = {"boost": 0.2}
    folder = "" if (ROOT / uri) in root_pages() else posixpath.join("docs", posixpath.dirname(uri))
    return LINK.sub(lambda found: moved(found, folder, posixpath.dirname(uri)), markdown)


def root_pages() -> list[Path]:
    """Return the Markdown files of the project's root that are pages."""
    return sorted(path for path in ROOT.glob("*.md") if path.name != README)


def moved(link: re.Match[str], folder: str, here: str) -> str:
    """Return a link as the site needs it.

    Args:
        link: What `LINK` found.
        folder: The folder of the file that has it, in the repository.
        here: The folder of its page, on the site.
    """
    text, target = link.groups()
    path, mark, anchor = target.partition("#")
    if ELSEWHERE.match(target):
        return link[0]
    whole = posixpath.normpath(posixpath.join(folder, path))
    if whole == README:
        return f"[{text}]({posixpath.relpath('index.md', here or '.')})"
    if whole.startswith("docs/"):
        place = whole.removeprefix("docs/")
    elif (ROOT / whole) in root_pages():
        place = whole
    else:
        return text if (ROOT / whole).exists() else link[0]
    return f"[{text}]({posixpath.relpath(place, here or '.')}{mark}{anchor})"


def _named(nav: Any) -> list[str]:
    """Return the files that `nav` names one by one."""
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [name for value in values for name in _named(value)]


def expanded(nav: list[Any], pages: list[str], named: set[str]) -> list[Any]:
    """Return `nav` with the pages of each pattern that it does not name elsewhere."""
    found: list[Any] = []
    for item in nav:
        if isinstance(item, str) and "*" in item:
            depth = item.count("/")
            found += [
                page
                for page in pages
                if page not in named and page.count("/") == depth and fnmatch(page, item)
            ]
        elif isinstance(item, dict):
            found += [
                {name: expanded(each, pages, named) if isinstance(each, list) else each}
                for name, each in item.items()
            ]
        else:
            found.append(item)
    return found
