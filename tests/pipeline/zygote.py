"""Runs stages of the formula world in processes that kill themselves, or find the disk full.

Started as a script, with all imports done; every job is then a fork, so that a killed stage costs
what it does and no start of Python. A moment is a number of calls, of Python's functions and those
written in C: before a row is stored, between a file's writing and its renaming, in mid-epoch.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve()


class Zygote(AbstractContextManager["Zygote"]):
    """The process that the stages are forks of."""

    def __enter__(self) -> Self:
        """Start it."""
        source = HERE.parents[2] / "src"
        paths = [str(source), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, HERE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.communicate()

    def run(
        self,
        root: Path,
        stage: str,
        seed: int | None,
        moment: int | None = None,
        largest: int | None = None,
    ) -> dict[str, Any]:
        """Run a stage; return what became of it.

        {"signal": its number or 0, "sentence": of a UserError, "error": a traceback, "calls":
        until then, "answered": requests whose answers are stored}.

        Args:
            root: Folder of the project.
            stage: Its name.
            seed: Of the training, where there are several.
            moment: Calls after which the process kills itself; None: it is left to end.
            largest: Bytes that a file can have, as on a disk that is almost full; None: any.
        """
        assert self._process.stdin
        assert self._process.stdout
        job = {"root": str(root), "stage": stage, "seed": seed}
        job |= {"moment": moment, "largest": largest}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        done: dict[str, Any] = json.loads(self._process.stdout.readline())
        return done


def serve() -> None:
    """Take jobs from standard input until it ends."""
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            os.close(reader)
            os.dup2(2, 1)  # what a stage prints is no reply
            work(job, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            facts = [json.loads(each) for each in pipe.read().splitlines()]
        _, status = os.waitpid(pid, 0)
        said = {key: value for fact in facts for key, value in fact.items()}
        answered = sum(fact.get("chunk", 0) for fact in facts)
        reply = {"error": None, "sentence": None, "calls": None, **said, "answered": answered}
        reply["signal"] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def warm_up() -> None:
    """Run all stages once, so that every fork has what they import; torch has one thread."""
    from pipeline.formula_world import STAGES, make_world

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        world = make_world(Path(folder))
        for stage in STAGES:
            world.run(stage)


def work(job: dict[str, Any], writer: int) -> None:
    """Run a stage in the fork and end it."""
    from lever_plus.config.file import load_params
    from lever_plus.errors import UserError
    from lever_plus.pipeline.paths import Paths
    from pipeline.formula import FormulaVlm
    from pipeline.formula_world import World

    def say(**fact: Any) -> None:
        os.write(writer, (json.dumps(fact) + "\n").encode())

    class Counting(list[Any]):
        """Requests whose answers are stored; each chunk of them is reported."""

        def __iadd__(self, chunk: Sequence[Any]) -> Self:  # type: ignore[override]
            say(chunk=len(chunk))
            return self

    root = Path(job["root"])
    backend = FormulaVlm()
    backend.requests = Counting()
    world = World(Paths(root), load_params(root / "params.yaml"), backend, stored=True)
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls == job["moment"]:
                os.kill(os.getpid(), signal.SIGKILL)

    if job["largest"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
    try:
        sys.setprofile(count)
        world.run(job["stage"], job["seed"])
    except UserError as error:
        say(sentence=str(error))
    except BaseException:
        say(error=traceback.format_exc())
    finally:
        sys.setprofile(None)
        say(calls=calls)
        os._exit(0)


if __name__ == "__main__":
    serve()
