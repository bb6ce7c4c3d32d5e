"""Item-based nearest neighbours by co-interactions or content; no training.

K neighbours per item.
"""

import numpy as np
import scipy.sparse as sp
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.dataset import cooccurrence
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Inputs, Untrained
from alignrec.pipeline.models.params import ItemKNNParams, Train


class ItemKNN(Untrained):
    """score(u, i) = sum_{j in N(i) and N_u} s(i, j) (Deshpande and Karypis 2004)."""

    Params = ItemKNNParams

    def __init__(self, inputs: Inputs, params: ItemKNNParams) -> None:
        super().__init__(inputs, params)
        self.seen = adjacency.interaction_matrix(inputs.split)  # R [U, I]
        # [I, I], K per item
        self.similarity = similar_items(self.seen, params.neighbours, params.shrink)

    def forward(self) -> tuple[sp.csr_array, sp.csr_array]:
        return self.seen, self.similarity


class ContentKNN(Untrained):
    """score(u, i) = sum_{j in N_u} cos(f_i, f_j) / |N_u|: mean cosine to the user's train items."""

    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Train) -> None:
        super().__init__(inputs, params)
        assert inputs.features is not None
        self.direction = nnf.normalize(inputs.features)  # [I, F]
        seen = adjacency.interaction_matrix(inputs.split)
        self.mean = Sparse(adjacency.normalise_rows(seen), inputs.device)  # D_u^-1 R [U, I]

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.mean.dot(self.direction), self.direction


def similar_items(seen: sp.csr_array, k: int, shrink: float = 0.0) -> sp.csr_array:
    """Return s(i, j) = |U_i and U_j| / (sqrt(|U_i| |U_j|) + h), float32 [I, I].

    The top K per item are kept, ties by item.
    """
    users_per_item = seen.sum(axis=0).astype(np.float64)
    blocks = []
    for items, squares in cooccurrence.squared_cosines(seen):
        row_items = items[cooccurrence.row_numbers(squares)]
        norms = np.sqrt(users_per_item[row_items] * users_per_item[squares.indices])
        squares.data *= (norms / (norms + shrink)) ** 2
        blocks.append(cooccurrence.top_k(squares, k))
    squared = sp.vstack(blocks, format="csr")
    return sp.csr_array(np.sqrt(squared).astype(np.float32))
