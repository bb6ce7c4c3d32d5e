"""BPR, LightGCN, VBPR, BM3, FREEDOM and MGCN against their reference implementations, number by number."""

from __future__ import annotations

import torch

from tests.models.oracle import DTYPES, Oracle


@DTYPES
def test_bpr(dtype: torch.dtype) -> None:
    oracle = Oracle.load("bpr", dtype)
    network = oracle.build("bpr", {"user": "user_embedding.weight", "item": "item_embedding.weight"}, l2=0.1)
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["reg"]})
