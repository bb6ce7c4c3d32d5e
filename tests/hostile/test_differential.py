"""Twenty of the shops of `make differential`, and two faults of the pipeline that it finds."""

import pytest

from alignrec.pipeline.dataset import split_sql
from alignrec.pipeline.encoders import tfidf
from tests.hostile import differential

SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_pipeline_is_equal_to_plain_pandas_and_numpy(seed: int) -> None:
    found, _, params = differential.try_seed(seed)
    assert not found, "\n".join([*found, differential.describe(params)])


def test_another_order_of_a_split_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(split_sql.BY_USER, "mmrec", split_sql.BY_USER["user-time"])
    found, _, _ = differential.try_seed(0)
    assert found[0].startswith("interactions.split, row ")


def test_other_words_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "MIN_DF", 3)
    found, _, _ = differential.try_seed(1)
    assert found[0].startswith("words: dot product of items ")
