"""Numerical building blocks: products, normalisation, top K, devices, checkpoints."""
