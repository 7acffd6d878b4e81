"""History files, their MLflow projection, and lineage."""
