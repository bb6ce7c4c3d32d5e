"""Fillings of missing modalities that train nothing (arXiv 2602.17354). I items, F width.

Vectors of items that lack the modality are zero, and only theirs are replaced.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import expm_multiply

from alignrec.pipeline.dataset.cooccurrence import top_k
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.models import adjacency

NEIGHBOURS = 20  # most often bought with an item
HOPS = 3
TELEPORT = 0.1  # of personalised PageRank; this and the next as in the authors' code
HEAT = 5.0  # time of diffusion


def copurchase_graph(split: Split, neighbours: int = NEIGHBOURS) -> sp.csr_array:
    """Return which items are often bought with each other in train, symmetric float32 [I, I]."""
    bought = adjacency.interaction_matrix(split)
    together = sp.csr_array(bought.T @ bought)
    together.setdiag(0)
    together.eliminate_zeros()
    nearest = top_k(together, neighbours)
    nearest.data[:] = 1
    return sp.csr_array(nearest.maximum(nearest.T))


def keep_zeros(graph: sp.csr_array, known: np.ndarray, has: np.ndarray) -> np.ndarray:
    return known


def average_neighbours(graph: sp.csr_array, known: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return D^-1 A X: neighbours that lack the modality count as zeros."""
    return np.asarray(adjacency.normalise_rows(graph) @ known)


def propagate(graph: sp.csr_array, known: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return X after HOPS of X <- D^-1/2 A D^-1/2 X, each of which restores the known rows."""
    step = adjacency.normalise_by_degrees(graph)
    filled = known
    for _ in range(HOPS):
        filled = np.where(has[:, None], known, step @ filled)
    return filled


def rank_by_visits(graph: sp.csr_array, known: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return X after HOPS of X <- (1 - a) D^-1/2 A D^-1/2 X + a X_0: personalised PageRank."""
    step = adjacency.normalise_by_degrees(graph)
    filled = known
    for _ in range(HOPS):
        filled = (1 - TELEPORT) * (step @ filled) + TELEPORT * known
    return filled


def diffuse_heat(graph: sp.csr_array, known: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return exp(-t (1 - D^-1/2 A D^-1/2)) X."""
    step = adjacency.normalise_by_degrees(graph).astype(np.float64)
    laplacian = sp.eye_array(len(known), format="csr") - step
    return np.asarray(expm_multiply(-HEAT * laplacian, known.astype(np.float64)))


FILLINGS: dict[str, Callable[[sp.csr_array, np.ndarray, np.ndarray], np.ndarray]] = {
    "zeros": keep_zeros,
    "neighbours' mean": average_neighbours,
    "several hops": propagate,
    "personalised PageRank": rank_by_visits,
    "heat": diffuse_heat,
}


def fill_missing(
    name: str, graph: sp.csr_array, vectors: np.ndarray, lacks: np.ndarray
) -> np.ndarray:
    """Return the vectors, float32 [I, F], with those of items that lack them filled; bool [I]."""
    has = ~lacks
    known = np.where(has[:, None], vectors, np.float32(0))
    filled = FILLINGS[name](graph, known, has)
    return np.where(has[:, None], vectors, filled).astype(np.float32)
