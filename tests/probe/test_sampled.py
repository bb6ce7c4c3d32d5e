"""Samples of users and items from a large catalogue."""

import numpy as np
import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline.probe import judge, questions
from alignrec.pipeline.probe.registry import Data

ITEMS, KS = 90, [5, 10]
DRAWN = {"zero_shot": "users", "content_knn": "users", "item_cf": "items"}


def shop(users: int = 300) -> Data:
    rng = np.random.default_rng(4)
    rows = np.unique(rng.integers(0, (users, ITEMS), (8 * users, 2)), axis=0)
    columns = {"user_id": rows[:, 0], "item_id": rows[:, 1], "timestamp": rng.integers(0, 5, len(rows))}
    columns |= {"rating": np.ones(len(rows)), "split": rng.integers(0, 3, len(rows))}
    table = pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schemas.INTERACTIONS})
    return Data(schemas.check(table, schemas.INTERACTIONS), ITEMS)


def test_drawn_users_and_items_have_the_answers_that_they_have_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert questions.sample_size(7_050) > 19_445, "Baby is asked in full"
    features = [("x", np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32))]
    everyone = judge.answer_sets(judge.build_tasks(shop()), features, KS)[0]
    monkeypatch.setattr(questions, "COSINES", 0)
    monkeypatch.setattr(questions, "FEWEST", 20)
    asked = judge.build_tasks(shop())
    some, again = (judge.answer_sets(asked, features, KS)[0] for asked in (asked, judge.build_tasks(shop())))
    for probe, unit in DRAWN.items():
        of_all = everyone[probe]["x"].tolist()
        assert len(some[probe]["x"]) == 20 < len(of_all)
        assert all(answer in of_all for answer in some[probe]["x"].tolist())
        assert isinstance(task := asked[probe], questions.Questions)
        assert task.note == f"20 of {len(of_all)} {unit} were asked, drawn by seed."
        assert np.array_equal(again[probe]["x"], some[probe]["x"])
