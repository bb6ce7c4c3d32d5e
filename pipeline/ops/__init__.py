"""Numerical building blocks: matrix products, linear algebra, top K, devices, checkpoints."""
