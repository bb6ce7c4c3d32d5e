"""`alignrec.fit`: every recommender on any table, reproducibly, and resumed after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import shops

import alignrec
from alignrec.pipeline.evaluation.metrics import evaluate_vectors
from alignrec.pipeline.interactions.split import load_split as load_split

IDS = [f"i{i}" for i in range(shops.ITEMS)]
FAST: dict[str, Any] = {"dim": 8, "lr": 0.01, "epochs": 4}


@pytest.fixture(scope="module")
def x() -> alignrec.Vectors:
    return alignrec.Vectors(shops.content(), IDS)


@pytest.fixture(scope="module")
def model(x: alignrec.Vectors, interactions: pa.Table) -> alignrec.Recommender:
    return alignrec.fit("alignrec", interactions, x, **FAST)


def test_metrics_and_recommendations_are_its_vectors(model: alignrec.Recommender, interactions: pa.Table) -> None:
    frame, number = interactions.to_pandas(), {name: i for i, name in enumerate(model.users)}
    rows = [(number[u], int(i[1:]), s) for u, i, s in zip(frame.user, frame.item, frame.split, strict=True)]
    split = load_split(shops.interactions(rows), 60, 50)
    mean = evaluate_vectors(np.asarray(model.user_vectors), np.asarray(model.item_vectors), split, "test", [10]).mean
    assert model.metrics["test"]["recall@10"] == mean["recall", 10]
    for user in ("u0", "u31"):
        bought = set(frame[(frame.user == user) & (frame.split == 0)].item)
        scores = np.asarray(model.item_vectors) @ model.user_vectors.of(user)
        expected = [i for i in np.argsort(-scores) if IDS[i] not in bought]
        top = model.recommend(user, shops.ITEMS)
        assert [item for item, _ in top] == [IDS[i] for i in expected]
        assert [score for _, score in top] == pytest.approx(scores[expected].tolist())
    assert len(model.recommend("u0")) == 10


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
