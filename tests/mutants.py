"""Known mistakes that the tests must catch: `make mutants` applies each to a copy and runs them.

A mutation is killed if a test fails that passes without it. The fast tests of the pipeline run
first, then those of the file's own subpackage. Exit 1: a mutation survives, its text is not in the
source, or the tests fail without any.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from mutations import MUTATIONS, Mutation

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "lever_plus"
COPIED: Final = (
    *(
        "src",
        "tests",
        "params.yaml",
        "dvc.yaml",
        "search",
        "presets",
        "ablations",
        "recipes",
        "docs",
    ),
)
FIRST: Final = ("tests/pipeline/test_stages.py", "tests/pipeline/test_experiments.py")
TIMEOUT_S: Final = 600


def occurrences(mutation: Mutation) -> int:
    """Return how often the text of a mutation is in its file."""
    return (SOURCE / mutation.file).read_text(encoding="utf-8").count(mutation.before)


def killer(mutation: Mutation, copy: Path) -> str | None:
    """Apply a mutation to a copy and run the tests; return the first that fails, None if none."""
    path = copy / "src" / "lever_plus" / mutation.file
    whole = path.read_text(encoding="utf-8")
    for tests in (*FIRST, f"tests/{Path(mutation.file).parts[0]}"):
        _must_pass(copy, tests)
        path.write_text(whole.replace(mutation.before, mutation.after), encoding="utf-8")
        try:
            failing = _failing(copy, tests)
        finally:
            path.write_text(whole, encoding="utf-8")
        if failing:
            return failing
    return None


@cache
def _must_pass(copy: Path, tests: str) -> None:
    """End the run if tests fail without a mutation: they would kill every one."""
    failing = _failing(copy, tests)
    if failing:
        raise SystemExit(f"{failing} fails without any mutation: mend it first")


def _failing(copy: Path, tests: str) -> str | None:
    """Return the first of some tests that fails, None if none does."""
    # Without bytecode: a change within the same second would not be seen.
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not slow and not long",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"{tests} ({done.stdout.strip().splitlines()[-1]})"


def main() -> int:
    """Run all mutations, or those whose file or reason holds one of the arguments."""
    wanted = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not wanted or any(w in f"{m.file} {m.why}" for w in wanted)]
    stale = [m for m in chosen if occurrences(m) != 1]
    alive = list(stale)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            made = shutil.copytree if source.is_dir() else shutil.copy
            made(source, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutation in chosen:
            test = None if mutation in stale else killer(mutation, copy)
            said = f"killed by {test}" if test else "SURVIVES"
            said = "ITS TEXT IS NOT FOUND ONCE" if mutation in stale else said
            sys.stdout.write(f"{mutation.file}: {mutation.why}: {said}\n")
            sys.stdout.flush()
            if test is None and mutation not in stale:
                alive.append(mutation)
    sys.stdout.write(f"{len(chosen) - len(alive)} of {len(chosen)} mutations are killed\n")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
