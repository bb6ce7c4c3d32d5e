"""Benchmark and study: trainings over models, feature sets and seeds, each recorded as a cell."""
