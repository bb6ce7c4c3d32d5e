"""Baselines against figures of their reference implementations."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency, bm3, dualgnn, freedom, mmgcn, slmrec
from alignrec.pipeline.models.base import Batch
from alignrec.pipeline.models.lattice import LATTICE
from alignrec.pipeline.models.mmgcn import MMGCN
from tests.models.oracle import DTYPES, Arrays, Oracle, Source

TABLES: dict[str, Source] = {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}
MODALITIES = ("text", "image")
USERS = 60


def linear(ours: str, theirs: str) -> dict[str, Source]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def rows(theirs: str, users: bool) -> Source:
    """Return the rows of users or of items of a joint table."""
    return lambda read: read(theirs)[:USERS] if users else read(theirs)[USERS:]


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
    sources = TABLES | content(oracle) | linear("predict", "predictor")
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
        sources |= linear(ours, theirs)
    sources["fuser.attend.2.weight"] = "query_common.2.weight"
    network = oracle.build("mgcn", sources)
    if dtype == torch.float64:
        network.item_item = [oracle.graph(name) for name in MODALITIES]
    oracle.check_scores(network, vectors=True)
    oracle.check(network, {"bpr": ["bpr"], "l2": ["l2"], "contrast": ["contrast_item", "contrast_user"]})


# --- models over graphs


@DTYPES
@pytest.mark.parametrize("name", ["lattice", "lattice_image"])
def test_lattice(dtype: torch.dtype, name: str) -> None:
    oracle = Oracle.load(name, dtype)
    modalities = [kind for kind in MODALITIES if kind in oracle.arrays]

    def weights(read: Arrays) -> np.ndarray:
        return np.flip(read("modal_weight")).copy() if len(modalities) > 1 else np.zeros(1)

    def build() -> LATTICE:
        network = oracle.build("lattice", TABLES | content(oracle) | {"importance": weights}, l2=1e-3)
        assert isinstance(network, LATTICE)
        if dtype == torch.float64:  # these were rounded to float32 before they were used
            network.fixed = [oracle.graph(f"{kind}_original") for kind in modalities]
            network.walk = oracle.graph("user_item")
        return network

    network = build()
    oracle.check_scores(network, vectors=True)
    oracle.check_loss(network, {"bpr": ["bpr"], "l2": ["l2"]})
    network.start_epoch()
    oracle.check_gradients(network)
    oracle.check_adam(network, before_step=lambda _: network.start_epoch())
    oracle.check_scores(network, "scores_after_adam")
    oracle.check_adam(build(), "losses_adam_one_epoch")


def mmgcn_sources(*modalities: str) -> dict[str, Source]:
    sources: dict[str, Source] = {f"{side}": rows("id_embedding", side == "user") for side in ("user", "item")}
    for m, kind in enumerate(modalities):
        sources[f"taste.{m}"] = f"{kind}_gcn.preference"
        if kind == "v":
            sources |= linear(f"project.{m}", "v_gcn.MLP")
        for n in range(3):
            ours = f"layers.{3 * m + n}"
            sources[f"{ours}.message.weight"] = lambda read, name=f"{kind}_gcn.conv_embed_{n + 1}.weight": read(name).T
            sources |= linear(f"{ours}.own", f"{kind}_gcn.linear_layer{n + 1}")
            sources |= linear(f"{ours}.merge", f"{kind}_gcn.g_layer{n + 1}")
    return sources


def exact_mean(network: MMGCN, oracle: Oracle) -> None:
    """Replace float32 means by ones that are exact in the network's precision."""
    seen = adjacency.interaction_matrix(oracle.split).astype(np.float64).toarray()
    network.to_user = Sparse(seen / seen.sum(1, keepdims=True), dtype=oracle.dtype)
    network.to_item = Sparse(seen.T / seen.T.sum(1, keepdims=True), dtype=oracle.dtype)


@DTYPES
@pytest.mark.parametrize(("name", "modalities"), [("mmgcn", "tv"), ("mmgcn_image", "v")])
def test_mmgcn(dtype: torch.dtype, name: str, modalities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmgcn, "PROJECTED_WIDTH", 32)
    oracle = Oracle.load(name, dtype)

    def build() -> MMGCN:
        network = oracle.build("mmgcn", mmgcn_sources(*modalities), l2=0.01)
        assert isinstance(network, MMGCN)
        if dtype == torch.float64:
            exact_mean(network, oracle)
        return network

    network = build()  # its tables trained, as in losses_adam_trained, to see their gradients too
    for table in (network.user, network.item, *network.taste):
        assert not table.requires_grad
        table.requires_grad_(True)
    oracle.check_scores(network, vectors=True)
    oracle.check_loss(network, {"bpr": ["bpr"], "l2_ids": ["reg_id"], "l2_taste": ["reg_image_preference"]})
    oracle.check_gradients(network)
    oracle.check_adam(network, "losses_adam_trained")
    network = build()
    oracle.check_adam(network)
    oracle.check_scores(network, "scores_after_adam")


def grcn_sources(*modalities: str) -> dict[str, Source]:
    confidence = "model_specific_conf"  # columns: image, text

    def trust(users: bool) -> Source:
        return lambda read: np.fliplr(read(confidence)[:USERS] if users else read(confidence)[USERS:]).copy()

    sources: dict[str, Source] = {"user_trust": trust(True), "item_trust": trust(False)}
    sources |= {side: rows("id_gcn.id_embedding", side == "user") for side in ("user", "item")}
    for m, kind in enumerate(modalities):
        sources[f"prototype.{m}"] = f"{kind}_gcn.preference"
        sources |= linear(f"project.{m}", f"{kind}_gcn.MLP")
    return sources


@DTYPES
@pytest.mark.parametrize(("name", "modalities"), [("grcn", "tv"), ("grcn_image", "v")])
def test_grcn(dtype: torch.dtype, name: str, modalities: str) -> None:
    oracle = Oracle.load(name, dtype)
    network = oracle.build("grcn", grcn_sources(*modalities), l2=0.01)
    tables = ["reg_image_preference_all", "reg_image_preference_batch", "reg_text_preference_batch"]
    oracle.check(network, {"bpr": ["bpr"], "l2_ids": ["reg_id"], "l2_prototype": tables})


def dualgnn_sources(*modalities: str) -> dict[str, Source]:
    def weights(theirs: str) -> Source:
        return lambda read: read(theirs)[:, :: 1 if len(modalities) == 1 else -1, 0]

    sources: dict[str, Source] = {"attention": weights("weight_u"), "item_attention": weights("weight_i")}
    for m, kind in enumerate(modalities):
        sources[f"taste.{m}"] = f"{kind}_gcn.preference"
        sources |= linear(f"project.{m}.0", f"{kind}_gcn.MLP") | linear(f"project.{m}.2", f"{kind}_gcn.MLP_1")
    return sources


def slots(oracle: Oracle, counts: bool = False) -> sp.csr_array:
    """Return the sampled user graph [U, U] without repeats: weights, or numbers of common items."""
    chosen, weights = oracle.arrays["graph_user_slots"], oracle.arrays["graph_user_slot_weights"]
    if counts:
        weights = np.take_along_axis(oracle.arrays["graph_user_common_items"], chosen, 1)
    starts = np.arange(len(chosen) + 1) * chosen.shape[1]
    return sp.csr_array((weights.ravel(), chosen.ravel(), starts), shape=(USERS, USERS))


@DTYPES
@pytest.mark.parametrize(("name", "modalities"),
                         [("dualgnn", "tv"), ("dualgnn_nodrop", "tv"), ("dualgnn_image_nodrop", "v")])  # fmt: skip
def test_dualgnn(dtype: torch.dtype, name: str, modalities: str) -> None:
    oracle = Oracle.load(name, dtype)
    network = oracle.build("dualgnn", dualgnn_sources(*modalities), l2=0.01, neighbours=oracle.hyper["user_graph_k"])
    # which of equal neighbours are kept, and which are repeated, is the reference's draw
    graph = slots(oracle)
    np.testing.assert_allclose(graph.data, dualgnn.softmax_rows(slots(oracle, counts=True)).data, rtol=1e-6)
    network.ranking_neighbours = network.epoch_neighbours = Sparse(graph, dtype=dtype)
    if dtype == torch.float64:
        seen = adjacency.interaction_matrix(oracle.split).astype(np.float64).toarray()
        network.graph = Sparse(seen / np.sqrt(np.outer(seen.sum(1), seen.sum(0))), dtype=dtype)
    tastes, weights = ["reg_image_preference", "reg_text_preference"], ["reg_weight_u", "reg_weight_i"]
    oracle.check(network, {"bpr": ["bpr"], "l2_taste": tastes, "l2_weights": weights})


def slmrec_sources() -> dict[str, Source]:
    def fused(side: str) -> Source:
        """Return the columns [id | text | image] of the reference's [id | image | text]."""
        return lambda read: np.hstack(
            [np.split(read(f"embedding_{side}_after_GCN.weight"), 3, 1)[n] for n in (0, 2, 1)]
        )

    sources: dict[str, Source] = {side: f"embedding_{side}.weight" for side in ("user", "item")}
    for side in ("user", "item"):
        sources |= {f"fuse_{side}.weight": fused(side), f"fuse_{side}.bias": f"embedding_{side}_after_GCN.bias"}
    for ours, theirs in {
        **{"project.0": "t_dense", "project.1": "v_dense"},
        **{
            "chain.0": "g_i_iv",
            "chain.1": "g_iv_iva",
            "chain.2": "g_iva_ivat",
            "heads.0": "g_v_iv",
            "heads.1": "g_t_ivat",
        },
    }.items():
        sources |= linear(ours, theirs)
    return sources


def without_sigmoid(oracle: Oracle) -> Oracle:
    """Undo the reference's sigmoid: our scores are dot products, with the same ranking."""
    for key in (k for k in oracle.arrays if "scores" in k):
        scores = oracle.arrays[key].astype(np.float64)
        oracle.arrays[key] = np.log(scores / (1 - scores))
    return oracle


@DTYPES
def test_slmrec(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slmrec, "CHAIN_WEIGHT", 0.1)
    oracle = without_sigmoid(Oracle.load("slmrec", dtype))
    settings = {"layers": 2, "temperature": 0.2}
    network = oracle.build("slmrec", slmrec_sources(), l2=0.0, **settings)
    terms = {"main": ["main"], "fac": ["ssl_image_id", "ssl_text_id"], "l2": []}
    oracle.check_scores(network, vectors=True)
    oracle.check(network, terms)


@DTYPES
def test_slmrec_decays_as_adam_does(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slmrec, "CHAIN_WEIGHT", 0.1)
    oracle = Oracle.load("slmrec", dtype)
    network = oracle.build("slmrec", slmrec_sources(), l2=1e-4, layers=2)
    loss = network.loss

    def without_value(batch: Batch) -> dict[str, Tensor]:
        """The l2 term with its gradient only: the reference has it in Adam and not in its loss."""
        terms = loss(batch)
        return terms | {"l2": terms["l2"] - terms["l2"].detach()}

    network.loss = without_value  # type: ignore[method-assign]
    oracle.check_adam(network, "losses_adam_wd")
