"""Codes in use as tables, on rows whose figures are plain to see."""

import pyarrow as pa

import schemas
from pipeline.report import sequenced, studied

LABEL = {"dataset": "shop", "protocol": "strict, leave-one-out", "fingerprint": "e" * 16}
FIGURES = {
    ("tiger", "beit3", "residual-kmeans"): 0.3,
    ("tiger", "beit3", "random"): 0.1,
    ("sasrec", "none", "none"): 0.2,
}


def study() -> dict[str, pa.Table]:
    """Return three contenders over two seeds, a learning rate that was only tried, and popularity."""
    rows = [
        LABEL | {"model": m, "features": f, "method": c, "rate": 0.01, "seed": seed, "split": "test", "metric": metric,
                 "k": k, "value": value + 0.02 * seed, "best_epoch": 3}
        for (m, f, c), value in FIGURES.items() for seed in range(2) for metric in ("recall", "ndcg", "map")
        for k in (10, 20)
    ]  # fmt: skip
    rows += [row | {"rate": 0.5, "split": "valid", "value": 0.9} for row in rows[:4]]
    trivial = {"model": "popularity", "features": "none", "method": "none", "rate": None, "best_epoch": None, "seed": 0}
    rows += [row | trivial | {"value": 0.05} for row in rows[:6]]
    a, b = (dict(zip(("model", "features", "method"), one, strict=True)) for one in list(FIGURES)[:2])
    test = {"metric": "recall", "k": 20, "seeds": 2, "n": 9, "mean_a": 0.31, "mean_b": 0.11, "difference": 0.2}
    sides = {f"{key}_{side}": value for side, one in (("a", a), ("b", b)) for key, value in one.items()}
    sure = LABEL | sides | test | {"low": 0.1, "high": 0.3, "p": 0.001, "p_holm": 0.002}
    tests = [sure, sure | {"metric": "ndcg", "p_holm": 0.4}]
    return {
        "generative": pa.Table.from_pylist(rows, schemas.GENERATIVE),
        "generative_tests": pa.Table.from_pylist(tests, schemas.GENERATIVE_TESTS),
    }


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
    assert tests.bars is not None


def test_a_study_without_codes_in_use_has_no_such_table_and_the_card_has_them_where_there_are() -> None:
    empty = {part: schemas.STUDY[part].empty_table() for part in ("generative", "generative_tests")}
    assert sequenced.used(empty) == sequenced.used({}) == []
    assert [table.heading for table in studied.summed(study())] == ["Codes in use", "Codes in use: paired tests"]
