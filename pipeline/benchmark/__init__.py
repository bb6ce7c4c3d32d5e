"""Benchmark and study: train models on feature sets with several seeds, each training run recorded as a cell."""
