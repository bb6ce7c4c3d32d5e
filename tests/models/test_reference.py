"""BPR, LightGCN, VBPR, BM3, FREEDOM and MGCN against figures of their reference implementations."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec.pipeline.models import bm3, freedom
from alignrec.pipeline.ops.sparse import Sparse
from tests.models.oracle import DTYPES, Oracle, Source

TABLES: dict[str, Source] = {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}
MODALITIES = ("text", "image")


def content(oracle: Oracle, bias: bool = True) -> dict[str, Source]:
    """Return the sources of learnable features, and of the layers that read them."""
    names = [name for name in MODALITIES if name in oracle.arrays]
    kinds = ("weight", "bias") if bias else ("weight",)
    features: dict[str, Source] = {f"modalities.{m}": f"{name}_embedding.weight" for m, name in enumerate(names)}
    maps: dict[str, Source] = {
        f"project.{m}.{kind}": f"{name}_trs.{kind}" for m, name in enumerate(names) for kind in kinds
    }
    return features | maps


PLAIN: dict[str, tuple[dict[str, Source], float]] = {
    "bpr": ({"user": "user_embedding.weight", "item": "item_embedding.weight"}, 0.1),
    "lightgcn": ({"user": "embedding_dict.user_emb", "item": "embedding_dict.item_emb"}, 0.01),
    **dict.fromkeys(
        ("vbpr", "vbpr_image"),
        ({"user": "u_embedding", "item": "i_embedding",
          "project.weight": "item_linear.weight", "project.bias": "item_linear.bias"}, 0.1),
    ),
}  # fmt: skip
"""file -> sources and weight of l2"""


@DTYPES
@pytest.mark.parametrize("name", PLAIN)
def test_bpr_lightgcn_and_vbpr(name: str, dtype: torch.dtype) -> None:
    oracle, (sources, l2) = Oracle.load(name, dtype), PLAIN[name]
    network = oracle.build(name.partition("_")[0], sources, l2=l2)
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["reg"]})


@DTYPES
@pytest.mark.parametrize("name", ["bm3", "bm3_nodrop", "bm3_image_nodrop"])
def test_bm3(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources = TABLES | content(oracle) | {f"predict.{kind}": f"predictor.{kind}" for kind in ("weight", "bias")}
    network = oracle.build("bm3", sources, layers=2, l2=0.1, drop=oracle.hyper["dropout"])
    if name == "bm3":
        draws = [oracle.tensor(f"draw_dropout_{where}") for where in ("users", "items", *MODALITIES)]
        queue: list[torch.Tensor] = []

        def drawn(like: torch.Tensor, n: int, drop: float) -> torch.Tensor:
            queue[:] = queue or draws
            assert (queue[0].shape, drop) == ((n, like.shape[1]), 0.3)
            return queue.pop(0)

        monkeypatch.setattr(bm3, "dropout_views", drawn)
    oracle.check_scores(network, vectors=True)
    terms = {
        "rec": ["user_item", "item_user"],
        "align": ["text_item", "image_item"],
        "mask": ["text_text", "image_image"],
        "l2": ["reg"],
    }
    oracle.check(network, terms)


def frozen(oracle: Oracle) -> sp.csr_array:
    """Return FREEDOM's item graph [I, I] in float64.

    The saved one is dense. The reference's is torch's sum of two sparse matrices in float32, which keeps most entries
    of both modalities apart: only the dense one has their sums rounded.
    """
    inputs, n = oracle.inputs, oracle.split.n_items
    if len(inputs.modalities) == 1:
        return sp.csr_array(oracle.arrays["graph_item_item"].astype(np.float64))
    graphs, value = [], torch.tensor(5.0).pow(-0.5).square().item()
    for edges in inputs.modal_edges:
        places = torch.from_numpy(np.array([edges["item_id"], edges["neighbour_id"]]))
        graphs.append(
            torch.sparse_coo_tensor(places, torch.full((places.shape[1],), value), (n, n), check_invariants=True)
        )
    text, image = graphs
    summed = (0.1 * image + 0.9 * text).double().coalesce()
    return sp.csr_array((summed.values().numpy(), summed.indices().numpy()), shape=(n, n))


@DTYPES
@pytest.mark.parametrize("name", ["freedom", "freedom_nodrop", "freedom_image_nodrop"])
def test_freedom(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    # ours have no bias: it cancels between two items, so the reference's has no gradient but rounding
    network = oracle.build("freedom", TABLES | content(oracle, bias=False), drop=oracle.hyper["dropout"])
    assert isinstance(network, freedom.FREEDOM)
    assert max(np.abs(oracle.arrays[f"f64_grad_{m}_trs.bias"]).max() for m in MODALITIES if m in oracle.arrays) < 1e-18
    if name == "freedom":
        users = oracle.split.n_users
        kept = sp.csr_array((oracle.arrays["graph_user_item_sampled"][:users, users:] > 0).astype(np.float32))

        def thin(seen: sp.csr_array, n: int) -> sp.csr_array:
            assert n == kept.nnz
            return kept

        monkeypatch.setattr(freedom, "thin_edges", thin)
        network.start_epoch()
    if dtype == torch.float64:
        network.item_item = Sparse(frozen(oracle), dtype=dtype)
        network.thinned = oracle.block("user_item_sampled" if name == "freedom" else "user_item")
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "modal": ["bpr_text", "bpr_image"]})


@DTYPES
def test_mgcn(dtype: torch.dtype) -> None:
    oracle = Oracle.load("mgcn", dtype)
    sources = TABLES | content(oracle)
    for ours, theirs in {
        "gate.0": "gate_t.0",
        "gate.1": "gate_v.0",
        "fuser.prefer.0": "gate_text_prefer.0",
        "fuser.prefer.1": "gate_image_prefer.0",
        "fuser.attend.0": "query_common.0",
    }.items():
        sources |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    sources["fuser.attend.2.weight"] = "query_common.2.weight"
    network = oracle.build("mgcn", sources)
    if dtype == torch.float64:
        network.item_item = [oracle.graph(name) for name in MODALITIES]
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["l2"], "contrast": ["contrast_item", "contrast_user"]})
