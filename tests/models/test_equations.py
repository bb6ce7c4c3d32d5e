"""Parts of baselines without reference figures, against slow float64 versions."""

import numpy as np
import pytest
import torch

from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.sparse import SparsityPattern
from alignrec.pipeline.models import MODELS, adjacency, freedom, itemknn, lattice
from alignrec.pipeline.models.base import Batch, Inputs, Recommender

PAIRS = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 4), (4, 4), (4, 1)]  # user 5, item 5: none
USERS = ITEMS = 6
SEEN = np.zeros((USERS, ITEMS))
SEEN[tuple(np.array(PAIRS).T)] = 1
PARTS = [3, 2]
DIM = 4
NONE = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32))
SPLIT = Split(USERS, ITEMS, Pairs(*np.array(sorted(PAIRS), np.int32).T), NONE, NONE)
FEATURES = np.random.default_rng(0).normal(size=(ITEMS, sum(PARTS))).astype(np.float32)
EDGES = neighbours.find_neighbours(FEATURES, 3)
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


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def light(user: np.ndarray, item: np.ndarray, layers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The sum of layers 0 .. L of LightGCN."""
    norm = np.array([[SEEN[u, i] and SEEN[u, i] / np.sqrt(SEEN[u].sum() * SEEN[:, i].sum()) for i in range(ITEMS)]
                     for u in range(USERS)])  # fmt: skip
    users, items = user, item
    for _ in range(layers):
        user, item = norm @ item, norm.T @ user
        users, items = users + user, items + item
    return users, items


def vectors(network: Recommender) -> tuple[np.ndarray, np.ndarray]:
    network.eval()
    with torch.no_grad():
        user, item = network()
    return user.numpy(), item.numpy()


def close(ours: object, slow: object) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(slow), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shrink", [0.0, 2.5])
def test_itemknn_is_cosine_of_who_bought(shrink: float) -> None:
    near = itemknn.similar_items(adjacency.interaction_matrix(SPLIT), 2, shrink).toarray()
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


def test_the_paper_of_bpr_squares_the_rows() -> None:
    network, p, _ = case("bpr", variant="paper", l2=0.1)
    user, positive, negative = p["user"][BATCH.users], p["item"][BATCH.positives], p["item"][BATCH.negatives]
    loss = network.loss(BATCH)
    close(loss["bpr"].item(), np.log1p(np.exp(-(user * (positive - negative)).sum(1))).mean())
    close(loss["l2"].item(), 0.1 * sum((x**2).sum() for x in (user, positive, negative)) / (2 * 2048))


def test_improved_bm3_aligns_ids_with_fixed_content() -> None:
    network, p, modalities = case("bm3-improved", drop=0.0)
    users, items = (x / 2 for x in light(p["user"], p["item"], layers=1))
    user, item = users[BATCH.users], (items + p["item"])[BATCH.positives]
    content = [linear(p, f"project.{m}", f)[BATCH.positives] for m, f in enumerate(modalities)]

    def cos(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean((unit(linear(p, "predict", x)) * unit(y)).sum(1)))

    loss = {name: term.item() for name, term in network.loss(BATCH).items()}
    close(loss["rec"], 2 - cos(user, item) - cos(item, user))
    close(loss["align"], sum(1 - cos(item, x) for x in content))
    close(loss["mask"], sum(1 - cos(x, x) for x in content))
    close(loss["l2"], 1e-4 * ((user**2).sum() + (item**2).sum()) / (2 * 2048))
    close(vectors(network)[0], linear(p, "predict", users))


def test_lattice_keeps_negative_cosines_and_empties_rows_that_they_outweigh() -> None:
    edges = SparsityPattern(np.array([0, 0, 1]), np.array([0, 1, 1]), (2, 2), torch.device("cpu"))
    h, one = torch.eye(2), torch.ones(1)
    close(lattice.balanced_product([edges], [torch.tensor([1.0, -0.5, 0.5])], one, h), [[2.0, -1.0], [0.0, 1.0]])
    close(lattice.balanced_product([edges], [torch.tensor([0.5, -1.0, 0.5])], one, h), [[0.0, 0.0], [0.0, 1.0]])


def test_freedom_thins_the_pairs_of_the_popular() -> None:
    seen = adjacency.interaction_matrix(SPLIT)
    torch.manual_seed(0)
    drawn = [freedom.thin_edges(seen, 6).toarray() for _ in range(1000)]
    assert {int(x.sum()) for x in drawn} == {6}
    share = np.mean(drawn, axis=0)
    assert (share[SEEN == 0] == 0).all()
    chance = np.array([1 / np.sqrt(SEEN[u].sum() * SEEN[:, i].sum()) for u, i in PAIRS])
    kept = np.array([share[pair] for pair in PAIRS])
    assert (np.diff(kept[np.argsort(chance, kind="stable")]) > -0.06).all()  # rises with 1 / sqrt(degrees)
    assert kept[chance.argmax()] - kept[chance.argmin()] > 0.2
