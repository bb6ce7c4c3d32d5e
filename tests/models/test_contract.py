"""The contract of every recommender in MODELS.

Two towns: users of one interact only with items of it, which any recommender that learns separates.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from shop import toy

from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.linalg import device, neighbours
from alignrec.pipeline.models import MODELS, RELEASED, infonce
from alignrec.pipeline.models.base import Batch, Inputs, Recommender, Untrained
from alignrec.pipeline.models.metrics import evaluate_vectors, topk
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.scores import Filter
from alignrec.pipeline.models.training.loop import Fit, compile_network, fit

USERS, ITEMS, TOWNS = 60, 40, 2
PARTS = [6, 4]
BARE = ITEMS - 1
"""id of an item without features or interactions"""
TRAINED = [name for name, model in MODELS.items() if not issubclass(model, Untrained)]


@cache
def towns() -> tuple[Split, np.ndarray, pa.Table]:
    """Return a split, features [I, 10] that indicate the town with noise, and their graph."""
    rng = np.random.default_rng(0)
    parts: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(USERS - 1):
        home = np.arange(user % TOWNS, ITEMS - 1, TOWNS)
        for n, item in enumerate(rng.permutation(home)[:12]):
            parts[0 if n < 8 else 1 + n % 2].append((user, int(item)))
    train, valid, test = (Pairs(*np.array(sorted(pairs), np.int32).T) for pairs in parts)
    features = rng.normal(size=(ITEMS, sum(PARTS))).astype(np.float32)
    features[:, 0] += np.where(np.arange(ITEMS) % TOWNS, 3, -3)
    features[:, PARTS[0]] += np.where(np.arange(ITEMS) % TOWNS, 3, -3)
    features[BARE] = 0
    return Split(USERS, ITEMS, train, valid, test), features, neighbours.find_neighbours(features, 5)


def settings(model: str, **keys: object) -> Train:
    quick = {"dim": 16, "batch_size": 256, "lr": 0.03, "epochs": 12, "patience": 12}
    return MODELS[model].Params.model_validate(quick | keys)


def built(model: str, seed: int = 0, parts: list[int] = PARTS, params: Train | None = None) -> Recommender:
    split, features, edges = towns()
    torch.manual_seed(seed)
    inputs = Inputs(split, torch.from_numpy(features), edges, torch.device("cpu"), tuple(parts))
    return MODELS[model](inputs, params or settings(model))


def batch() -> Batch:
    split = towns()[0]
    rng = np.random.default_rng(1)
    pairs = split.train
    negatives = torch.from_numpy(rng.integers(0, ITEMS, len(pairs)))
    return Batch(torch.from_numpy(pairs.users).long(), torch.from_numpy(pairs.items).long(), negatives)


@cache
def trained(model: str, *parts: int) -> Fit:
    return fit(MODELS[model], *towns(), settings(model), 0, parts=parts)


def once(model: str) -> Fit:
    return trained(model, *PARTS)


def array(x: np.ndarray | torch.Tensor | sp.csr_array | Filter) -> np.ndarray:
    if isinstance(x, Filter):
        return x.scores(sp.eye_array(ITEMS, dtype=np.float32, format="csr")).T.numpy()
    if isinstance(x, torch.Tensor):
        return x.detach().numpy()
    return x.toarray() if isinstance(x, sp.csr_array) else x


@pytest.mark.parametrize("model", MODELS)
class TestContract:
    def test_vectors_have_one_width_and_are_finite(self, model: str) -> None:
        for user, item in (built(model).eval()(), (once(model).user, once(model).item)):
            assert array(user).shape[0] == USERS
            assert array(item).shape[0] == ITEMS
            assert array(user).shape[1] == array(item).shape[1]
            assert np.isfinite(array(user)).all()  # also of the user without interactions
            assert np.isfinite(array(item)).all()  # and of the item without features

    def test_scores_are_dot_products(self, model: str) -> None:
        split, fitted = towns()[0], once(model)
        scores = array(fitted.user).astype(np.float64) @ array(fitted.item).astype(np.float64).T
        scores[split.train.users, split.train.items] = -np.inf
        top = topk(fitted.user, fitted.item, 10, split.train)
        ranked = np.take_along_axis(scores, top.astype(np.int64), 1)
        np.testing.assert_allclose(ranked, -np.sort(-scores, axis=1)[:, :10], rtol=1e-4, atol=1e-5)

    def test_two_runs_give_the_same_bytes(self, model: str) -> None:
        one, two = (fit(MODELS[model], *towns(), settings(model, epochs=3), 0, parts=PARTS) for _ in range(2))
        assert array(one.user).tobytes() == array(two.user).tobytes()
        assert array(one.item).tobytes() == array(two.item).tobytes()
        assert one.history == two.history


MODALITIES = [(model, parts) for model in MODELS for parts in ([*PARTS], []) if parts or MODELS[model].needs]


@pytest.mark.parametrize(
    ("model", "parts"), MODALITIES, ids=[f"{model}-{len(parts) or 1}" for model, parts in MODALITIES]
)
def test_two_towns_are_told_apart(model: str, parts: list[int]) -> None:
    """Each user has about 11 unseen items in the own town, 20 in the other, and 2 targets: chance is .33 at 10."""
    split, fitted = towns()[0], trained(model, *parts)
    assert evaluate_vectors(fitted.user, fitted.item, split, "test", [10]).mean["recall", 10] > 0.6


@pytest.mark.parametrize("model", TRAINED)
class TestTraining:
    def test_a_gradient_reaches_every_parameter(self, model: str) -> None:
        network = built(model)
        torch.manual_seed(3)
        network.start_epoch()
        torch.stack(list(network.loss(batch()).values())).sum().backward()
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert trained
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            assert parameter.grad.isfinite().all(), name

    def test_saving_and_loading_changes_nothing(self, model: str) -> None:
        network = built(model, seed=5)
        torch.manual_seed(0)
        network.start_epoch()
        network.loss(batch())
        network.load_state_dict(once(model).state, strict=True)
        network.eval()
        user, item = network()
        assert array(user).tobytes() == array(once(model).user).tobytes()
        assert array(item).tobytes() == array(once(model).item).tobytes()


def test_a_models_own_defaults_yield_to_train_and_train_to_overrides() -> None:
    benchmark = {"overrides": {"bm3": {"drop": 0.5, "l2": 0.2}}}
    mine = {"lr", "l2", "drop"}
    expected = {"lr": 1e-3, "l2": 0.2, "drop": 0.5}
    assert model_settings(toy.params(benchmark=benchmark), "bm3").model_dump(include=mine) == expected
    given = toy.params(benchmark=benchmark, train={"lr": 3e-3, "l2": 0.5, "cca": 0.7, "layers": 3})
    assert model_settings(given, "bm3").model_dump(include=mine) == {"lr": 3e-3, "l2": 0.2, "drop": 0.5}
    assert model_settings(given, "lightgcn").model_dump(include={"l2", "layers"}) == {"l2": 0.5, "layers": 3}
    assert "cca" not in model_settings(given, "lightgcn").model_dump()  # AlignRec's


@pytest.mark.parametrize("name", TRAINED)
def test_torch_compile_follows_what_a_gpu_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from functorch.compile import aot_module_simplified, nop

    monkeypatch.setattr(device, "by_onednn", lambda *_: False)
    monkeypatch.setattr(infonce, "merges_rows", lambda _: False)
    network, whole = built(name, parts=[]), batch()
    short = Batch(whole.users[:99], whole.positives[:99], whole.negatives[:99])
    traced = list[torch.fx.GraphModule]()

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        traced.append(graph)
        return aot_module_simplified(graph, inputs, nop) if name == RELEASED and len(traced) == 1 else graph.forward

    loss = compile_network(network, backend)
    batches = [whole, short] if name == RELEASED else [whole]  # an epoch's last is short, for all models alike
    for one in batches * 2:
        steps = [step(network, f, one) for f in (network.loss, loss)]
        for want, got in zip(*steps, strict=True):
            torch.testing.assert_close(got, want)
    if name == "lattice":
        return  # in pieces: its items' cosines are dots of a table with itself, and dynamo wants two tables
    assert len(traced) == len(batches)


def step(network: Recommender, loss: Callable[[Batch], dict[str, torch.Tensor]], one: Batch) -> list[torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(0)
    network.start_epoch()
    terms = loss(one)
    torch.stack(list(terms.values())).sum().backward()
    return [t.detach() for t in terms.values()] + [p.grad for p in network.parameters() if p.grad is not None]
