"""Commands on the pages that are quick run as they are written, in a folder that a reader has."""

from pathlib import Path

import pytest
import typer

from documentation.blocks import all_blocks, commands_of
from documentation.test_blocks import RUN_HERE
from lever_plus.cli.main import app

LINES = {
    command.line: command.words[1:]
    for block in all_blocks()
    if block.kind in ("console", "sh") and not block.why
    for command in commands_of(block.text)
    if command.line.startswith(RUN_HERE) and "$" not in command.line
}
"""What a shell would still fill in runs elsewhere: `test_easy_vqa.py`."""
MAY_LACK = "lever-plus doctor"
"""It ends with 1 where something is missing, as models are here."""
MADE_BEFORE = dict.fromkeys(("tiny.yaml", "own.yaml"), "pool: {size: 32}\n")
"""Files that an earlier command of the page writes."""


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_command_runs(
    line: str, reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reader)
    for name, text in MADE_BEFORE.items():
        (reader / name).write_text(text, encoding="utf-8")
    ended = typer.main.get_command(app).main(LINES[line], standalone_mode=False)
    assert ended in ((0, 1, None) if line.startswith(MAY_LACK) else (0, None))
    said = capsys.readouterr().out
    assert said.strip()
