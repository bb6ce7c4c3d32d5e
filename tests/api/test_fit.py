"""`alignrec.fit` trains any recommender on any table and resumes; `alignrec.probe` runs the probes, with controls."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from shop import tastes

import alignrec
from alignrec import schemas
from alignrec.interactions import Splitting, number
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import load_split
from alignrec.pipeline.evaluation.probe import judge
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.models.metrics import evaluate_vectors
from alignrec.pipeline.runtime.layout import Layout

IDS = [f"i{i}" for i in range(tastes.ITEMS)]
FAST: dict[str, Any] = {"dim": 8, "lr": 0.01, "epochs": 4}


@pytest.fixture(scope="module")
def x() -> alignrec.Vectors:
    return alignrec.Vectors(tastes.content(), IDS)


@pytest.fixture(scope="module")
def model(x: alignrec.Vectors, interactions: pa.Table) -> alignrec.Recommender:
    return alignrec.fit("alignrec", interactions, x, **FAST)


def test_metrics_and_recommendations_are_its_vectors(model: alignrec.Recommender, interactions: pa.Table) -> None:
    frame, number = interactions.to_pandas(), {name: i for i, name in enumerate(model.users)}
    rows = [(number[u], int(i[1:]), s) for u, i, s in zip(frame.user, frame.item, frame.split, strict=True)]
    split = load_split(tastes.interactions(rows), 60, 50)
    mean = evaluate_vectors(np.asarray(model.user_vectors), np.asarray(model.item_vectors), split, "test", [10]).mean
    assert model.metrics["test"]["recall@10"] == mean["recall", 10]
    for user in ("u0", "u31"):
        bought = set(frame[(frame.user == user) & (frame.split == 0)].item)
        scores = np.asarray(model.item_vectors) @ model.user_vectors.of(user)
        expected = [i for i in np.argsort(-scores) if IDS[i] not in bought]
        top = model.recommend(user, tastes.ITEMS)
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


def test_mistakes_in_a_fit_are_one_line(
    model: alignrec.Recommender, x: alignrec.Vectors, interactions: pa.Table
) -> None:
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


# --- `alignrec.probe`


@pytest.fixture(scope="module")
def probed(x: alignrec.Vectors, interactions: pa.Table) -> alignrec.ProbeResult:
    return alignrec.probe(x, interactions)


def figures(result: alignrec.ProbeResult, name: str = "vectors") -> dict[str, Any]:
    return {probe: sets[name] for probe, sets in result.figures.items()}


def test_figures_are_the_pipelines(probed: alignrec.ProbeResult, layout: Layout) -> None:
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    column = table.schema.get_field_index("timestamp")
    table = table.set_column(column, "timestamp", pa.array(range(len(table)), pa.int64()))
    asked = judge.build_tasks(Data(table, tastes.ITEMS))
    ks = [5, 10, 20, 50]
    expected = judge.summarise_answers(asked, judge.answer_sets(asked, [("vectors", tastes.content())], ks)[0], ks)
    for probe in ("zero_shot", "item_cf", "content_knn"):
        assert probed.figures[probe]["vectors"] == expected[probe]["vectors"]
    assert probed.skipped.keys() == {"cold_items"}
    assert "fewer than" in probed.skipped["cold_items"]
    assert probed.dropped == {}


def test_controls_follow_the_seed(probed: alignrec.ProbeResult, x: alignrec.Vectors, interactions: pa.Table) -> None:
    assert alignrec.probe(x, interactions).figures == probed.figures
    assert alignrec.probe(x, interactions, seed=1).figures != probed.figures


def test_any_table_will_do(probed: alignrec.ProbeResult, x: alignrec.Vectors, interactions: pa.Table) -> None:
    import polars as pl

    frame = interactions.to_pandas()
    numbers = frame.assign(user=frame.user.str[1:].astype(int), item=frame.item.str[1:].astype(int))
    times = frame.assign(timestamp=pd.to_datetime(frame.timestamp, unit="s"))
    words = frame.assign(split=frame.split.map({0: "train", 1: "valid", 2: "test"}))
    expected = number(interactions, IDS, Splitting()).table
    for table in (frame, pl.from_arrow(interactions), interactions.to_pydict(), times, words):
        assert number(table, IDS, Splitting()).table.equals(expected)
    for table in (numbers, numbers.to_records(index=False)):
        assert number(table, range(tastes.ITEMS), Splitting()).table.equals(expected)
    plain = np.asarray(x)
    assert figures(alignrec.probe(plain, frame, ids=IDS)) == figures(probed)
    rows = numbers[["user", "item", "timestamp"]].to_numpy()
    assert figures(alignrec.probe(plain, rows))["zero_shot"] == figures(probed)["zero_shot"]
    assert alignrec.probe(plain, rows[:, :2]).skipped["zero_shot"] == "the source has no real timestamps"


def test_rows_that_are_not_used_are_counted(x: alignrec.Vectors, interactions: pa.Table) -> None:
    frame = interactions.to_pandas()
    more = pd.DataFrame({"user": ["u1", "u2", None], "item": ["other", "i3", "i4"], "timestamp": 7, "split": [0, 2, 0]})
    late = pd.DataFrame({"user": ["new"], "item": ["i5"], "timestamp": 7, "split": 2})
    result = alignrec.probe(x, pd.concat([frame, more, late]))
    assert result.dropped == {"item without a vector": 1, "missing_value": 1, "user_without_train": 1}
    assert "dropped: 1 interactions, item without a vector" in str(result)
    drawn = alignrec.probe(x, pd.concat([frame, frame[:4]]).drop(columns="split"), user_core=9, item_core=2)
    assert drawn.dropped["duplicate"] == 4


def test_mistakes_in_a_probe_are_one_line(x: alignrec.Vectors, interactions: pa.Table) -> None:
    frame, plain = interactions.to_pandas(), np.asarray(x)
    bad = plain.copy()
    bad[3, 1] = np.nan
    for vectors, table, more, line in (
        (x, frame[:0], {}, "interactions: .* no rows"),
        (x, frame.rename(columns={"user": "users"}), {}, "interactions: no column 'user'; did you mean 'users'?"),
        (x, "ratings.csv", {}, "interactions: str is no table"),
        (x, np.zeros((3, 5)), {}, r"interactions: .*\(3, 5\)"),
        (x, frame.assign(timestamp="today"), {}, "interactions: column 'timestamp' is large_string"),
        (x, frame.assign(split=3), {}, "interactions, row 1: split is '3'; expected train"),
        (x, frame.assign(split="trian"), {}, "interactions, row 1: split is 'trian'"),
        (x, frame.assign(split=1), {}, "no rating is left of 600: 600 user_without_train"),
        (x, frame, {"protocol": "leave-one"}, "'protocol': no 'leave-one'; did you mean 'leave-one-out'?"),
        (x, frame.drop(columns="timestamp"), {"protocol": "user-time"}, "user-time needs times"),
        (x, frame, {"protocol": "mmrec", "user_core": 99}, "no rating is left of 600"),
        (x, frame, {"user_core": 2}, "user_core, item_core: .*'split'"),
        (x, frame, {"ks": ()}, "ks: none"),
        (plain, frame, {}, "none of their items, i.*; the vectors are of 0, .*`ids`"),
        (plain, frame, {"ids": IDS[:7]}, "vectors: 50 vectors for 7 items"),
        (plain, frame, {"ids": ["i1"] * 50}, "ids: 'i1' occurs twice"),
        (bad, frame, {"ids": IDS}, "vectors, row 3: not finite"),
        (plain[:0], frame, {}, r"vectors: is float32 \(0, 8\)"),
        ({}, frame, {}, "vectors: none were given"),
        ({"a": x, "b": alignrec.Vectors(plain, [*IDS[1:], "z"])}, frame, {}, "b: no vector of item 'i0'"),
    ):  # fmt: skip
        with pytest.raises(alignrec.UserError, match=line) as e:
            alignrec.probe(vectors, table, **more)  # type: ignore[arg-type]
        assert "\n" not in str(e.value)
