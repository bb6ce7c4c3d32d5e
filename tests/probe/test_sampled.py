"""Users and items drawn from a large catalogue."""

import numpy as np
import pyarrow as pa
import pytest

import schemas
from pipeline.probe import asking, questions, sampled
from pipeline.probe.base import Data

ITEMS, USERS, KS = 90, 300, [5, 10]
DRAWN = {"zero_shot": "users", "content_knn": "users", "item_cf": "items"}


def shop(users: int = USERS) -> Data:
    rng = np.random.default_rng(4)
    rows = np.unique(rng.integers(0, (users, ITEMS), (8 * users, 2)), axis=0)
    columns = {"user_id": rows[:, 0], "item_id": rows[:, 1], "timestamp": rng.integers(0, 5, len(rows))}
    columns |= {"rating": np.ones(len(rows)), "split": rng.integers(0, 3, len(rows))}
    table = pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schemas.INTERACTIONS})
    return Data(schemas.check(table, schemas.INTERACTIONS), ITEMS)


def test_a_catalogue_of_a_common_size_is_asked_in_full() -> None:
    assert sampled.most(7_050) > 19_445  # Baby's items and users
    assert sampled.rows(ITEMS, 0).tolist() == list(range(ITEMS))


def test_drawn_users_and_items_have_the_answers_that_they_have_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32)
    whole = asking.answers(asking.ask(shop(), DRAWN), [("x", features)], KS)
    monkeypatch.setattr(sampled, "COSINES", 0)
    monkeypatch.setattr(sampled, "FEWEST", 20)
    asked = asking.ask(shop(), DRAWN)
    some = asking.answers(asked, [("x", features)], KS)
    for probe, unit in DRAWN.items():
        assert len(some[probe]["x"]) == 20 < len(whole[probe]["x"])
        of_all = whole[probe]["x"].tolist()
        assert all(answer in of_all for answer in some[probe]["x"].tolist())
        if isinstance(task := asked[probe], questions.Questions):
            assert task.note == f"20 of {len(of_all)} {unit} were asked, drawn by seed."
    again = asking.answers(asking.ask(shop(), DRAWN), [("x", features)], KS)
    assert all(np.array_equal(again[probe]["x"], some[probe]["x"]) for probe in DRAWN)


def test_a_shop_without_users_is_skipped_with_the_reason() -> None:
    assert all(isinstance(task, str) for task in asking.ask(shop(users=0), DRAWN).values())
