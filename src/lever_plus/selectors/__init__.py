"""Selectors, which choose demonstrations for a query: learned ones and baselines."""
