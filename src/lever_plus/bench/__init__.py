"""Benchmarks of speed and memory; figures are compared only within one run on one machine."""
