"""History files of trainings, the MLflow runs made from them, and which code made a result."""
