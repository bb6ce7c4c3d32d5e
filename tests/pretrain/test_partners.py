"""Which items users have in common."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from pipeline.interactions import cooccurrence
from pipeline.pretrain import partners
from schemas import TEST, TRAIN, VALID


def _table(rows: list[tuple[int, int, int]]) -> pa.Table:
    user, item, split = zip(*rows, strict=True)
    return pa.table({"user_id": user, "item_id": item, "split": split})


def test_items_with_enough_common_train_users_are_partners() -> None:
    rows = [(u, i, TRAIN) for u in range(3) for i in (0, 1)]  # three users of 0 and 1
    rows += [(7, 0, TRAIN), (7, 2, TRAIN)]  # one of 0 and 2
    rows += [(u, i, split) for u, split in ((8, VALID), (9, TEST)) for i in (0, 2)]  # held back
    assert [set(r) - {-1} for r in partners.partners(_table(rows), 4, 3)] == [{1}, {0}, set(), set()]
    assert partners.partners(_table(rows), 4, 1)[0, :3].tolist() == [1, 2, -1]


@pytest.mark.parametrize("block", [1, 7, 100])
def test_partners_are_those_of_the_plain_formula(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "BLOCK", block)
    rng = np.random.default_rng(0)
    rows = [(int(u), int(i), TRAIN) for u, i in rng.integers(0, (30, 40), (400, 2))]
    top = partners.partners(_table(rows), 40, 2)
    users = [{u for u, i, _ in rows if i == item} for item in range(40)]
    for i in range(40):
        score = {j: Fraction(len(users[i] & users[j]) ** 2, len(users[j])) for j in range(40) if j != i}
        enough = [j for j in score if len(users[i] & users[j]) >= 2]
        want = sorted(enough, key=lambda j: (-score[j], j))[: partners.MOST]
        assert top[i][top[i] >= 0].tolist() == want


def test_each_partner_is_drawn_as_often() -> None:
    candidates = np.tile([[4, 6, -1], [-1, -1, -1]], (600, 1))
    drawn = partners.draw(candidates, [np.random.default_rng(s) for s in range(1200)])
    assert set(drawn[1::2]) == {-1}
    assert set(drawn[::2]) == {4, 6}
    assert abs((drawn[::2] == 4).mean() - 0.5) < 0.1
