"""A fresh MLflow store for every test."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def client(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow import MlflowClient

    shutil.copy(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
