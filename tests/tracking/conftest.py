"""A fresh MLflow store for every test."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lever_plus.tracking.store import EXPERIMENT


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite store; making one takes seconds, copying it does not.

    One for all processes that run the tests: their temporary folders have the same parent.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "mlflow.db"
    with FileLock(folder / "mlflow.lock"):
        if not path.exists():
            MlflowClient(f"sqlite:///{folder / 'new.db'}").create_experiment(EXPERIMENT)
            (folder / "new.db").rename(path)
    return path


@pytest.fixture
def client(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow import MlflowClient

    shutil.copy(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
