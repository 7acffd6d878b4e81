"""The blocks of code on the pages, and the commands in those that a reader types.

A block that no test runs has a comment on the line before it, which says why:

    <!-- not run: needs a GPU -->
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tiny_world import ROOT

BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n+)?^(?P<pad> *)```(?P<kind>[\w-]*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=pad)```$",
    re.DOTALL | re.MULTILINE,
)
HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?(?P<rest>[^\n]*)\n.*?^\1$", re.DOTALL | re.MULTILINE)
SET = re.compile(r"[A-Za-z_]\w*=")
ENDS = ("&&", "||", "|", ";", "&")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: Its page, relative to the project's root.
        line: Where it begins, from 1.
        kind: The language that it names.
        text: What it holds.
        why: Why no test runs it; None: a test does.
    """

    page: str
    line: int
    kind: str
    text: str
    why: str | None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command that a reader types.

    Attributes:
        words: It and its arguments, without settings of the environment and redirections.
        written: Files that its output goes to.
    """

    words: list[str]
    written: list[str]

    @property
    def line(self) -> str:
        """The command on one line."""
        return " ".join(self.words)


def pages() -> list[Path]:
    """Return the pages with blocks that readers follow."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the blocks of a page."""
    return [
        Block(
            page,
            text[: found.start("kind")].count("\n") + 1,
            found["kind"],
            re.sub(f"^{found['pad']}", "", found["text"], flags=re.MULTILINE),
            found["why"],
        )
        for found in BLOCK.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [
        block
        for path in pages()
        for block in blocks_of(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
    ]


def commands_of(text: str) -> list[Command]:
    """Return the commands of a console block; what a heredoc holds is none."""
    joined = HEREDOC.sub(r"\g<rest>", text).replace("\\\n", " ")
    return [command for line in joined.splitlines() for command in _of_line(line)]


def _of_line(line: str) -> Iterator[Command]:
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    words = [*lexer, ";"]
    while words:
        end = next(place for place, word in enumerate(words) if word in ENDS)
        command = _command(words[:end])
        if command.words:
            yield command
        words = words[end + 1 :]


def _command(words: Sequence[str]) -> Command:
    plain: list[str] = []
    written: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in (">", ">>"):
            written.append(next(rest))
        elif word == "<":
            plain.append(next(rest))
        elif plain or not SET.match(word):
            plain.append(word)
    return Command(plain, written)
