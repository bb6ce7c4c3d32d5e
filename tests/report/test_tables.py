"""Tables of rows whose figures are obvious."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.report import probes, study
from alignrec.stages import semantic_ids


def test_the_best_figure_of_each_column_is_marked() -> None:
    figures = {"users": 5, "chance": {"hit@5": 0.1, "hit@10": 0.2}, "a": {"hit@5": 0.3, "hit@10": 0.3},
             "b": {"hit@5": 0.2, "hit@10": 0.4}}  # fmt: skip
    (table,) = probes.probe_tables({"zero_shot": figures})
    assert [r[0] for r in table.rows] == ["b", "a", "chance"]
    assert table.marks == {(1, 2): "best", (0, 3): "best"}


def test_shares_are_of_the_way_from_chance_to_what_is_planted_and_of_what_planted_modalities_add() -> None:
    hits = {"chance": 0.1, "planted": 0.5, "planted-image-masked": 0.45, "cnn": 0.2, "linear": 0.4, "shuffled": 0.1,
            "beit3": 0.3, "beit3-image-masked": 0.28}  # fmt: skip
    figures = {"users": 5} | {name: {"hit@20": value} for name, value in hits.items()}
    (table,) = probes.ceiling_tables({"zero_shot": figures})
    assert table.head == ["feature set", "zero-shot"]
    assert table.rows == [["linear", "75%"], ["beit3", "50%"], ["beit3-image-masked", "45%"],
                          ["cnn", "25%"], ["shuffled", "0%"], ["beit3 + image", "40%"]]  # fmt: skip
    hits = {name: of for name, of in figures.items() if not name.startswith("planted")}
    assert probes.ceiling_tables({"zero_shot": hits}) == probes.ceiling_tables(None) == []


def test_semantic_ids_come_with_random_codes(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    with running(
        "semantic_ids", "shop", toy.params(semantic_ids={"features": ["beit3"], "levels": 2, "codes": 2}), tmp_path
    ) as run:
        semantic_ids.main(run)
    (table,) = study.semantic_ids(io.read_json(layout.code_quality))
    assert [row[0] for row in table.rows] == ["beit3", "beit3, random codes"]
    assert all(len(row) == len(table.head) and row[1].endswith("%") for row in table.rows)
    assert study.semantic_ids({}) == []


def test_leads_on_the_long_tail_have_intervals_and_marks_where_they_are_sure() -> None:
    sure = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.004}
    unsure = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.2, "p_holm": 0.4}
    mean = {"k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    runs = ("alignrec", "beit3", {}), ("bpr", "none", sure), ("alignrec", "tfidf", unsure), ("alignrec", "random", sure)
    rows = [
        {"dataset": "shop", "protocol": "mmrec", "fingerprint": "e" * 16, **mean, **test}
        | {"slice": name, "label": label, "model": model, "features": features}
        for name, label in (("popularity", "tail"), ("popularity", "head"), ("history", "3"))
        for model, features, test in runs
    ]
    by_popularity, by_history = study.lead_tables(pa.Table.from_pylist(rows, schemas.TAIL))
    assert by_popularity.head == ["run", "tail", "head"]
    assert [row[0] for row in by_popularity.rows] == ["n", "BPR", "AlignRec on tfidf"]  # neither itself nor controls
    assert by_popularity.rows[0][1:] == ["7", "7"]
    assert by_popularity.rows[1][1] == "+0.1000 (+0.0500 .. +0.1500)"
    assert by_popularity.marks == {(1, 1): "better", (1, 2): "better"}
    assert by_history.heading == "AlignRec's lead by history"
