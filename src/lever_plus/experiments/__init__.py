"""Experiments around the pipeline: ablations and the study."""
