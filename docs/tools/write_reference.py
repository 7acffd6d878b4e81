"""Writes the pages of docs/reference that the code knows: commands, params, metrics and the API.

`python docs/tools/write_reference.py` writes them; a test compares them.
"""

import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

import api
import commands
import metrics
import params

REFERENCE: Final = Path(__file__).parents[1] / "reference"


def pages() -> dict[Path, str]:
    """Return {file: text} of every page that is written."""
    return {
        REFERENCE / "commands.md": commands.page(),
        REFERENCE / "params.md": params.page(),
        REFERENCE / "metrics.md": metrics.page(),
        **{REFERENCE / "api" / name: text for name, text in api.pages().items()},
    }


def write() -> None:
    """Write them, and remove pages of subpackages that are gone."""
    wanted = pages()
    for path in set((REFERENCE / "api").glob("*.md")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
