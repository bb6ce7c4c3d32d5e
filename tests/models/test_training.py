"""Training: its loop, its sampling, and the index of what it learned."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save
from shop.tastes import content, interactions, two_tastes

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split
from alignrec.pipeline.dataset.split import Pairs, contains_keys, load_split, pair_keys
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.metrics import evaluate_vectors, topk
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import loop, retrieval
from alignrec.pipeline.models.training.embeddings import EmbeddingTable
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.runtime.checkpoint import Checkpoint

SETTINGS = {"dim": 8, "batch_size": 64, "lr": 0.02, "epochs": 12, "patience": 30}
TRAINED = ("alignrec", "bpr", "lightgcn", "vbpr")


def settings(model: str, **keys: Any) -> Train:
    return MODELS[model].Params(**SETTINGS | keys)


def train(model: str, keys: dict[str, Any] | None = None, seed: int = 0, **more: Any) -> Fit:
    features, edges = content(), neighbours.find_neighbours(content(), 4)
    return fit(MODELS[model], two_tastes(), features, edges, settings(model, **keys or {}), seed, **more)


WALKING: list[tuple[str, dict[str, Any]]] = [
    ("lightgcn", {}),
    *(("alignrec", {"mode": mode}) for mode in ("compat", "frozen")),
    ("alignrec-ablation", {"fixed_target": True}),
    ("alignrec-ablation", {"content": False}),
]


@pytest.mark.parametrize(("model", "keys"), WALKING)
def test_batches_that_share_a_walk_have_the_gradients_of_their_mean_loss(model: str, keys: dict[str, Any]) -> None:
    edges, parts = neighbours.find_neighbours(content(), 4), two_tastes()
    torch.manual_seed(0)
    inputs = Inputs(parts, torch.from_numpy(content()), edges, torch.device("cpu"))
    network = MODELS[model](inputs, settings(model, **keys))
    batches = [Batch(*rows) for rows in torch.from_numpy(Sampler(parts).epoch(np.random.default_rng(0))).split(100, 1)]
    assert len(batches[-1].users) < 100
    terms = [network.loss(batch) for batch in batches]
    (sum(sum(own.values()) for own in terms) / len(batches)).backward()  # type: ignore[union-attr]
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}  # type: ignore[union-attr]
    network.zero_grad()
    totals = loop.accumulate_gradients(network, batches)
    assert {n: float(t) for n, t in totals.items()} == pytest.approx(
        {name: sum(float(own[name].detach()) for own in terms) for name in terms[0]}, rel=1e-5
    )
    assert expected.keys() == {name for name, p in network.named_parameters() if p.grad is not None}
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("model", TRAINED)
def test_killed_and_resumed_is_as_if_undisturbed(model: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 7:
            raise Killed

    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 3)
    with pytest.raises(Killed):
        train(model, checkpoint=checkpoint, progress=kill)
    resumed: list[int] = []
    trained = train(model, checkpoint=checkpoint, progress=lambda line: resumed.append(line["epoch"]))
    assert resumed == list(range(6, 12))
    whole = train(model)
    assert trained.history == whole.history
    assert trained.best_epoch == whole.best_epoch
    assert save(trained.state) == save(whole.state)
    assert np.array_equal(trained.user, whole.user)


def test_returns_the_best_epoch_and_stops_after_patience() -> None:
    trained = train("bpr", {"lr": 0.05, "epochs": 200, "patience": 4})
    curve = [round(line["valid_recall@20"], 4) for line in trained.history]
    assert trained.best_epoch == int(np.argmax(curve))  # the first of equal ones
    assert len(curve) == trained.best_epoch + 5 < 200
    mean = evaluate_vectors(trained.user, trained.item, two_tastes(), "valid", [20]).mean
    assert mean["recall", 20] == trained.valid["recall@20"] == trained.history[trained.best_epoch]["valid_recall@20"]


def test_a_run_goes_on_while_its_loss_is_falling() -> None:
    keys = {"variant": "paper", "lr": 0.05, "epochs": 200, "patience": 4}
    plain, all_of_it, patient = (train("bpr", keys | {"falling": share}) for share in (None, 1.0, 0.02))
    assert all_of_it.history == plain.history  # no loss falls by more than all of itself
    ended, loss = len(plain.history), [line["loss"] for line in patient.history]
    assert patient.history[:ended] == plain.history
    assert ended < len(loss) < 200
    falls = [loss[epoch - 4] - loss[epoch] for epoch in range(ended - 1, len(loss))]
    late = [epoch - patient.best_epoch >= 5 for epoch in range(ended - 1, len(loss))]
    assert all(fall > 0.02 * loss[0] or not waited for fall, waited in zip(falls[:-1], late[:-1], strict=True))
    assert falls[-1] <= 0.02 * loss[0]
    assert late[-1]


def test_a_diverging_loss_names_epoch_and_settings() -> None:
    with pytest.raises(UserError, match=r"VBPR: .*epoch 0 .*'lr': 1e\+30"):
        fit(MODELS["vbpr"], two_tastes(), content(), None, settings("vbpr", lr=1e30), 0)


def rejects(message: str, model: str, features: Any = None, edges: Any = None, parts: Any = None) -> None:
    with pytest.raises(UserError, match=message):
        fit(MODELS[model], parts or two_tastes(), features, edges, settings(model), 0)


def test_bad_input_is_named() -> None:
    rejects("AlignRec needs edges", "alignrec", content())
    rejects("VBPR needs features", "vbpr")
    rejects("features have 3 rows, the catalogue has 50 items", "vbpr", content()[:3])
    holed = content()
    holed[5, 2] = np.nan
    rejects("features, row 5: not finite", "vbpr", holed)
    wide = neighbours.find_neighbours(np.concatenate([content(), content(1)]), 3)
    rejects("edges name items beyond the catalogue's 50", "alignrec", content(), wide)
    rejects("no valid interactions", "bpr", parts=split.load_split(interactions([(0, 0, 0)]), 1, 1))


# --- sampling


def test_an_epoch_has_every_pair_once_and_no_negative_that_the_user_has() -> None:
    split = two_tastes()
    users, positives, negatives = Sampler(split).epoch(np.random.default_rng(0))
    taken = pair_keys(split.train, split.n_items)
    assert sorted(users * split.n_items + positives) == taken.tolist()
    assert not contains_keys(taken, users * split.n_items + negatives).any()


def test_negatives_are_uniform_over_what_is_left_of_train_items() -> None:
    split = load_split(interactions([(0, 0, 0), *((1, i, 0) for i in range(1, 5)), (0, 5, 1)]), 2, 7)
    rng = np.random.default_rng(0)
    sampler = Sampler(split)
    drawn = [negative for _ in range(4000) for user, _, negative in sampler.epoch(rng).T if user == 0]
    counts = np.bincount(drawn, minlength=7)
    assert counts[[0, 5, 6]].tolist() == [0, 0, 0]  # own, valid only, never seen
    assert np.abs(counts[1:5] / 4000 - 0.25).max() < 0.03


def test_a_user_who_has_everything_is_left_out() -> None:
    split = load_split(interactions([(0, 0, 0), (0, 1, 0), (1, 0, 0)]), 2, 2)
    users, _, negatives = Sampler(split).epoch(np.random.default_rng(0))
    assert (users.tolist(), negatives.tolist()) == ([1], [1])


# --- the index finds what exact ranking does, reports its recall, and is reproducible


USERS, ITEMS, WIDTH = 300, 2000, 8


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(USERS, WIDTH)).astype("f4"), rng.normal(size=(ITEMS, WIDTH)).astype("f4")


@pytest.fixture(scope="module")
def seen(vectors: tuple[np.ndarray, np.ndarray]) -> Pairs:
    """Every user has seen between 0 and 29 of the best items."""
    user, item = vectors
    best = np.argsort(-user @ item.T, axis=1)
    rows = [(u, i) for u in range(USERS) for i in sorted(best[u, : u % 30])]
    return Pairs(*(np.array(column, np.int32) for column in zip(*rows, strict=True)))


def test_the_flat_index_ranks_as_the_evaluation_does(vectors: tuple[np.ndarray, np.ndarray], seen: Pairs) -> None:
    user, item = vectors
    users = np.array([7, 0, 299, 29, 7])
    ids, scores = retrieval.recommend_items(retrieval.build_flat([item], WIDTH), user, users, 5, seen)
    assert np.array_equal(ids, topk(user, item, 5, seen, users))
    assert np.allclose(scores, np.take_along_axis(user[users] @ item.T, ids, 1), atol=1e-5)


def test_equal_scores_come_in_ascending_order_and_nothing_is_minus_one() -> None:
    seen = Pairs(np.array([0, 0, 0], np.int32), np.array([0, 2, 4], np.int32))
    index = retrieval.build_flat([np.ones((5, 2), np.float32)], 2)
    ids, scores = retrieval.recommend_items(index, np.ones((2, 2), np.float32), np.array([0, 1]), 5, seen)
    assert ids.tolist() == [[1, 3, -1, -1, -1], [0, 1, 2, 3, 4]]
    assert scores[0].tolist() == [2, 2, -np.inf, -np.inf, -np.inf]


@pytest.fixture(scope="module")
def stored(vectors: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    """The item vectors as written by `train`."""
    ids, path = pa.array(range(ITEMS), pa.int32()), tmp_path_factory.mktemp("train") / "items.parquet"
    table = pa.table({"item_id": ids, "asin": ids.cast(pa.string()), "vector": io.vectors(vectors[1])})
    io.write_table(table, path, schemas.item_embeddings(WIDTH))
    return EmbeddingTable(path, schemas.item_embeddings)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use parts that are smaller than the catalogue."""
    monkeypatch.setattr(io, "PART", 300)


def test_exact_ranking_is_the_same_by_parts_of_the_items(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: EmbeddingTable, in_parts: None
) -> None:
    user, item = vectors
    assert len([*stored]) == 7
    index = retrieval.build_flat(stored, WIDTH)
    found, _ = retrieval.recommend_items(index, user, np.arange(USERS), 20, seen)
    assert np.array_equal(found, topk(user, item, 20, seen))
    all_seen = Pairs(np.zeros(ITEMS - 2, np.int32), np.arange(2, ITEMS, dtype=np.int32))
    found, _ = retrieval.recommend_items(index, user[:1], np.arange(1), 3, all_seen)
    assert np.array_equal(found, topk(user[:1], item, 3, all_seen))


def test_a_large_catalogue_gets_an_inverted_file_that_searches_as_much_as_enough_recall_takes(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: EmbeddingTable, in_parts: None, tmp_path: Path
) -> None:
    """The reported recall is that of a search."""
    user, item = vectors
    made, facts = retrieval.build_index(stored, user, seen, ITEMS - 1)
    assert facts["kind"] == "ivf"
    assert retrieval.MIN_RECALL <= facts["recall"] < 1
    assert 1 < facts["searched"] < facts["lists"]
    faiss.write_index(made, str(tmp_path / "items.faiss"))
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    assert (index.nprobe, index.ntotal) == (facts["searched"], ITEMS)
    found, _ = retrieval.recommend_items(index, user, np.arange(USERS), 20, seen)
    assert retrieval.index_recall(found, topk(user, item, 20, seen)) == pytest.approx(facts["recall"], abs=1e-4)
    pairs = set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))
    assert not any((u, i) in pairs for u, row in enumerate(found.tolist()) for i in row)


def test_the_bytes_are_the_same_with_any_number_of_threads(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: EmbeddingTable
) -> None:
    indexes = []
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 2):
            faiss.omp_set_num_threads(threads)
            for most in (10, ITEMS):
                index, _ = retrieval.build_index(stored, vectors[0], seen, most)
                indexes.append(faiss.serialize_index(index).tobytes())
    finally:
        faiss.omp_set_num_threads(before)
    assert indexes[:2] == indexes[2:]
