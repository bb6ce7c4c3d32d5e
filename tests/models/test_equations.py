"""Each baseline's key equations, against slow float64 versions written from the paper's formulas, node by node.

Models that follow a reference implementation by default are tested here in their variant `paper`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.graph import neighbours
from pipeline.interactions import cooccurrence
from pipeline.interactions.split import Pairs, Split
from pipeline.models import MODELS, adjacency, bm3, dualgnn, freedom, grcn, itemknn, lattice, slmrec
from pipeline.models.base import Batch, Inputs, Recommender
from pipeline.ops.edges import SparsityPattern

PAIRS = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 4), (4, 4), (4, 1)]  # user 5, item 5: none
USERS = ITEMS = 6
SEEN = np.zeros((USERS, ITEMS))
SEEN[tuple(np.array(PAIRS).T)] = 1
PARTS = [3, 2]
DIM = 4
NONE = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32))
SPLIT = Split(USERS, ITEMS, Pairs(*np.array(sorted(PAIRS), np.int32).T), NONE, NONE)
FEATURES = np.random.default_rng(0).normal(size=(ITEMS, sum(PARTS))).astype(np.float32)
EDGES = neighbours.neighbours(FEATURES, 3)
BATCH = Batch(torch.tensor([0, 1, 2, 1]), torch.tensor([1, 3, 3, 2]), torch.tensor([4, 0, 2, 5]))


def case(model: str, **keys: object) -> tuple[Recommender, dict[str, np.ndarray], list[np.ndarray]]:
    """Return a model, its parameters in float64, and the feature matrix of each modality in float64."""
    settings = MODELS[model].Params(dim=DIM, **keys)
    torch.manual_seed(0)
    inputs = Inputs(SPLIT, torch.from_numpy(FEATURES), EDGES, torch.device("cpu"), tuple(PARTS))
    network = MODELS[model](inputs, settings)
    for parameter in network.parameters():  # no zeros or ones that would hide a term
        torch.nn.init.normal_(parameter, std=0.5)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    return network, state, np.split(FEATURES.astype(np.float64), [PARTS[0]], axis=1)


def linear(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def light(user: np.ndarray, item: np.ndarray, layers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The sum of layers 0 .. L of LightGCN."""
    norm = np.array([[SEEN[u, i] and SEEN[u, i] / np.sqrt(SEEN[u].sum() * SEEN[:, i].sum()) for i in range(ITEMS)]
                     for u in range(USERS)])  # fmt: skip
    users, items = user, item
    for _ in range(layers):
        user, item = norm @ item, norm.T @ user
        users, items = users + user, items + item
    return users, items


def balanced(w: np.ndarray) -> np.ndarray:
    degree = w.sum(1)
    return np.array([[w[i, j] / np.sqrt(degree[i] * degree[j]) if w[i, j] else 0.0 for j in range(len(w))]
                     for i in range(len(w))])  # fmt: skip


def nearest(features: np.ndarray, k: int = 3) -> np.ndarray:
    """Cosine of each row's K nearest rows, itself among them, elsewhere 0."""
    cosine = unit(features) @ unit(features).T
    kept = np.argsort(-cosine, axis=1)[:, :k]
    w = np.zeros_like(cosine)
    np.put_along_axis(w, kept, np.take_along_axis(cosine, kept, 1), 1)
    return w


def info_nce(x: np.ndarray, y: np.ndarray, temperature: float) -> float:
    logits = unit(x) @ unit(y).T / temperature
    return float(np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)]))


def vectors(network: Recommender) -> tuple[np.ndarray, np.ndarray]:
    network.eval()
    with torch.no_grad():
        user, item = network()
    return user.numpy(), item.numpy()


def close(ours: object, slow: object) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(slow), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shrink", [0.0, 2.5])
def test_itemknn_is_cosine_of_who_bought(shrink: float) -> None:
    near = itemknn.similar(adjacency.seen(SPLIT), 2, shrink).toarray()
    bought = [{u for u, i in PAIRS if i == item} for item in range(ITEMS)]
    for i in range(ITEMS):
        all_others = {
            j: len(bought[i] & bought[j]) / (np.sqrt(len(bought[i]) * len(bought[j])) + shrink)
            for j in range(ITEMS)
            if j != i and bought[i] & bought[j]
        }
        best = sorted(all_others, key=lambda j: (-all_others[j], j))[:2]
        close(near[i], [all_others[j] if j in best else 0.0 for j in range(ITEMS)])


def test_contentknn_is_the_mean_cosine_with_the_history() -> None:
    user, item = vectors(case("contentknn")[0])
    directions = unit(FEATURES.astype(np.float64))
    for u in range(USERS):
        history = [i for v, i in PAIRS if v == u]
        for i in range(ITEMS):
            close(user[u] @ item[i], np.mean([directions[i] @ directions[j] for j in history]) if history else 0.0)


def squares(rows: list[np.ndarray]) -> float:
    return 0.1 * sum((x**2).sum() for x in rows) / (2 * 2048)


@pytest.mark.parametrize("model", ["bpr", "lightgcn"])
def test_the_papers_of_bpr_and_lightgcn_square_the_rows_of_layer_0(model: str) -> None:
    network, p, _ = case(model, variant="paper", l2=0.1)
    user, item = (x / 3 for x in light(p["user"], p["item"])) if model == "lightgcn" else (p["user"], p["item"])
    ranked = (user[BATCH.users] * (item[BATCH.positives] - item[BATCH.negatives])).sum(1)
    loss = network.loss(BATCH)
    close(loss["bpr"].item(), -np.log(sigmoid(ranked)).mean())
    close(loss["l2"].item(), squares([p["user"][BATCH.users], p["item"][BATCH.positives], p["item"][BATCH.negatives]]))


def test_the_paper_of_vbpr_has_biases_and_no_penalty_on_projected_content() -> None:
    network, p, _ = case("vbpr", variant="paper", l2=0.1)
    user, features = p["user"], unit(FEATURES.astype(np.float64))
    scores = user[:, :DIM] @ p["item"].T + user[:, DIM:] @ (features @ p["project.weight"].T).T
    scores += p["bias"] + features @ p["visual_bias"]
    ours = vectors(network)
    close(ours[0] @ ours[1].T, scores)
    u, i, j = BATCH.users.numpy(), BATCH.positives.numpy(), BATCH.negatives.numpy()
    loss = network.loss(BATCH)
    close(loss["bpr"].item(), -np.log(sigmoid(scores[u, i] - scores[u, j])).mean())
    close(loss["l2"].item(), squares([user[u], p["item"][i], p["item"][j], p["project.weight"], p["visual_bias"]]))


@pytest.mark.parametrize("model", ["bpr", "lightgcn", "vbpr", "freedom", "mgcn", "bm3"])
def test_the_reference_is_the_default(model: str) -> None:
    assert MODELS[model].Params().model_dump()["variant"] == "reference"


def test_tables_start_as_the_reference_draws_them() -> None:
    inputs = Inputs(SPLIT, torch.from_numpy(FEATURES), EDGES, torch.device("cpu"))
    settings = {"dim": 3000}
    bound = np.sqrt(6 / (USERS + 3000))
    for variant, inside in {"reference": False, "paper": True}.items():
        torch.manual_seed(0)
        network = MODELS["bpr"](inputs, MODELS["bpr"].Params.model_validate(settings | {"variant": variant}))
        table = dict(network.named_parameters())["user"].detach()
        assert bool(table.abs().max() <= bound) == inside  # uniform has a bound, normal goes beyond
    vbpr = dict(MODELS["vbpr"](inputs, MODELS["vbpr"].Params(dim=DIM)).named_parameters())
    assert vbpr["user"].shape == (USERS, 2 * DIM)
    assert not vbpr["project.bias"].any()


def test_mmgcn() -> None:
    network, p, modalities = case("mmgcn", variant="paper", layers=2)
    users, items = np.zeros((USERS, DIM)), np.zeros((ITEMS, DIM))
    for m, features in enumerate(modalities):
        user, item = p[f"taste.{m}"], linear(p, f"project.{m}", features)
        for layer in (2 * m, 2 * m + 1):

            def walk(own: np.ndarray, others: np.ndarray, ids: np.ndarray, who: np.ndarray, layer: int) -> np.ndarray:
                out = np.zeros((len(own), DIM))
                for n in range(len(own)):
                    heard = [linear(p, f"layers.{layer}.message", others[j]) for j in np.flatnonzero(who[n])]
                    h = leaky(np.mean(heard, axis=0)) if heard else np.zeros(DIM)
                    mine = leaky(linear(p, f"layers.{layer}.own", own[n])) + ids[n]
                    out[n] = leaky(linear(p, f"layers.{layer}.merge", h) + mine)
                return out

            user, item = walk(user, item, p["user"], SEEN, layer), walk(item, user, p["item"], SEEN.T, layer)
        users, items = users + user, items + item
    ours = vectors(network)
    close(ours[0], users)
    close(ours[1], items)


def test_grcn() -> None:
    network, p, modalities = case("grcn", variant="paper", routings=2)
    content = [leaky(linear(p, f"project.{m}", f)) for m, f in enumerate(modalities)]
    prototypes = []
    for m, q in enumerate(content):
        prototype = unit(p[f"prototype.{m}"])
        for _ in range(2):
            new = prototype.copy()
            for u in range(USERS):
                mine = np.flatnonzero(SEEN[u])
                if len(mine):
                    new[u] += softmax(q[mine] @ prototype[u]) @ q[mine]
            prototype = unit(new)
        prototypes.append(prototype)
    to_user, to_item = np.zeros((2, USERS, ITEMS)), np.zeros((2, USERS, ITEMS))
    for m in range(2):
        for u in range(USERS):
            mine = np.flatnonzero(SEEN[u])
            if len(mine):
                to_user[m, u, mine] = p["user_trust"][u, m] * softmax(content[m][mine] @ prototypes[m][u])
        for i in range(ITEMS):
            mine = np.flatnonzero(SEEN[:, i])
            if len(mine):
                to_item[m, mine, i] = p["item_trust"][i, m] * softmax(prototypes[m][mine] @ content[m][i])
    to_user, to_item = np.maximum(to_user.max(0), 0), np.maximum(to_item.max(0), 0)
    user, item = p["user"], p["item"]
    users, items = user, item
    for _ in range(2):
        user, item = to_user @ item, to_item.T @ user
        users, items = users + user, items + item
    ours = vectors(network)
    close(ours[0], np.concatenate([users, *prototypes], 1))
    close(ours[1], np.concatenate([items, *content], 1))


def test_grcn_prunes_what_no_modality_trusts() -> None:
    weights = grcn.refine([torch.full((2,), 0.5)] * 2, [torch.full((2,), -1.0), torch.full((2,), -2.0)])
    assert weights.tolist() == [0.0, 0.0]


def test_dualgnn() -> None:
    network, p, modalities = case("dualgnn", variant="paper", neighbours=2)
    views = [light(p[f"taste.{m}"], linear(p, f"project.{m}", f)) for m, f in enumerate(modalities)]
    alpha = softmax(p["attention"])
    user = sum(alpha[:, m : m + 1] * view[0] for m, view in enumerate(views))
    heard = np.zeros((USERS, DIM))
    for u in range(USERS):
        common = {v: (SEEN[u] * SEEN[v]).sum() for v in range(USERS) if v != u and (SEEN[u] * SEEN[v]).any()}
        best = sorted(common, key=lambda v: (-common[v], v))[:2]
        if best:
            heard[u] = softmax(np.array([common[v] for v in best])) @ user[best]
    ours = vectors(network)
    close(ours[0], user + heard)
    close(ours[1], sum(view[1] for view in views))


def test_dualgnn_keeps_few_neighbours_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = adjacency.seen(SPLIT)
    whole = dualgnn.common_items(seen, 2).toarray()
    monkeypatch.setattr(cooccurrence, "BLOCK", 2)
    np.testing.assert_array_equal(dualgnn.common_items(seen, 2).toarray(), whole)
    assert ((whole > 0).sum(1) <= 2).all()


def test_dualgnn_repeats_neighbours_where_a_user_has_fewer_than_k() -> None:
    common = dualgnn.common_items(adjacency.seen(SPLIT), 4)
    own = np.diff(common.indptr)
    assert own.min() == 0
    assert own.max() == 4
    drawn = [dualgnn.repeated(common, 4, torch.Generator().manual_seed(seed)) for seed in range(200)]
    for graph in drawn:
        assert np.diff(graph.indptr).tolist() == [4 * (n > 0) for n in own]
        for u in range(USERS):
            slots = slice(graph.indptr[u], graph.indptr[u + 1])
            mine = slice(common.indptr[u], common.indptr[u + 1])
            assert graph.indices[slots][: own[u]].tolist() == common.indices[mine].tolist()
            assert set(graph.indices[slots]) == set(common.indices[mine])
            for v, n in zip(graph.indices[slots], graph.data[slots], strict=True):
                assert n == (SEEN[u] * SEEN[v]).sum()
    user = int(np.flatnonzero(own == 3)[0])
    again = np.concatenate([graph.indices[graph.indptr[user] + 3 : graph.indptr[user + 1]] for graph in drawn])
    assert np.bincount(again)[np.unique(again)].min() > 45  # 200 draws of three, each as likely
    weights = dualgnn.softmax_rows(drawn[0])
    np.testing.assert_allclose(weights.toarray().sum(1), own > 0, atol=1e-6)
    assert weights.nnz == drawn[0].nnz  # one number of entries in every epoch


def test_dualgnn_draws_repeats_for_each_epoch_and_ranks_by_those_of_its_name() -> None:
    networks = [case("dualgnn", neighbours=4)[0] for _ in range(2)]
    ranked = [vectors(network)[0] for network in networks]
    np.testing.assert_array_equal(*ranked)
    trained = []
    for seed in range(5):
        torch.manual_seed(seed)
        networks[0].start_epoch()
        np.testing.assert_array_equal(vectors(networks[0])[0], ranked[0])
        trained.append(networks[0].train()()[0].detach().numpy())
    assert len({x.tobytes() for x in trained}) > 1


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_slmrec_chains_the_id_view_past_every_modality(modalities: int) -> None:
    """Two modalities stand where the published code has three: the second place, for sound, is passed over."""
    chain, heads = slmrec.chain(modalities, 4), slmrec.chain_heads(modalities, 4)
    behaviour, content = torch.randn(5, 4), [torch.randn(5, 4) for _ in range(modalities)]
    pairs = slmrec.chained(behaviour, content, chain, heads)
    assert [x.shape[1] for x, _ in pairs] == [4] * max(modalities - 1, 1) + [2] * (modalities > 1)
    links = [behaviour]
    for link in chain:
        links.append(link(links[-1]))
    stops = {1: [1], 2: [1, 3], 3: [1, 2, 3], 4: [1, 2, 3, 4]}[modalities]
    for (x, y), stop, head, view in zip(pairs, stops, heads, content, strict=True):
        assert torch.equal(x, links[stop])
        assert torch.equal(y, head(view))


def test_slmrec() -> None:
    network, p, modalities = case("slmrec", variant="paper", layers=2)
    sides = [
        light(p["user"], x) for x in (p["item"], *(linear(p, f"project.{m}", f) for m, f in enumerate(modalities)))
    ]
    users, items = [[side[s] / 3 for side in sides] for s in (0, 1)]  # the mean of three layers
    ours = vectors(network)
    close(ours[0], linear(p, "fuse_user", np.concatenate(users, 1)))
    close(ours[1], linear(p, "fuse_item", np.concatenate(items, 1)))

    rows = BATCH.positives.numpy()
    who, what = (linear(p, f"fuse_{n}", np.concatenate([x[r] for x in views], 1)) for n, views, r in
                 (("user", users, BATCH.users), ("item", items, BATCH.positives)))  # fmt: skip
    close(network.loss(BATCH)["main"].item(), info_nce(who, what, 0.2))
    fine = [linear(p, f"fine.{m}", items[1 + m][rows]) for m in range(2)]
    coarse = (
        linear(p, "coarse_content", np.concatenate([x[rows] for x in items[1:]], 1)),
        linear(p, "coarse_id", items[0][rows]),
    )
    pairs = [*combinations(fine, 2), coarse]
    close(network.loss(BATCH)["fac"].item(), 0.01 * sum(info_nce(x, y, 0.2) for x, y in pairs))
    assert slmrec.fac([], (torch.eye(2), torch.eye(2)), torch.ones(2), 0.2) > 0  # one modality: coarse alone


def test_bm3() -> None:
    network, p, modalities = case("bm3", variant="paper", drop=0.0)
    users, items = (x / 2 for x in light(p["user"], p["item"], layers=1))
    user, item = users[BATCH.users], (items + p["item"])[BATCH.positives]
    content = [linear(p, f"project.{m}", f)[BATCH.positives] for m, f in enumerate(modalities)]

    def cos(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean((unit(linear(p, "predict", x)) * unit(y)).sum(1)))

    loss = {name: term.item() for name, term in network.loss(BATCH).items()}
    close(loss["rec"], 2 - cos(user, item) - cos(item, user))
    close(loss["align"], sum(1 - cos(x, item) for x in content))
    close(loss["mask"], sum(1 - cos(x, x) for x in content))
    close(loss["l2"], 1e-4 * ((user**2).sum() + (item**2).sum()) / (2 * 2048))
    close(vectors(network)[0], linear(p, "predict", users))


def test_bm3_learns_through_one_side_and_drops_in_the_other() -> None:
    online, target = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    bm3.c(online, target).backward()
    assert online.grad is not None
    assert target.grad is None
    network = case("bm3", variant="paper", drop=0.5)[0]
    assert network.loss(BATCH)["rec"] != network.loss(BATCH)["rec"]


@pytest.mark.parametrize(
    ("model", "variant", "reached"),
    [
        ("bm3", "reference", {"predict", "project", "modalities"}),
        ("bm3", "paper", {"predict", "project"}),
        ("bm3-improved", "paper", {"predict", "project", "user", "item"}),
    ],
)
def test_bm3_ranks_by_content_through_its_predictor_or_its_ids(model: str, variant: str, reached: set[str]) -> None:
    network = case(model, variant=variant, drop=0.0)[0]
    loss = network.loss(BATCH)
    (loss["align"] + loss["mask"]).backward()
    assert reached == {
        name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None
    }


def test_bm3_weighs_content_as_its_variant_does_or_as_it_is_told_to() -> None:
    alone = case("bm3", variant="reference", drop=0.0, content=1.0)[0].loss(BATCH)
    twice = case("bm3", variant="reference", drop=0.0)[0].loss(BATCH)
    for term, weight in {"rec": 1, "align": 2, "mask": 2, "l2": 1}.items():
        close(twice[term].item(), weight * alone[term].item())


def test_repeats_in_a_batch_share_a_view_in_the_reference_of_bm3() -> None:
    once, twice = (Batch(*[row.repeat(times) for row in torch.tensor([[1], [3], [0]])]) for times in (1, 2))
    for variant, same in {"reference": True, "paper": False}.items():
        network = case("bm3", variant=variant, drop=0.5)[0]
        for seed in range(5):
            losses = []
            for batch in (once, twice):
                torch.manual_seed(seed)
                losses.append(network.loss(batch)["rec"].item())
            assert (losses[0] == pytest.approx(losses[1])) == same


def test_bm3_aligns_ids_with_fixed_content() -> None:
    network, p, modalities = case("bm3-improved", drop=0.0)
    item = (light(p["user"], p["item"], layers=1)[1] / 2 + p["item"])[BATCH.positives]
    online = unit(linear(p, "predict", item))
    content = [unit(linear(p, f"project.{m}", f)[BATCH.positives]) for m, f in enumerate(modalities)]
    close(network.loss(BATCH)["align"].item(), sum(1 - np.mean((online * x).sum(1)) for x in content))


def test_lattice() -> None:
    network, p, modalities = case("lattice", variant="paper", skip=0.6)
    alpha = softmax(p["importance"])
    a = np.zeros((ITEMS, ITEMS))
    for m, f in enumerate(modalities):
        fixed = balanced(np.maximum(nearest(f), 0))
        learned = balanced(np.maximum(nearest(linear(p, f"project.{m}", f)), 0))
        a += alpha[m] * (0.6 * fixed + 0.4 * learned)
    users, items = (x / 3 for x in light(p["user"], p["item"]))
    ours = vectors(network)
    close(ours[0], users)
    close(ours[1], items + unit(a @ p["item"]))


def test_lattice_learns_its_graph_in_the_first_batch_of_an_epoch() -> None:
    network = case("lattice")[0].train()

    def learning() -> set[str]:
        network.zero_grad()
        torch.stack(list(network.loss(BATCH).values())).sum().backward()
        return {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}

    everything = {"user", "item", "project", "importance", "modalities"}
    for _ in range(2):
        network.start_epoch()
        assert learning() == everything
        assert learning() == {"user", "item"}
        vectors(network)  # ranking leaves the epoch's graph alone
        network.train()
        assert learning() == {"user", "item"}


def test_lattice_keeps_negative_cosines_and_empties_rows_that_they_outweigh() -> None:
    edges = SparsityPattern(np.array([0, 0, 1]), np.array([0, 1, 1]), (2, 2), torch.device("cpu"))
    h, one = torch.eye(2), torch.ones(1)
    close(lattice.balanced([edges], [torch.tensor([1.0, -0.5, 0.5])], one, h), [[2.0, -1.0], [0.0, 1.0]])
    close(lattice.balanced([edges], [torch.tensor([0.5, -1.0, 0.5])], one, h), [[0.0, 0.0], [0.0, 1.0]])


def test_lattice_weights_learn() -> None:
    edges = SparsityPattern(
        EDGES["item_id"].to_numpy(), EDGES["neighbour_id"].to_numpy(), (ITEMS, ITEMS), torch.device("cpu")
    )
    features = torch.from_numpy(FEATURES).double().requires_grad_()
    shares, h = torch.tensor([0.3, 0.7]).double().requires_grad_(), torch.rand(ITEMS, 2).double().requires_grad_()

    def graph(x: torch.Tensor, shares: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        cosines = lattice.similarity(edges, x)
        return lattice.balanced([edges, edges], [cosines, cosines.relu()], shares, h)

    assert torch.autograd.gradcheck(graph, (features, shares, h))


def test_freedom() -> None:
    network, p, modalities = case("freedom", variant="paper", first=0.7, modal=0.5)
    s = sum(share * balanced((nearest(f) != 0).astype(float)) for share, f in zip((0.7, 0.3), modalities, strict=True))
    users, items = (x / 3 for x in light(p["user"], p["item"]))
    items = items + s @ p["item"]
    ours = vectors(network)
    close(ours[0], users)
    close(ours[1], items)

    def rank(item: np.ndarray) -> float:
        u = users[BATCH.users]
        return -np.mean(np.log(sigmoid((u * (item[BATCH.positives] - item[BATCH.negatives])).sum(1))))

    loss = network.loss(BATCH)
    close(loss["bpr"].item(), rank(items))
    close(loss["modal"].item(), 0.5 * sum(rank(linear(p, f"project.{m}", f)) for m, f in enumerate(modalities)))


def test_freedom_thins_the_pairs_of_the_popular() -> None:
    seen = adjacency.seen(SPLIT)
    torch.manual_seed(0)
    drawn = [freedom.thin(seen, 6).toarray() for _ in range(4000)]
    assert {int(x.sum()) for x in drawn} == {6}
    share = np.mean(drawn, axis=0)
    assert (share[SEEN == 0] == 0).all()
    chance = np.array([1 / np.sqrt(SEEN[u].sum() * SEEN[:, i].sum()) for u, i in PAIRS])
    kept = np.array([share[pair] for pair in PAIRS])
    assert (np.diff(kept[np.argsort(chance, kind="stable")]) > -0.03).all()  # rises with 1 / sqrt(degrees)
    assert kept[chance.argmax()] - kept[chance.argmin()] > 0.2


@pytest.mark.parametrize(("variant", "kept"), [("reference", 3), ("paper", 4)])
def test_freedom_rounds_down_in_the_reference(variant: str, kept: int) -> None:
    network = case("freedom", variant=variant, drop=1 - 3.6 / len(PAIRS))[0]
    assert isinstance(network, freedom.FREEDOM)
    network.start_epoch()
    assert len(network.thinned.parts[1]) == kept


def test_freedom_trains_on_the_thinned_and_ranks_on_the_whole_graph() -> None:
    network = case("freedom", drop=0.5)[0]
    whole = vectors(network)[0]
    torch.manual_seed(0)
    network.start_epoch()
    np.testing.assert_array_equal(vectors(network)[0], whole)
    network.train()
    assert not np.array_equal(network()[0].detach().numpy(), whole)


def test_mgcn() -> None:
    network, p, modalities = case("mgcn", variant="paper")
    behaviour = [x / 3 for x in light(p["user"], p["item"])]
    norm = adjacency.user_item_graph(SPLIT).toarray().astype(np.float64)
    views: list[list[np.ndarray]] = [[], []]
    for m, f in enumerate(modalities):
        purified = p["item"] * sigmoid(linear(p, f"gate.{m}", linear(p, f"project.{m}", f)))
        item = balanced(nearest(f)) @ purified
        views[0].append(norm @ item)
        views[1].append(item)
    fused = []
    for side in (0, 1):
        scores = np.concatenate([linear(p, "attend.2", np.tanh(linear(p, "attend.0", x))) for x in views[side]], 1)
        shared = sum(softmax(scores)[:, m : m + 1] * x for m, x in enumerate(views[side]))
        specific = [
            (x - shared) * sigmoid(linear(p, f"prefer.{m}", behaviour[side])) for m, x in enumerate(views[side])
        ]
        fused.append(shared + np.mean(specific, axis=0))
    ours = vectors(network)
    close(ours[0], behaviour[0] + fused[0])
    close(ours[1], behaviour[1] + fused[1])
    rows = BATCH.users.numpy(), BATCH.positives.numpy()
    contrast = sum(info_nce(fused[side][rows[side]], behaviour[side][rows[side]], 0.2) for side in (0, 1))
    close(network.loss(BATCH)["contrast"].item(), 0.01 * contrast)


def test_modalities_have_graphs_of_their_own() -> None:
    inputs = Inputs(SPLIT, torch.from_numpy(FEATURES), EDGES, torch.device("cpu"), tuple(PARTS))
    assert [table.num_rows for table in inputs.modal_edges] == [ITEMS * 3] * 2
    assert inputs.modal_edges[0].equals(neighbours.neighbours(np.ascontiguousarray(FEATURES[:, : PARTS[0]]), 3))
    whole = Inputs(SPLIT, torch.from_numpy(FEATURES), EDGES, torch.device("cpu"))
    assert isinstance(whole.modal_edges[0], pa.Table)
    assert whole.modal_edges[0] is EDGES
