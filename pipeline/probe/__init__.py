"""Probes: evaluation of feature sets without a recommender."""
