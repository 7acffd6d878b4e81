"""Where a result comes from: the commit, and the source files that a stage's result depends on."""

import ast
import os
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from ruamel.yaml.comments import CommentedSeq

from lever_plus.config.names import RCE
from lever_plus.errors import UserError
from lever_plus.files.yaml_files import dump_yaml, parse_yaml
from lever_plus.hub.folder import MODELS

PACKAGE = "lever_plus"
SOURCE = Path("src")
SHIPPED = SOURCE / MODELS.relative_to(MODELS.parents[2])
CODE = "the code it runs, written by `make deps`"
"""Comment in dvc.yaml between what a stage reads and the source files that it depends on."""
MODULES = {RCE: "offline"}
"""Stages whose module has another name: users know the stage by its first method."""
SHARED_SUBPACKAGES = (
    *("data", "evaluation", "features", "files", "hub", "metric", "policy", "report", "selectors"),
    "vlm",
)
"""Subpackages that a stage depends on as a whole if it imports anything from them.

The others are listed file by file: what researchers change most (config, training), and
subpackages that hold what no stage may depend on (pipeline, tracking, house_words with its recipe).
"""


def module_of(package: str, stage: str) -> str:
    """Return the module of a stage: `pipeline.sft` for sft, `pipeline.offline` for rce."""
    return f"{package}.{MODULES.get(stage, stage)}"


def git_commit() -> tuple[str, bool]:
    """Return the commit and whether the working tree differs from it.

    Where there is no repository (an image without .git), GIT_COMMIT of the environment is used,
    and "unknown" if that is not set either.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT", "unknown"), False


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def import_closure(module: str, root: Path) -> list[Path]:
    """Return the files that importing a module can run, itself included, sorted.

    Every import statement counts, those inside functions too. Package `__init__` files are left
    out: they hold docstrings only (a test sees to that).

    Args:
        module: Dotted name, such as "lever_plus.pipeline.sft".
        root: Folder that holds the package, such as src/.
    """
    found: set[Path] = set()
    open_modules = [module]
    while open_modules:
        path = _file(open_modules.pop(), root)
        if path is None or path in found:
            continue
        found.add(path)
        open_modules += _imports(path.read_text(encoding="utf-8"))
    return sorted(path for path in found if path.name != "__init__.py")


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _imports(code: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.startswith(PACKAGE))


def _short(code: list[Path], package: Path) -> list[Path]:
    """Replace files by their folder: in shared subpackages always, else if it is listed completely.

    A stage's list stays short enough to be read, and DVC, which parses its lock file between any
    two stages, keeps one entry instead of many.
    """
    short: set[Path] = set()
    for path in code:
        subpackage = path.relative_to(package).parts[0]
        modules = {p for p in path.parent.rglob("*.py") if p.name != "__init__.py"}
        if subpackage in SHARED_SUBPACKAGES:
            short.add(package / subpackage)
        elif path.parent != package and modules <= set(code):
            short.add(path.parent)
        else:
            short.add(path)
    return sorted(short)


def _is_code(dep: Path, root: Path) -> bool:
    """Return whether a dependency is in the package, and is no shipped model."""
    return dep.is_relative_to(root / SOURCE) and not dep.is_relative_to(root / SHIPPED)


def with_code_deps(
    dvc_yaml: str,
    root: Path,
    package: str = "pipeline",
    params_of: Callable[[str], Sequence[str]] | None = None,
) -> str:
    """Return dvc.yaml with every stage's code dependencies covering its import closure.

    Args:
        dvc_yaml: Content of the file; comments and all other entries stay as they are.
        root: The project's root.
        package: Subpackage of the stages, see `module_of`.
        params_of: Returns the keys of params.yaml that a stage reads; None leaves them as they are.
    """
    content = parse_yaml(dvc_yaml, "dvc.yaml", "restore it", comments=True)
    stages = content.get("stages")
    if not isinstance(stages, dict):
        raise UserError("dvc.yaml has no stages: restore it.")
    for stage, whole in stages.items():
        entry = whole.get("do", whole)
        data = [dep for dep in entry["deps"] if not _is_code(root / str(dep), root)]
        code = import_closure(f"{PACKAGE}.{module_of(package, stage)}", root / SOURCE)
        short = _short(code, root / SOURCE / PACKAGE)
        deps = CommentedSeq([*data, *(str(path.relative_to(root)) for path in short)])
        if data and short:
            deps.yaml_set_comment_before_after_key(len(data), before=CODE, indent=4)
        entry["deps"] = deps
        if params_of is not None:
            entry["params"] = CommentedSeq(params_of(stage))
            entry["params"].fa.set_flow_style()
    return dump_yaml(content)
