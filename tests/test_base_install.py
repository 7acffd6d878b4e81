"""The base install is enough to select and evaluate; an extra that is missing is named.

A process that sees only what the base dependencies of pyproject.toml bring stands in for an
environment where nothing else is installed.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lever_plus.errors import UserError, needs
from tiny_world import ROOT
from vlm.model_zoo import FAMILIES, needs_torchvision, save

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CORE = (
    *("errors", "files", "config", "data", "metric", "hub", "vlm", "features", "policy"),
    *("selectors", "evaluation", "cli"),
)
SERVER = """
import contextlib, json, os, sys, traceback
from importlib import import_module
from importlib.machinery import PathFinder

BLOCKED = set({blocked!r})


class Base(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        blocked = name.partition(".")[0] in BLOCKED
        return None if blocked else super().find_spec(name, path, target)


sys.meta_path[:] = [Base if finder is PathFinder else finder for finder in sys.meta_path]
for name in {ready!r}:
    import_module(name)
assert not any(name.partition(".")[0] in {{"lever_plus", *BLOCKED}} for name in sys.modules)
print("ready", flush=True)
for line in sys.stdin:
    code, folder, said, complained = json.loads(line)
    if not (child := os.fork()):
        os.chdir(folder)
        for path, place in ((said, 1), (complained, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), place)
        try:
            exec(compile(code, "<test>", "exec"), {{"__name__": "__main__", "sys": sys}})
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        else:
            status = 0
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process that sees the base alone; each line names code to run in a fork, as fresh as itself."""
READY = (
    "numpy",
    "pandas",
    "pydantic",
    "rich.console",
    "safetensors.torch",
    "scipy.stats",
    "torch",
    "transformers",
    "typer",
)
"""What is slow to import and brings nothing of the project."""
IMPORT = """
from importlib import import_module

for name in {modules!r}:
    import_module(name)
seen = {{name.partition(".")[0] for name in sys.modules}}
assert not seen & {blocked!r}, seen & {blocked!r}
"""
COMMAND = """
from lever_plus.cli.main import main

sys.argv = ["lever-plus", *{arguments!r}]
main()
"""


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all distributions that these requirements bring, as installed here."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        found.add(name)
        environments = [{"extra": extra} for extra in ("", *wanted.extras)]
        waiting += [
            each
            for each in needed
            if each.marker is None or any(each.marker.evaluate(e) for e in environments)
        ]
    return found


def blocked() -> list[str]:
    """Return the installed modules that the base dependencies do not bring."""
    base = {*closure(PROJECT["dependencies"]), canonicalize_name(PROJECT["name"])}
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if not base & {canonicalize_name(owner) for owner in owners}
    )


class Base(NamedTuple):
    """A process that sees the base alone."""

    process: "subprocess.Popen[str]"

    def run(self, code: str, folder: Path, **values: object) -> subprocess.CompletedProcess[str]:
        """Run code in a fork of it, in a folder."""
        assert self.process.stdin
        assert self.process.stdout
        said, complained = folder / "said", folder / "complained"
        job = [code.format(**values) if values else code, *map(str, (folder, said, complained))]
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(job[0], status, said.read_text(), complained.read_text())


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    server = SERVER.format(blocked=blocked(), ready=READY)
    with subprocess.Popen(
        [sys.executable, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Base(process)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the settings of pipeline and study, and nothing else."""
    for name in ("params.yaml", "search/params.yaml"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_what_the_extras_bring_is_blocked() -> None:
    """The other tests prove nothing if the process still sees an extra."""
    base = closure(PROJECT["dependencies"])
    assert {"torch", "transformers", "numpy", "pydantic", "safetensors", "pillow"} <= base
    own = [text for extra in EXTRAS.values() for text in extra if not text.startswith("lever-plus")]
    optional = {canonicalize_name(Requirement(text).name) for text in own} - base
    hidden = set(blocked())
    for module, owners in packages_distributions().items():
        if optional & {canonicalize_name(owner) for owner in owners}:
            assert module in hidden
    assert {"dvc", "mlflow", "optuna", "matplotlib", "imagehash", "pyarrow"} <= hidden


def test_every_module_of_the_core_loads_with_the_base_alone(base: Base, tmp_path: Path) -> None:
    source = ROOT / "src"
    paths = [path for name in CORE for path in _modules(source / "lever_plus" / name)]
    modules = [".".join(path.relative_to(source).with_suffix("").parts) for path in paths]
    assert len(modules) > 40
    names = [module.removesuffix(".__init__") for module in modules]
    done = base.run(IMPORT, tmp_path, modules=names, blocked=set(blocked()))
    assert done.returncode == 0, done.stderr


def _modules(path: Path) -> list[Path]:
    """Return the modules of a subpackage, or a module that is one file."""
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_the_command_line_helps_with_the_base_alone(base: Base, tmp_path: Path) -> None:
    done = base.run(COMMAND, tmp_path, arguments=["--help"])
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["study", "run"], "study"),
        (["study", "show"], "study"),
        (["study", "promote"], "study"),
        (["evaluate"], "pipeline"),
        (["ablate"], "pipeline"),
        (["show", "1"], "pipeline"),
        (["track", "sync"], "tracking"),
        (["serve", "--checkpoint", "folder", "--pool", "pool.jsonl"], "serve"),
        (["demo"], "demo"),
    ],
)
def test_a_command_says_which_extra_it_lacks(
    base: Base, project: Path, arguments: list[str], extra: str
) -> None:
    done = base.run(COMMAND, project, arguments=arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'lever-plus[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from lever_plus.report.plots import reward_svg; reward_svg(dict(a=[1.0]))", "plots"),
        ("from lever_plus.tracking.frames import runs_table; runs_table()", "tracking"),
        ("import lever_plus.hosts.mlflow", "tracking"),
        ("from lever_plus.vlm.backends.ray import _import_ray; _import_ray()", "ray"),
        (
            "from lever_plus.data.near_duplicates import perceptual_hashes; perceptual_hashes([])",
            "pipeline",
        ),
    ],
)
def test_a_function_says_which_extra_it_lacks(
    base: Base, tmp_path: Path, code: str, extra: str
) -> None:
    done = base.run(code, tmp_path)
    assert re.search(rf"UserError: .*pip install 'lever-plus\[{extra}\]'", done.stderr)


PROCESSORS = """
from lever_plus.errors import UserError
from lever_plus.hub.loading import load_processor

for folder in {folders!r}:
    try:
        load_processor(folder, None)
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
@needs_torchvision
def test_a_family_says_that_it_lacks_torchvision(base: Base, tmp_path: Path) -> None:
    """Whether it needs it only for videos or for images, too."""
    names = ("Qwen3-VL", "Molmo2")
    folders = [str(save(FAMILIES[name], tmp_path / name)) for name in names]
    done = base.run(PROCESSORS, tmp_path, folders=folders)
    video, image = done.stdout.splitlines()
    assert "VideoProcessor requires the Torchvision library" in video
    assert image.startswith(f"{folders[1]} cannot be loaded: it needs torchvision: ")
    assert all(line.endswith("pip install 'lever-plus[vision]').") for line in (video, image))


def test_every_extra_that_is_named_exists() -> None:
    named = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"needs\(\"([a-z]+)\"", path.read_text(encoding="utf-8"))
    }
    assert named >= {"ann", "ray", "openai", "pipeline", "plots", "study", "tracking"}
    assert named <= EXTRAS.keys()


def test_all_has_every_extra_but_those_of_developers_and_of_another_torch() -> None:
    (whole,) = EXTRAS["all"]
    assert Requirement(whole).extras == EXTRAS.keys() - {"all", "dev", "docs", "vision"}
    assert "lever-plus[all,docs]" in EXTRAS["dev"]


def test_exact_versions_are_given_of_all_that_is_installed() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    exact = {canonicalize_name(n) for n in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)}
    wanted = [*PROJECT["dependencies"]]
    wanted += [text for name, extra in EXTRAS.items() if name != "vision" for text in extra]
    names = {canonicalize_name(Requirement(text).name) for text in wanted}
    assert names - {canonicalize_name(PROJECT["name"])} <= exact


def test_a_package_that_is_missing_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError) as caught, needs("ann", "this search", "set it to exact"):
        import faiss
    said = str(caught.value)
    assert said.startswith("this search needs the extra ann (")
    assert said.endswith("): pip install 'lever-plus[ann]', or set it to exact.")
    with pytest.raises(UserError, match=r"'lever-plus\[ann\]'\.$"), needs("ann", "this search"):
        import faiss  # noqa: F401
