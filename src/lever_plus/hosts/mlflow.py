"""A trained selector as an MLflow model, which can be logged, registered, loaded and served.

    log_model("artifacts/grpo/seed1/grpo", read_pool("pool.jsonl"), registered_model_name="cards")
    mlflow.pyfunc.load_model("models:/cards/1").predict([{"image": ..., "question": ...}])

The model contains the checkpoint and a pool of examples with their images, so a request needs only
an image and a question; it may bring a pool of its own. The encoder is not part of the model: the
checkpoint names the shipped encoder, which comes with this package, or a folder. Nothing is
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
from lever_plus.selectors.learned import FILES, check_shots

with needs("tracking", "lever_plus.hosts.mlflow"):
    import mlflow
    from mlflow.models import Model

__all__ = ["Options", "SelectionError", "Series", "log_model", "save_model"]
CODE: Final = Path(__file__).with_name("mlflow_model.py")
EXAMPLE: Final = ("image", "question")
"""Fields of the pool's first example that become the model's input example."""


def log_model(
    checkpoint: str | Path,
    pool: Sequence[Example],
    options: Options | None = None,
    *,
    name: str = "selector",
    **logged: Any,
) -> Any:
    """Log a model to MLflow; return what `mlflow.pyfunc.log_model` returns.

    MLflow runs the model once on its input example, the first image and question of the pool.

    Args:
        checkpoint: Folder of a trained selector.
        pool: The model's own pool, see `save_model`.
        options: How the model selects.
        name: Name of the logged model.
        logged: Further arguments of `mlflow.pyfunc.log_model`, such as registered_model_name.

    Raises:
        UserError: See `save_model`.
        MlflowException: MLflow's store refuses the model.
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
        path: A folder that does not exist yet.
        checkpoint: Folder of a trained selector.
        pool: Examples to choose from if a request does not bring a pool; their images are copied.
        options: How the model selects.

    Raises:
        UserError: The checkpoint is missing or damaged, an image of the pool can't be read, or the
            pool is too small.
        MlflowException: The folder already exists.
    """
    with TemporaryDirectory(prefix="lever_plus") as folder:
        mlflow.pyfunc.save_model(str(path), **_parts(Path(folder), Path(checkpoint), pool, options))


class Series:
    """Writes models of several checkpoints with the same pool; most of the work is done once."""

    def __init__(self, pool: Sequence[Example], options: Options | None = None) -> None:
        """Keep the pool and how the models select."""
        self._pool, self._options = pool, options
        self._folder = TemporaryDirectory(prefix="lever_plus")
        self._first = Path(self._folder.name) / "model"

    def save(self, path: Path, checkpoint: Path, *, run_id: str, model_id: str) -> None:
        """Write a model.

        Args:
            path: A folder that does not exist yet.
            checkpoint: Folder of a trained selector.
            run_id: Id of the training's run in MLflow.
            model_id: Id of the logged model in MLflow.

        Raises:
            UserError: See `save_model`.
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
    """Put the model's files into a folder; return the arguments with which MLflow makes it."""
    if not pool:
        raise UserError("the pool is empty: a model needs examples that it can choose from.")
    options, copied = options or Options(), folder / CHECKPOINT
    copied.mkdir()
    check_shots(options.shots, _copy_checkpoint(checkpoint, copied))
    # Checked here, because MLflow only warns if a model can't answer its own input example.
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
    """Copy the files of a selector; return how many demonstrations it can pick at most.

    Raises:
        UserError: A file is missing or damaged, or the files do not belong together.
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
