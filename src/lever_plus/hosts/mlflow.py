"""A trained selector in MLflow: logged, kept in its registry, loaded by name, served on a port.

    log_model("artifacts/grpo/seed1/grpo", read_pool("pool.jsonl"), registered_model_name="cards")
    mlflow.pyfunc.load_model("models:/cards/1").predict([{"image": ..., "question": ...}])

The model holds the checkpoint and a pool of examples with their images, so that a question is all
that it has to be asked; a request may bring a pool of its own. Its encoder is referred to as the
checkpoint does it: the shipped one is part of this package, another one is a folder. Nothing is
pickled.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any, Final

from lever_plus.data.examples import Example, hashed_query
from lever_plus.errors import UserError, needs
from lever_plus.files.writing import write_json_lines
from lever_plus.hosts.mlflow_selector import CHECKPOINT, POOL, Options, SelectionError
from lever_plus.hosts.pictures import file_url
from lever_plus.policy.checkpoint import load_checkpoint
from lever_plus.selectors.base import candidates_for
from lever_plus.selectors.learned import FILES

with needs("tracking", "lever_plus.hosts.mlflow"):
    import mlflow
    from mlflow.models import Model

__all__ = ["Options", "SelectionError", "Series", "log_model", "save_model"]
CODE: Final = Path(__file__).with_name("mlflow_model.py")
EXAMPLE: Final = ("image", "question")
"""What the model's input example has of the pool's first example."""


def log_model(
    checkpoint: str | Path,
    pool: Sequence[Example],
    options: Options | None = None,
    *,
    name: str = "selector",
    **logged: Any,
) -> Any:
    """Log a model to MLflow and return what `mlflow.pyfunc.log_model` returns.

    MLflow asks the model its input example once: the first image and question of the pool.

    Args:
        checkpoint: As in `save_model`.
        pool: As in `save_model`.
        options: How it selects.
        name: Of the logged model.
        logged: Further arguments of `mlflow.pyfunc.log_model`, such as registered_model_name.

    Raises:
        UserError: As `save_model`.
        MlflowException: The store refuses.
    """
    with TemporaryDirectory(prefix="lever_plus") as folder:
        what = _parts(Path(folder), Path(checkpoint), pool, options)
        return mlflow.pyfunc.log_model(name=name, **what, **logged)


def save_model(
    path: str | Path,
    checkpoint: str | Path,
    pool: Sequence[Example],
    options: Options | None = None,
) -> None:
    """Write a model to a folder.

    Args:
        path: A folder that is not there yet.
        checkpoint: Folder of a trained selector.
        pool: What it chooses from where a request brings no pool; images are copied.
        options: How it selects.

    Raises:
        UserError: The checkpoint is missing or damaged, an image of the pool cannot be read, or the
            pool is too small.
        MlflowException: The folder is there.
    """
    with TemporaryDirectory(prefix="lever_plus") as folder:
        mlflow.pyfunc.save_model(str(path), **_parts(Path(folder), Path(checkpoint), pool, options))


class Series:
    """Writes the models of several checkpoints that have one pool, of which most costs once."""

    def __init__(self, pool: Sequence[Example], options: Options | None = None) -> None:
        """Keep the pool and how the models select."""
        self._pool, self._options = pool, options
        self._folder = TemporaryDirectory(prefix="lever_plus")
        self._first = Path(self._folder.name) / "model"

    def save(self, path: Path, checkpoint: Path, *, run_id: str, model_id: str) -> None:
        """Write a model.

        Args:
            path: A folder that is not there yet.
            checkpoint: Folder of a trained selector.
            run_id: MLflow's, of the training.
            model_id: MLflow's, of the logged model.

        Raises:
            UserError: As `save_model`.
        """
        if not self._first.exists():
            save_model(self._first, checkpoint, self._pool, self._options)
        copytree(self._first, path, ignore=ignore_patterns(*FILES))
        _copy_checkpoint(checkpoint, path / "artifacts" / CHECKPOINT)
        model = Model.load(path)
        model.run_id, model.model_id = run_id, model_id
        model.model_uuid = Model().model_uuid
        model.save(str(path / "MLmodel"))


def _parts(
    folder: Path, checkpoint: Path, pool: Sequence[Example], options: Options | None
) -> dict[str, Any]:
    """Return what MLflow makes a model of; its files are put into a folder first."""
    if not pool:
        raise UserError("the pool is empty: a model comes with examples that it may choose from.")
    options, copied = options or Options(), folder / CHECKPOINT
    copied.mkdir()
    longest = _copy_checkpoint(checkpoint, copied)
    if options.shots > longest:
        raise UserError(f"this selector picks 1 to {longest} demonstrations, not {options.shots}.")
    # MLflow only warns where a model cannot answer its own example.
    candidates_for(hashed_query(pool[0].query), pool, options.shots)
    rows = [
        {
            "image": file_url(example.image),
            "question": example.question,
            "answer": example.answer,
            "question_id": example.question_id,
        }
        for example in pool
    ]
    file = folder / f"{POOL}.jsonl"
    write_json_lines(file, rows)
    return {
        "python_model": str(CODE),
        "artifacts": {CHECKPOINT: str(copied), POOL: str(file)},
        "model_config": options.model_dump(),
        "input_example": [{name: rows[0][name] for name in EXAMPLE}],
        "pip_requirements": [_requirement()],
    }


def _copy_checkpoint(checkpoint: Path, folder: Path) -> int:
    """Copy the files that a selector is made of, and return how many it can pick at most.

    Raises:
        UserError: The files do not belong together.
    """
    for name in FILES:
        if (checkpoint / name).is_file():
            copyfile(checkpoint / name, folder / name)
    return load_checkpoint(folder).config.architecture.shots


def _requirement() -> str:
    try:
        return f"lever-plus[tracking]=={version('lever-plus')}"
    except PackageNotFoundError:  # a checkout that is not installed
        return "lever-plus[tracking]"
