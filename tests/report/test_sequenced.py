"""Codes in use as tables, on rows whose figures are plain to see."""

from sequential_toys import study

import schemas
from pipeline.report import sequenced, studied


def test_contenders_stand_best_first_with_test_figures_over_seeds() -> None:
    means, _ = sequenced.used(study())
    assert [row[0] for row in means.rows] == [
        "tiger, residual-kmeans codes of beit3", "sasrec", "tiger, random codes of beit3", "popularity",
    ]  # fmt: skip
    assert means.head[1:] == ["learning rate", "seeds", "Recall@10", "Recall@20", "NDCG@10", "NDCG@20"]
    assert means.rows[0][1:4] == ["0.01", "2", "0.3100 ± 0.0141"]
    assert means.rows[3][1:4] == ["", "1", "0.0500"]
    assert "strict, leave-one-out, fingerprint eeee" in means.note


def test_tests_name_both_sides_and_mark_what_is_sure() -> None:
    _, tests = sequenced.used(study())
    assert tests.rows[0] == [
        "tiger, residual-kmeans codes of beit3", "tiger, random codes of beit3", "Recall@20", "+0.2000",
        "+0.1000 .. +0.3000", "0.002",
    ]  # fmt: skip
    assert tests.best == {(0, 3)}


def test_a_study_without_codes_in_use_has_no_such_table_and_the_card_has_them_where_there_are() -> None:
    empty = {part: schemas.STUDY[part].empty_table() for part in ("generative", "generative_tests")}
    assert sequenced.used(empty) == sequenced.used({}) == []
    assert [table.heading for table in studied.summed(study())] == ["Codes in use", "Codes in use: paired tests"]
