"""The code that MLflow runs to make a selector's model; it stores this file, not a pickle."""

from mlflow.models import set_model

from lever_plus.hosts.mlflow_selector import SelectorModel

set_model(SelectorModel())
