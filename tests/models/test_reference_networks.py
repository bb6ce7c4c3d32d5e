"""LGMRec and GUME against their references, number by number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pipeline.models import adjacency, gume, infonce, lgmrec
from pipeline.ops.sparse import Sparse
from tests.models.oracle import DTYPES, Oracle, Source
from tests.models.test_reference import TABLES
from tests.models.test_reference_graphs import linear


def queue(draws: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that cycles through the draws."""
    left: list[torch.Tensor] = []

    def drawn(like: torch.Tensor, *_: object) -> torch.Tensor:
        left[:] = left or draws
        assert left[0].shape == like.shape
        return left.pop(0)

    return drawn


@DTYPES
@pytest.mark.parametrize("name", ["lgmrec", "lgmrec_nodrop"])
def test_lgmrec(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources: dict[str, Source] = {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}
    for m, (kind, letter) in enumerate((("text", "t"), ("image", "v"))):
        sources |= {f"project.{m}": f"item_{kind}_trs", f"edges.{m}": f"{letter}_hyper"}
    network = oracle.build("lgmrec", sources, keep=oracle.hyper["keep_rate"], hyperedges=4)
    order = [f"{side}_{kind}" for kind in ("text", "image") for side in ("users", "items")]
    if name == "lgmrec":
        network.noise = [oracle.tensor(f"draw_gumbel_eval_{where}") for where in order]
        draws = {
            kind: [oracle.tensor(f"draw_{kind}_{where}") for where in order] for kind in ("gumbel", "dropout_drop")
        }
        dropped = queue(draws["dropout_drop"])
        monkeypatch.setattr(lgmrec, "gumbel", queue(draws["gumbel"]))
        monkeypatch.setattr(lgmrec, "drop", lambda assigned, rate: assigned * dropped(assigned))
    else:
        network.noise = [torch.zeros(1)] * 4
        monkeypatch.setattr(lgmrec, "gumbel", torch.zeros_like)
    if dtype == torch.float64:
        seen = adjacency.seen(oracle.split).astype(np.float64).toarray()
        inverse = oracle.arrays["graph_inverse_degrees"][: oracle.split.n_users]
        network.mean = Sparse(seen * inverse, dtype=dtype)  # rounded to float32 before it was used
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["reg"], "contrast": ["contrast_user", "contrast_item"]})


@pytest.mark.parametrize("rows", [2, 512])
def test_negatives_from_a_whole_table_are_a_softmax_over_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infonce, "ROWS", rows)
    torch.manual_seed(0)
    x, y, at = torch.randn(5, 3).double(), torch.randn(7, 3).double(), torch.tensor([6, 0, 3, 3, 1])
    x, y = (z.div(z.norm(dim=1, keepdim=True)).requires_grad_() for z in (x, y))
    slow = torch.nn.functional.cross_entropy(x @ y.T / 0.2, at, reduction="sum")
    torch.testing.assert_close(infonce.cross_nce(x, y, at, 0.2), slow)
    assert torch.autograd.gradcheck(lambda x, y: infonce.cross_nce(x, y, at, 0.2), (x, y))


@DTYPES
@pytest.mark.parametrize("name", ["gume", "gume_nodrop"])
def test_gume(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources = TABLES | {f"modalities.{m}": f"{kind}_embedding.weight" for m, kind in enumerate(("text", "image"))}
    for m, kind in enumerate(("text", "image")):
        sources[f"extended_user.{m}"] = f"extended_{kind}_user.weight"
        sources |= linear(f"project.{m}", f"{kind}_reduce_dim") | linear(f"gate.{m}", f"{kind}_trans_dim.0")
        sources |= linear(f"fuser.prefer.{m}", f"{kind}_behavior.0")
    sources |= linear("fuser.attend.0", "separate_coarse.0") | {"fuser.attend.2.weight": "separate_coarse.2.weight"}
    network = oracle.build("gume", sources, layers=2)
    added = gume.agreement(oracle.inputs.modal_edges, oracle.split.n_items)
    np.testing.assert_array_equal(added.toarray() > 0, oracle.arrays["graph_added_item_edges"] > 0)
    n = oracle.split.n_users
    whole = oracle.arrays["graph_user_item_item"]
    for ours, theirs in zip(gume.extended_graph(adjacency.seen(oracle.split), added),
                            (whole[:n, n:], whole[n:, n:]), strict=True):  # fmt: skip
        np.testing.assert_allclose(ours.toarray(), theirs, rtol=1e-5)
    if name == "gume":
        order = [f"{view}_{copy}" for view in ("integrated", "extended") for copy in (1, 2)]
        monkeypatch.setattr(gume, "uniform", queue([oracle.tensor(f"draw_uniform_{where}") for where in order]))
    else:
        monkeypatch.setattr(gume, "uniform", torch.zeros_like)
    if dtype == torch.float64:
        blocks = (sp.csr_array(part) for part in (whole[:n, n:], whole[n:, n:]))
        network.graph = gume.Graph(*(Sparse(block, dtype=dtype) for block in blocks))
        network.item_item = [oracle.graph(kind) for kind in ("text", "image")]
    oracle.check_scores(network, vectors=True)
    users = ["user_modality", "user_noise_integrated", "user_noise_extended"]
    terms = {"bpr": ["bpr"], "l2": ["l2"], "extended_l2": ["l2_extended_items"], "align": ["align_image_text"]}
    oracle.check(network, terms | {"behaviour": ["behaviour_user", "behaviour_item"], "users": users})
