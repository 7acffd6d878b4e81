"""Ablations: variants of the pipeline, each run from the first stage that it changes."""
