"""A migrated MLflow store, which takes seconds to make and nothing to copy."""

import os
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a SQLite store with the project's experiment; tests use copies.

    It is one for all processes that run the tests: their temporary folders have the same parent.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "mlflow.db"
    with FileLock(folder / "mlflow.lock"):
        if not path.exists():
            from mlflow import MlflowClient

            from lever_plus.tracking.store import EXPERIMENT

            files = str(folder / "mlruns" / EXPERIMENT)
            MlflowClient(f"sqlite:///{folder / 'new.db'}").create_experiment(EXPERIMENT, files)
            (folder / "new.db").rename(path)
    return path
