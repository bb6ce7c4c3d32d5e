"""DRAGON, LGMRec, DA-MRS, SMORE, PGL, MENTOR, GUME and COHESION against their references, number by number."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pipeline.models import adjacency, damrs, dualgnn, freedom, gume, infonce, lgmrec, mentor, pgl, smore
from pipeline.ops.sparse import Sparse
from tests.models.oracle import DTYPES, Oracle, Source
from tests.models.test_reference import TABLES, content, frozen
from tests.models.test_reference_graphs import linear, slots


def exact_user_item(oracle: Oracle) -> Sparse:
    """Return R_hat in the oracle's precision: the graph that was not rounded before it was used."""
    seen = adjacency.seen(oracle.split).astype(np.float64).toarray()
    return Sparse(seen / np.sqrt(np.outer(seen.sum(1), seen.sum(0))), dtype=oracle.dtype)


def tower(ours: str, theirs: str) -> dict[str, Source]:
    return {f"{ours}.taste": f"{theirs}.preference"} | (
        linear(f"{ours}.encode.0", f"{theirs}.MLP") | linear(f"{ours}.encode.2", f"{theirs}.MLP_1")
    )


def weights(theirs: str, modalities: str) -> Source:
    """Return weights of users' modalities, text first."""
    return lambda read: read(theirs)[:, :: 1 if len(modalities) == 1 else -1, 0]


@DTYPES
@pytest.mark.parametrize(("name", "modalities"),
                         [("dragon", "tv"), ("dragon_nodrop", "tv"), ("dragon_image_nodrop", "v")])  # fmt: skip
def test_dragon(dtype: torch.dtype, name: str, modalities: str) -> None:
    oracle = Oracle.load(name, dtype)
    sources: dict[str, Source] = {"attention": weights("weight_u", modalities)}
    for m, kind in enumerate(modalities):
        sources |= tower(f"towers.{m}", f"{kind}_gcn")
    network = oracle.build("dragon", sources, l2=1e-3, neighbours=oracle.hyper["user_graph_k"])
    graph = slots(oracle)  # which of equal neighbours are kept, and which are repeated, is the reference's draw
    np.testing.assert_allclose(graph.data, dualgnn.softmax_rows(slots(oracle, counts=True)).data, rtol=1e-6)
    network.users.fixed = network.users.sampled = Sparse(graph, dtype=dtype)
    if dtype == torch.float64:
        network.item_item = Sparse(frozen(oracle), dtype=dtype)
        network.graph = exact_user_item(oracle)
    terms = ["reg_image_preference", "reg_text_preference", "reg_weight_u"]
    oracle.check(network, {"bpr": ["bpr"], "l2": terms})


def queue(draws: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that gives the draws in turn, and then begins anew."""
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
def test_damrs(dtype: torch.dtype) -> None:
    oracle = Oracle.load("damrs", dtype)
    sources: dict[str, Source] = {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}
    network = oracle.build("damrs", sources)
    names = ("text", "image", "session")
    for name, ours in zip(names[:2], damrs.agreed([oracle.arrays[n] for n in names[:2]], 5), strict=True):
        np.testing.assert_allclose(ours.toarray(), oracle.arrays[f"graph_{name}"], rtol=1e-5)
    session = oracle.arrays["graph_session"]  # which of equal neighbours are kept is the reference's draw
    ours = damrs.sessions(adjacency.seen(oracle.split), 2, 2)
    np.testing.assert_allclose(ours.diagonal(), session.diagonal(), rtol=1e-5)
    assert ours.nnz == np.count_nonzero(session)
    network.graphs = [oracle.graph(name) for name in names]
    if dtype == torch.float64:
        network.graph = oracle.block()
    views, batch = network.views(), oracle.batch
    weights = damrs.trust(views.user[batch.users], views.content, batch)
    for ours, name in zip(weights, ("positive", "negative"), strict=True):
        torch.testing.assert_close(ours.float(), torch.from_numpy(oracle.arrays[f"weight_{name}"]))
    oracle.check_scores(network, vectors=True)
    neighbour = [f"neighbour_{name}" for name in names]
    oracle.check(network, {"bpr": ["bpr"], "neighbour": neighbour, "kl": ["kl"]})


@DTYPES
@pytest.mark.parametrize("name", ["smore", "smore_nodrop"])
def test_smore(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources = TABLES | content(oracle)
    for m, (kind, letter) in enumerate((("text", "t"), ("image", "v"), ("fusion", "f"))):
        sources[f"filters.{m}"] = lambda read, kind=kind: read(f"{kind}_complex_weight")[0]
        sources |= linear(f"gate.{m}", f"gate_{letter}.0") | linear(f"prefer.{m}", f"gate_{kind}_prefer.0")
        if kind != "fusion":
            sources |= linear(f"attend.{m}.0", f"query_{letter}.0")
            sources[f"attend.{m}.2.weight"] = f"query_{letter}.2.weight"
    network = oracle.build("smore", sources, layers=2, drop=oracle.hyper["dropout_rate"])
    kinds = ("text", "image", "fusion")
    for graph, kind in zip(network.item_item, kinds, strict=True):
        dense = graph.dot(torch.eye(oracle.split.n_items, dtype=dtype))
        torch.testing.assert_close(dense, oracle.tensor(f"graph_{kind}"), rtol=1e-5, atol=1e-7)
    if name == "smore":
        n = oracle.split.n_users
        whole = [oracle.tensor(f"draw_dropout_{kind}_preference") for kind in kinds]
        dropped = queue([x[:n] for x in whole] + [x[n:] for x in whole])
        monkeypatch.setattr(smore, "drop", lambda gate, rate: gate * dropped(gate))
    if dtype == torch.float64:
        network.item_item = [oracle.graph(kind) for kind in kinds]
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["l2"], "contrast": ["contrast_item", "contrast_user"]})


@DTYPES
@pytest.mark.parametrize("name", ["pgl", "pgl_nodrop", "pgl_global_nodrop"])
def test_pgl(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources = content(oracle) | {"users.0": "user_text.weight", "users.1": "user_image.weight"}
    mode, drop = oracle.hyper["mode"], oracle.hyper["dropout"]
    network = oracle.build("pgl", sources, mode="local" if mode == "whole" else mode, contrast=0.01, drop=drop)
    if name == "pgl":
        kept = sp.csr_array((oracle.block_of("subgraph") > 0).astype(np.float32))

        def thin(seen: sp.csr_array, n: int) -> sp.csr_array:
            assert n == kept.nnz == int(0.3 * seen.nnz)
            return kept

        monkeypatch.setattr(freedom, "thin", thin)
        network.start_epoch()
        order = [f"{side}_{place}" for side in ("users", "items") for place in ("first", "second")]
        dropped = queue([oracle.tensor(f"draw_dropout_{where}") for where in order])
        monkeypatch.setattr(pgl, "drop", lambda x, rate: x * swapped(dropped(x)))
    if name == "pgl_global_nodrop":
        ours = network.subgraph.dot(torch.eye(oracle.split.n_items, dtype=dtype))
        torch.testing.assert_close(ours, torch.from_numpy(oracle.block_of("subgraph")).to(dtype), rtol=1e-4, atol=1e-6)
    if dtype == torch.float64 or mode == "global":
        network.subgraph = oracle.block("subgraph")
    if dtype == torch.float64:
        network.item_item = Sparse(frozen(oracle), dtype=dtype)
    oracle.check_scores(network)
    oracle.check(network, {"bpr": ["bpr"], "contrast": ["contrast_user", "contrast_item"]})


def swapped(x: torch.Tensor) -> torch.Tensor:
    """Return [text | image] of [image | text]."""
    return torch.cat(x.chunk(2, 1)[::-1], 1)


@DTYPES
@pytest.mark.parametrize("name", ["mentor", "mentor_nodrop"])
def test_mentor(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources: dict[str, Source] = {"attention": weights("weight_u", "tv"), "ids": "id_feat"} | tower(
        "id_tower", "id_gcn"
    )
    for m, kind in enumerate("tv"):
        sources |= tower(f"towers.{m}", f"{kind}_gcn")
        for n in range(2):
            sources |= tower(f"noisy.{2 * n + m}", f"{kind}_gcn_n{n + 1}")
    sources |= {"read.weight": both_sides("mlp.weight", 2), "read.bias": both_sides("mlp.bias", 1)}
    network = oracle.build("mentor", sources, drop=oracle.hyper["dropout"])
    if name == "mentor":
        order = [(kind, n, layer) for n in (1, 2) for kind in ("text", "image") for layer in (1, 2)]
        draws = [oracle.tensor(f"draw_uniform_{kind}_{n}_layer_{layer}") for kind, n, layer in order]
        n_users = oracle.split.n_users
        monkeypatch.setattr(gume, "uniform", queue([part for x in draws for part in (x[:n_users], x[n_users:])]))
        dropped = queue([swapped(oracle.tensor(f"draw_dropout_{side}")) for side in ("users", "items")])
        monkeypatch.setattr(mentor, "drop", lambda x, rate: x * dropped(x))
    else:
        monkeypatch.setattr(gume, "uniform", torch.zeros_like)
    if dtype == torch.float64:
        network.item_item = Sparse(frozen(oracle), dtype=dtype)
        network.graph = exact_user_item(oracle)
    sides = {term: [f"{term}_user", f"{term}_item"] for term in ("mask", "contrast")}
    tables = ["reg_image_preference", "reg_text_preference", "reg_weight_u"]
    names = ("id", "both", "image", "text")
    pairs = [f"align_{x}_{y}" for x, y in combinations(names, 2)]
    oracle.check(network, {"bpr": ["bpr"], "l2": tables, "align": pairs} | sides)


def both_sides(theirs: str, axes: int) -> Source:
    """Return a map between [text | image] of one between [image | text]."""

    def read_swapped(read: Callable[[str], np.ndarray]) -> np.ndarray:
        array = read(theirs)
        for axis in range(axes):
            array = np.roll(array, array.shape[axis] // 2, axis)
        return array

    return read_swapped


@DTYPES
@pytest.mark.parametrize("name", ["gume", "gume_nodrop"])
def test_gume(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle.load(name, dtype)
    sources = TABLES | {f"modalities.{m}": f"{kind}_embedding.weight" for m, kind in enumerate(("text", "image"))}
    for m, kind in enumerate(("text", "image")):
        sources[f"extended_user.{m}"] = f"extended_{kind}_user.weight"
        sources |= linear(f"project.{m}", f"{kind}_reduce_dim") | linear(f"gate.{m}", f"{kind}_trans_dim.0")
        sources |= linear(f"prefer.{m}", f"{kind}_behavior.0")
    sources |= linear("attend.0", "separate_coarse.0") | {"attend.2.weight": "separate_coarse.2.weight"}
    network = oracle.build("gume", sources, layers=2)
    added = gume.agreed(oracle.inputs.modal_edges, oracle.split.n_items)
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


@DTYPES
@pytest.mark.parametrize("name", ["cohesion", "cohesion_nodrop"])
def test_cohesion(dtype: torch.dtype, name: str) -> None:
    oracle = Oracle.load(name, dtype)
    sources: dict[str, Source] = {"attention": weights("weight_u", "tv"), "ids": "id_feat"}
    sources |= tower("id_tower", "id_gcn")
    for m, kind in enumerate("tv"):
        sources |= tower(f"towers.{m}", f"{kind}_gcn")
    network = oracle.build("cohesion", sources, neighbours=oracle.hyper["user_graph_k"])
    network.users.fixed = network.users.sampled = Sparse(slots(oracle), dtype=dtype)
    if dtype == torch.float64:
        network.item_item = Sparse(frozen(oracle), dtype=dtype)
    terms = ["reg_image_preference", "reg_text_preference", "reg_weight_u"]
    oracle.check(network, {"bpr": ["bpr"], "l2": terms})
