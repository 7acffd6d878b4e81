"""Baselines, per-shot evaluation and its statistics."""
