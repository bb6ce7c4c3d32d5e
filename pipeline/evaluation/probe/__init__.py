"""Probes: evaluate feature sets without training a recommender."""
