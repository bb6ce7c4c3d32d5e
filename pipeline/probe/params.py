"""Section `probe` of params.yaml."""

from __future__ import annotations

from pipeline.config.base import Positive, Section


class Probe(Section):
    """Evaluation of feature sets without a recommender (method.md section 5)."""

    ks: list[Positive] = [5, 10, 20, 50]
    width: Positive = 128
    """of every feature set after the same processing, at most: centred, reduced by PCA and whitened"""
