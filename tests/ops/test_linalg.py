"""Whitening of feature vectors."""

import numpy as np

from alignrec.pipeline.ops import linalg


def test_directions_vary_equally_afterwards() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 3)) * [10.0, 3.0, 1.0] @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 7
    white = linalg.fit_whitening(x).apply(x)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.05)


def test_equal_vectors_are_only_moved() -> None:
    x = np.full((4, 2), 3.0, np.float32)
    actual = linalg.fit_whitening(x)
    np.testing.assert_array_equal(actual.apply(x), 0)
    np.testing.assert_allclose(actual.apply(np.array([[4.0, 3.0]], np.float32)), [[1, 0]], atol=1e-6)
