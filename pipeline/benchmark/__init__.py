"""Benchmark and study: train models on feature sets with several seeds, each training recorded as a cell."""
