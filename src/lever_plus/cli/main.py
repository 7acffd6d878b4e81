"""The entry point of `lever-plus`: joins all commands, and prints errors for people."""

import errno
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, NoReturn, TextIO

import typer

from lever_plus.cli.bench import bench_app
from lever_plus.cli.demo import demo_app
from lever_plus.cli.import_vqa import import_vqa_app
from lever_plus.cli.panels import MORE, OWN
from lever_plus.cli.select import select_app
from lever_plus.cli.serve import serve_app
from lever_plus.cli.stages import stages
from lever_plus.cli.study import study_app
from lever_plus.cli.tools import tools
from lever_plus.cli.track import track_app
from lever_plus.cli.world import world_app
from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

WHAT_TO_DO: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space and run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "let this user read and write it"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "name another file"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL), "name another file"),
    errno.EMFILE: "let this user open more files (ulimit -n)",
    errno.EIO: "the disk may be failing: restore the file from another copy",
}
"""{error of the operating system: what helps}; any other error counts as a bug of this project."""

app = typer.Typer(
    help="Learn which in-context demonstrations a frozen vision-language model should see.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
params_app = typer.Typer(help="Check or change params.yaml.", no_args_is_help=True)
app.add_typer(select_app)
app.add_typer(demo_app)
app.add_typer(serve_app)
app.add_typer(tools)
app.add_typer(params_app, name="params", rich_help_panel=OWN)
app.add_typer(import_vqa_app)
app.add_typer(stages)
app.add_typer(bench_app, name="bench", rich_help_panel=MORE)
app.add_typer(track_app, name="track", rich_help_panel=MORE)
app.add_typer(study_app, name="study", rich_help_panel=MORE)
app.add_typer(world_app, name="world", rich_help_panel=MORE)


ParamsFile = Annotated[Path, typer.Option(help="The params file.")]


@params_app.command("check")
def params_check(path: ParamsFile = Path("params.yaml")) -> None:
    """Check that params.yaml is valid."""
    from lever_plus.config.file import load_params

    load_params(path)
    typer.echo(f"{path} is valid")


@params_app.command("overlay")
def params_overlay(
    preset: Annotated[Path, typer.Argument(help="A file with some of its settings; see presets/.")],
    path: ParamsFile = Path("params.yaml"),
) -> None:
    """Merge a preset into params.yaml, keeping its comments."""
    from lever_plus.config.file import overlay

    overlay(path, preset)
    typer.echo(f"{preset} merged into {path}")


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    lines = traceback.format_exception(kind, error, trace)
    sys.stderr.write(without_secrets("".join(lines)))


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    shown = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(without_secrets(shown))


def main() -> None:
    """Run a command; errors for people are printed without a traceback, and never with a key."""
    sys.excepthook = _print_traceback
    warnings.showwarning = _print_warning
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of the output has closed it; without this, Python's own flush would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        why = WHAT_TO_DO.get(error.errno or 0)
        if why is None:
            raise
        _fail(f"{error.filename or 'a file'}: {error.strerror}: {why}.")


def _fail(message: str) -> NoReturn:
    typer.secho(without_secrets(f"lever-plus: {message}"), err=True, fg=typer.colors.RED)
    raise SystemExit(1) from None


if __name__ == "__main__":
    main()
