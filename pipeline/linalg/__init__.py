"""Numerical building blocks: projections, nearest neighbours, sparse products, top K, devices."""
