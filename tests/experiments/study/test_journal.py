"""The journal: repaired after a killed writer, refused if it is damaged, never stuck."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from formula_trials import settings
from optuna.trial import TrialState

from lever_plus.errors import UserError
from lever_plus.experiments.study.journal import Journal
from lever_plus.experiments.study.lock import JournalLock
from lever_plus.experiments.study.storage import find_study, open_study
from lever_plus.tracking.makers import name_process


def small(path: Path, trials: int = 2) -> optuna.Study:
    """Return a study with some finished trials."""
    study = open_study(settings(str(path)))
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("learning_rate", 1e-4, 1e-3))
    return study


def test_a_torn_last_line_is_moved_aside_before_the_next_one_is_added(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "study.journal"
    small(path)
    whole = path.read_bytes()
    torn = whole.splitlines(keepends=True)[-1][:-9]
    path.write_bytes(whole + torn)
    assert len(find_study(settings(str(path))).trials) == 2
    assert path.read_bytes() == whole + torn, "reading repairs nothing"
    small(path, trials=1)
    assert path.read_bytes().startswith(whole + b'{"op_code":')
    (kept,) = tmp_path.glob("study.journal.torn-*")
    assert kept.read_bytes() == torn
    assert "an incomplete line" in caplog.text
    states = [trial.state for trial in open_study(settings(str(path))).trials]
    assert states == [TrialState.COMPLETE] * 3


def test_a_journal_whose_first_line_is_torn_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"op_code":0,"worker_')
    assert len(small(path).trials) == 2


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    study = small(path)
    before, write = path.read_bytes(), os.write

    def half(file: int, content: bytes) -> int:
        write(file, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(UserError, match=r"study\.journal can't be written to \(No space left"):
            study.ask()
    assert path.read_bytes() == before
    assert not os.path.lexists(f"{path}.lock")
    assert study.ask().number == 2


def test_a_journal_that_is_taken_away_is_not_begun_without_its_first_lines(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = small(path)
    path.unlink()
    with pytest.raises(UserError, match="can't be read"):
        study.ask()
    assert not path.exists()
    path.write_bytes(b"")
    with pytest.raises(UserError, match="another file has taken its place"):
        study.get_trials()


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with pytest.raises(UserError, match="there is no study grpo in .*study.journal: run"):
        find_study(settings(str(path)))
    assert not list(tmp_path.iterdir())


def test_a_lock_of_a_process_that_is_gone_is_removed_at_once(tmp_path: Path) -> None:
    """This holds whichever folder the command is run in."""
    path = tmp_path / "study.journal"
    small(path)
    code = (
        "import os, sys; from pathlib import Path; "
        "from lever_plus.experiments.study.lock import JournalLock; "
        "JournalLock(Path(sys.argv[1])).acquire(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert os.path.lexists(f"{path}.lock")
    begin = time.monotonic()
    small(path)
    assert time.monotonic() - begin < 5
    assert not os.path.lexists(f"{path}.lock")


@pytest.mark.parametrize("target", ["study.journal", "/elsewhere/study.journal", "gone/it"])
def test_a_lock_of_unknown_origin_is_waited_for_without_haste(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    """It may be another program's or machine's, or have been copied with its folder."""
    path = tmp_path / "study.journal"
    path.touch()
    Path(f"{path}.lock").symlink_to(target)
    begin, spent = time.monotonic(), time.process_time()
    lock = JournalLock(path, grace_s=0.6)
    lock.acquire()
    assert time.monotonic() - begin > 0.5
    assert time.process_time() - spent < 0.3
    lock.release()
    assert not os.path.lexists(f"{path}.lock")
    assert "left by a process that is gone" in caplog.text


def test_a_link_beside_the_journal_is_not_written_through(tmp_path: Path) -> None:
    """Somebody else's folder may hold a link that leads out of it."""
    other = tmp_path / "other"
    other.write_text("of somebody")
    (tmp_path / "study.journal.holder").symlink_to(other)
    with pytest.raises(UserError, match=r"study\.journal\.holder can't be made"):
        small(tmp_path / "study.journal")
    assert other.read_text() == "of somebody"


def test_waiting_says_for_whom_and_how_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lever_plus.experiments.study.lock.QUIET_S", 0.1)
    caplog.set_level(logging.WARNING)
    path = tmp_path / "study.journal"
    path.touch()
    first, second = JournalLock(path), JournalLock(path, grace_s=0.4)
    first.acquire()
    second.acquire()  # the first one is stopped for too long, so its lock is taken
    assert f"is locked by process {os.getpid()} on {name_process()['machine']}" in caplog.text
    assert "at most 0 seconds more" in caplog.text
    first.release()
    assert os.path.lexists(f"{path}.lock"), "it is the second one's"
    second.release()


@pytest.mark.parametrize("content", [b"[1]\n", b"\0\0", b"PAR1", b"seed: 1\n", b"\n", b"{}\n"])
def test_a_file_of_something_else_is_refused_and_stays_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(content)
    for use in (open_study, find_study):
        with pytest.raises(UserError, match=r"study\.journal is not the journal of a study"):
            use(settings(str(path)))
    assert path.read_bytes() == content


def test_two_studies_of_different_names_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    small(path)
    other = settings(str(path)).model_copy(update={"name": "other"})
    trial = open_study(other).ask()
    assert trial.number == 0
    assert len(find_study(settings(str(path))).trials) == 2


def test_two_journals_put_together_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.journal", tmp_path / "two.journal"
    small(one)
    small(two)
    one.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(UserError, match=r"one\.journal, line \d+ .*two journals were joined"):
        find_study(settings(str(one)))


def test_a_missing_line_does_not_give_one_trial_s_values_to_another(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    small(path)
    lines = path.read_bytes().splitlines(keepends=True)
    begun = [n for n, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    del lines[begun[0]]
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match="lines before it are missing"):
        find_study(settings(str(path)))


def test_an_operation_of_a_newer_optuna_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    small(path)
    lines = len(path.read_bytes().splitlines())
    with path.open("ab") as file:
        file.write(b'{"op_code":99,"worker_id":"a-1"}\n')
    with pytest.raises(
        UserError, match=rf"line {lines + 1} was written by a newer version of Optuna"
    ):
        find_study(settings(str(path)))


def test_a_study_of_another_kind_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    storage = optuna.storages.JournalStorage(Journal(path))
    optuna.create_study(storage=storage, study_name="grpo", direction="minimize")
    with pytest.raises(UserError, match="is another kind of study"):
        open_study(settings(str(path)))


def test_another_program_s_database_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("create table runs (id integer)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="the database of another program"):
        open_study(settings(f"sqlite:///{path}"))
    assert path.read_bytes() == before
    assert open_study(settings(f"sqlite:///{tmp_path / 'study.db'}")).ask().number == 0
    assert open_study(settings(f"sqlite:///{tmp_path / 'study.db'}")).ask().number == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cr3t-word@127.0.0.1:1/none",
        "mysql+nodriver://me:s3cr3t-word@127.0.0.1/none",
        "mysql://me:s3cr3t-word@127.0.0.1/none",
        "postgresql+psycopg://me:s3cr3t-word@127.0.0.1:port/none",
    ],
)
def test_a_database_that_can_t_be_used_is_named_without_its_password(url: str) -> None:
    with pytest.raises(UserError) as caught:
        open_study(settings(url))
    assert "s3cr3t-word" not in str(caught.value)
    assert url.partition(":")[0] in str(caught.value)


def test_a_copied_folder_goes_on_with_its_own_study(tmp_path: Path) -> None:
    path = tmp_path / "a" / "study.journal"
    path.parent.mkdir()
    small(path)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = path.read_bytes()
    assert len(small(tmp_path / "b" / "study.journal").trials) == 4
    assert path.read_bytes() == before
