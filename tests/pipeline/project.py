"""A temporary copy of the project, small, with its own repository, store and cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.warm import folder_of_commands
from tiny_world import ROOT


class Project:
    """A copy of the working tree, with its own repository, store and cache."""

    def __init__(self, folder: Path, *presets: str, vision: bool = False) -> None:
        """Copy what git knows or would add, without results, and merge presets.

        With `vision`, its processes find torchvision as the tests do, see `beside_torch`.
        """
        self.folder, self._vision = folder, vision
        listed = self._run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        for stale in ("dvc.lock", "metrics", "plots"):
            path = folder / stale
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for preset in presets:
            self.cli("params", "overlay", preset)
        self._run("git", "init", "--quiet")
        self._run("git", "add", "--all")
        self.git("commit", "--quiet", "--message", "copy")

    def clone(self, folder: Path) -> "Project":
        """Return a git clone of the copy."""
        self._run("git", "clone", "--quiet", str(self.folder), str(folder))
        other = Project.__new__(Project)
        other.folder, other._vision = folder, self._vision
        return other

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return self._run("git", *identity, *arguments)

    def python(self, code: str, *arguments: str) -> str:
        return self._run(sys.executable, "-c", code, *arguments)

    def cli(self, *arguments: str) -> str:
        return self._run("lever-plus", *arguments)

    def dvc(self, *arguments: str) -> str:
        return self._run("dvc", *arguments)

    def bash(self, script: str) -> str:
        return self._run("bash", "-euc", script)

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        binaries = [str(folder_of_commands(self._vision)), str(Path(sys.executable).parent)]
        paths = [self.folder / "src", *([ROOT / "tests" / "beside_torch"] if self._vision else [])]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([*binaries, os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "DVC_NO_ANALYTICS": "1",
        }
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "LEVER_PLUS_STUDY_STORAGE"):
            environment.pop(name, None)
        done = subprocess.run(
            ["/usr/bin/env", *command],  # which finds it on this PATH
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout
