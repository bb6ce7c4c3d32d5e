"""`alignrec.fit`: any recommender on any table, the same twice, and after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import shops
import torch

import alignrec
from pipeline.errors import UserError
from pipeline.evaluation.metrics import evaluate
from pipeline.interactions.split import load as load_split

IDS = [f"i{i}" for i in range(shops.ITEMS)]
FAST: dict[str, Any] = {"dim": 8, "lr": 0.01, "epochs": 4}


@pytest.fixture(scope="module")
def x() -> alignrec.Vectors:
    return alignrec.Vectors(shops.content(), IDS)


@pytest.fixture(scope="module")
def model(x: alignrec.Vectors, interactions: pa.Table) -> alignrec.Recommender:
    return alignrec.fit("alignrec", interactions, x, **FAST)


def taste(name: str) -> int:
    return int(name[1:]) % 2


def test_it_learns_the_planted_tastes(x: alignrec.Vectors, interactions: pa.Table) -> None:
    model = alignrec.fit("alignrec", interactions, x, dim=16, lr=0.02, epochs=30)
    assert repr(model) == "<Recommender alignrec: 60 users, 50 items>"
    top = [taste(item) == taste(user) for user in model.users for item, _ in model.recommend(user, 5)]
    assert np.mean(top) > 0.9
    assert model.metrics["test"]["recall@20"] > 0.6  # half of the catalogue is of a user's taste, of which 17 are left
    assert model.metrics["valid"].keys() == model.metrics["test"].keys() >= {"recall@5", "ndcg@50", "map@10"}
    assert len(model.history) > model.best_epoch
    assert model.protocol["split"] == "given"


def test_metrics_and_recommendations_are_those_of_its_vectors(
    model: alignrec.Recommender, interactions: pa.Table
) -> None:
    frame, number = interactions.to_pandas(), {name: i for i, name in enumerate(model.users)}
    rows = [(number[u], int(i[1:]), s) for u, i, s in zip(frame.user, frame.item, frame.split, strict=True)]
    split = load_split(shops.interactions(rows), 60, 50)
    mean = evaluate(np.asarray(model.user_vectors), np.asarray(model.item_vectors), split, "test", [10]).mean
    assert model.metrics["test"]["recall@10"] == mean["recall", 10]
    for user in ("u0", "u31"):
        bought = set(frame[(frame.user == user) & (frame.split == 0)].item)
        scores = np.asarray(model.item_vectors) @ model.user_vectors.of(user)
        expected = [i for i in np.argsort(-scores) if IDS[i] not in bought]
        top = model.recommend(user, shops.ITEMS)
        assert [item for item, _ in top] == [IDS[i] for i in expected]
        assert [score for _, score in top] == pytest.approx(scores[expected].tolist())
    assert len(model.recommend("u0")) == 10


def test_equal_arguments_give_equal_bytes_whatever_the_threads(
    model: alignrec.Recommender, x: alignrec.Vectors, interactions: pa.Table
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(5)
    again = alignrec.fit("alignrec", interactions, x, **FAST)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert np.asarray(again.user_vectors).tobytes() == np.asarray(model.user_vectors).tobytes()
    assert again.metrics == model.metrics
    other = alignrec.fit("alignrec", interactions, x, seed=1, **FAST)
    assert not np.array_equal(other.user_vectors, model.user_vectors)


def test_a_killed_call_continues_and_ends_the_same(
    model: alignrec.Recommender, x: alignrec.Vectors, interactions: pa.Table, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def die(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise Killed

    epochs: list[int] = []
    every = FAST | {"checkpoint_every": 1}
    with pytest.raises(Killed):
        alignrec.fit("alignrec", interactions, x, checkpoint=tmp_path, progress=die, **every)
    assert len(list(tmp_path.iterdir())) == 1
    watch = {"checkpoint": tmp_path, "progress": lambda line: epochs.append(line["epoch"])}
    alignrec.fit("alignrec", interactions, np.asarray(x) * 2, ids=IDS, **watch, **every)  # type: ignore[arg-type]
    assert epochs == [0, 1, 2, 3], "other vectors are another training"
    epochs.clear()
    again = alignrec.fit("alignrec", interactions, x, **watch, **every)  # type: ignore[arg-type]
    assert epochs == [3]  # of epoch 2 the checkpoint was written before it was told
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(again.item_vectors, model.item_vectors)
    assert again.history == model.history


def test_without_vectors_the_catalogue_is_what_occurs(interactions: pa.Table) -> None:
    frame = interactions.to_pandas()
    numbers = frame.assign(user=frame.user.str[1:].astype(int), item=100 + frame.item.str[1:].astype(int))
    model = alignrec.fit("itemknn", numbers.drop(columns="split"), protocol="leave-one-out")
    assert isinstance(model.user_vectors, sp.csr_array)
    assert set(model.items) == set(numbers.item)
    (item, score), *_ = model.recommend(7, 3)
    assert isinstance(item, int)
    assert item >= 100
    row, column = list(model.users).index(7), list(model.items).index(item)
    assert score == pytest.approx(float((model.user_vectors[[row]] @ model.item_vectors[[column]].T).toarray()[0, 0]))
    assert model.protocol["name"] == "mmrec, leave-one-out"
    assert model.protocol["filter"] == "users >= 1, items >= 1, repeatedly"


def test_an_item_without_interactions_can_be_recommended(x: alignrec.Vectors, interactions: pa.Table) -> None:
    frame = interactions.to_pandas()
    model = alignrec.fit("contentknn", frame[(frame.item != "i4") & (frame.split != 2)], x)
    assert model.items.tolist() == IDS
    assert "i4" in {item for item, _ in model.recommend("u0", 40)}
    assert set(model.metrics) == {"valid"}, "no test part, no test figures"


def test_mistakes_are_one_line(model: alignrec.Recommender, x: alignrec.Vectors, interactions: pa.Table) -> None:
    frame = interactions.to_pandas()
    alone = pd.DataFrame({"user": ["a", "b"], "item": ["i1", "i2"]})
    for name, table, vectors, more, line in (
        ("alignrek", frame, x, {}, "'model': no 'alignrek'; did you mean 'alignrec'?"),
        ("alignrec", frame, x, {"epoch": 3}, "'fit.alignrec.epoch'; did you mean 'epochs'?"),
        ("alignrec", frame, x, {"lr": -1.0}, "'fit.alignrec.lr'"),
        ("alignrec", frame, None, {}, "alignrec reads content"),
        ("alignrec", frame, x, {"rule": "strikt"}, "'rule': no 'strikt'; did you mean 'strict'?"),
        ("alignrec", frame, x, {"graph_k": 0}, "graph_k: 0"),
        ("mgcn", frame, x, {"modalities": [4, 5]}, r"modalities: \[4, 5\] make 9 columns, .* 8"),
        ("alignrec", frame, {"a": x}, {}, r"vectors: is object \(\)"),
        ("bpr", frame[:0], None, {}, "interactions: .* no rows"),
        ("bpr", alone, None, {}, "no valid interactions"),
    ):
        with pytest.raises(alignrec.UserError, match=line) as e:
            alignrec.fit(name, table, vectors, **more)  # type: ignore[arg-type]
        assert "\n" not in str(e.value)
    for user, k, line in (("u999", 5, "no user 'u999' in train; did you mean 'u9'"), ("u1", 51, "k: 51; give 1 to 50")):
        with pytest.raises(alignrec.UserError, match=line):
            model.recommend(user, k)


def test_cold_items_are_judged_alone_and_among_all() -> None:
    rows = [(f"u{u}", f"i{i}") for u in range(50) for i in range(u % 2, 160, 2) if (u * 7 + i * 3) % 5 < 2]
    table = pa.table({"user": [u for u, _ in rows], "item": [i for _, i in rows]})
    ways = np.random.default_rng(0).normal(size=(2, 6))[np.arange(160) % 2].astype(np.float32)
    names = [f"i{i}" for i in range(160)]
    fitted = alignrec.fit("contentknn", table, ways, ids=names, protocol="cold-items", cold_share=0.4, ks=[20, 50])
    assert fitted.among_all is not None
    assert fitted.protocol["candidates"] == "cold items alone"
    assert fitted.among_all["protocol"]["candidates"] == "all items"
    assert set(fitted.metrics["test"]) == {f"{m}@20" for m in ("recall", "ndcg", "precision", "map")}  # of 32, not 50
    assert fitted.metrics["test"]["recall@20"] > fitted.among_all["metrics"]["test"]["recall@20"]
    few = alignrec.fit("contentknn", table, ways, ids=names, protocol="sparse", most_train=2)
    assert (few.among_all, few.protocol["split"]) == (None, "sparse 2 of mmrec")
    assert np.bincount(few.seen.users).max() == 2
    with pytest.raises(UserError, match="cold_share: 2"):
        alignrec.fit("contentknn", table, ways, ids=names, protocol="cold-items", cold_share=2)
    with pytest.raises(UserError, match=r"'protocol'.*'cold-itms'"):
        alignrec.fit("contentknn", table, ways, ids=names, protocol="cold-itms")
