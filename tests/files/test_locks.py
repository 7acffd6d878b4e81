"""Locks between processes: held by one, free when it ends, and one sentence if none can be made."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lever_plus.errors import UserError
from lever_plus.files.locks import locked

HOLD = """
import sys
from pathlib import Path
from lever_plus.files.locks import locked
with locked(Path(sys.argv[1]), "busy", "look"):
    print("held", flush=True)
    input()
"""


def test_another_process_is_kept_out_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=r"^a is busy: wait\.$"),
            locked(path, "a is busy: wait.", "look"),
        ):
            pytest.fail("it was taken")
        holder.kill()
    with locked(path, "busy", "look", seconds=5):
        pass


@pytest.mark.parametrize("place", ["file/a.lock", "folder", "file/b/c.lock"])
def test_where_no_lock_can_be_made(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    begin = time.monotonic()
    with (
        pytest.raises(UserError, match=r"can't be made \(.*\): look\."),
        locked(tmp_path / place, "busy", "look", seconds=60),
    ):
        pytest.fail("it was taken")
    assert time.monotonic() - begin < 5
