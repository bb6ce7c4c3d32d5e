"""Benchmark and study: train models on feature sets with several seeds.

Each training run is recorded as a cell.
"""
