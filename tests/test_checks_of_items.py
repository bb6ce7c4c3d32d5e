"""Cutoffs, codes and cold items that the catalogue has not enough items for are refused by name."""

import pytest
from shop import cold, toy

from alignrec.pipeline.io.errors import UserError
from alignrec.stages.checks import check_catalogue, check_cold_items


def test_a_cutoff_above_the_catalogue_is_refused() -> None:
    check_catalogue(toy.params(), 50)
    with pytest.raises(UserError, match=r"benchmark\.ks.*50 .*49"):
        check_catalogue(toy.params(), 49)


def test_more_codes_than_items_are_refused() -> None:
    check_catalogue(toy.params(semantic_ids={"features": ["beit3"]}), 60)  # the default suits the catalogue
    check_catalogue(toy.params(semantic_ids={"codes": 64}), 60)  # nothing is coded
    with pytest.raises(UserError, match=r"semantic_ids\.codes': 64 .*60 items; give fewer"):
        check_catalogue(toy.params(semantic_ids={"features": ["beit3"], "codes": 64}), 60)


def test_too_few_cold_items_are_refused() -> None:
    check_cold_items(cold.params(), 21, 21)
    with pytest.raises(UserError, match=r"cold_share.*26 items.*20.*20"):
        check_cold_items(cold.params(), 26, 20)
