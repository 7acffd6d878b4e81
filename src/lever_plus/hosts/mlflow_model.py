"""What MLflow runs to make the model of a selector: it is kept as this code, nothing is pickled."""

from mlflow.models import set_model

from lever_plus.hosts.mlflow_selector import SelectorModel

set_model(SelectorModel())
