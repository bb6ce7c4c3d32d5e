"""Tables on rows whose figures are plain to see."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import toy
from study_tables import CURVES, table, tail_table

from pipeline.report import ceiling, codes, content, probes, study
from pipeline.report.neighbours import choose, nearest
from pipeline.run import running
from stages import semantic_ids


def test_images_are_counted_by_reason_and_rare_reasons_together() -> None:
    many = content.REASONS + 3
    status = pa.chunked_array([["ok"] * 5 + ["http_error"] * many])
    reason = pa.chunked_array([[""] * 5 + [f"status {i}" for i in range(many)]])
    rows = content.quality("Images", status, reason, "").rows
    assert rows[0] == ["ok", "", "5", "17.9%"]
    assert rows[-1] == ["others", "4 more reasons", "4", "14.3%"]
    assert sum(int(r[2]) for r in rows) == 5 + many


def test_a_million_items_cost_hours_watt_hours_and_dollars() -> None:
    notes = {
        "beit3": {"items_per_s": 1000.0},
        "cnn": {"items_per_s": 9.0, "taken_over": 5},
    }
    (table,) = content.cost({"rows_in": 1559, "machine": "abacus, 2 cores", "measured": notes}, 300, 2)
    # 1e6 / 1000 = 1000 s = .278 h; x 300 W = 83 Wh; x 2 dollars = .56
    assert table.rows == [["beit3", "1,000", "0.28", "83", "0.56"]]
    assert "300 W" in table.note
    assert "abacus" in table.note
    assert list(content.cost({}, 300, 2)) == []


def test_the_neighbours_are_the_graphs() -> None:
    edges = pa.table(
        {"item_id": [1, 1, 1, 0, 0], "neighbour_id": [1, 2, 0, 0, 2], "rank": [0, 1, 2, 0, 1], "cosine": [1.0] * 5}
    )
    assert nearest(edges, 1) == {0: [2], 1: [2]}
    assert nearest(edges, 5) == {0: [2], 1: [2, 0]}


def test_a_choice_takes_every_category_before_any_twice() -> None:
    chosen = choose(["a", "a", "a", "b", "c", "d"], [True] * 5 + [False], 4, seed=1)
    assert {["a", "a", "a", "b", "c", "d"][i] for i in chosen[:3]} == {"a", "b", "c"}
    assert 5 not in chosen
    assert choose(["a"] * 9, [True] * 9, 4, seed=1) == choose(["a"] * 9, [True] * 9, 4, seed=1)


def test_the_best_figure_of_each_column_is_marked() -> None:
    figures = {"users": 5, "chance": {"hit@5": 0.1, "hit@10": 0.2}, "a": {"hit@5": 0.3, "hit@10": 0.3},
             "b": {"hit@5": 0.2, "hit@10": 0.4}}  # fmt: skip
    (table,) = probes.tables({"zero_shot": figures})
    assert [r[0] for r in table.rows] == ["b", "a", "chance"]
    assert table.marks == {(1, 1): "best", (0, 2): "best"}


def test_shares_are_of_the_way_from_chance_to_each_ceiling() -> None:
    hits = {"chance": 0.1, "planted": 0.5, "planted-text-masked": 0.3, "cnn": 0.2, "linear": 0.4, "shuffled": 0.1}
    figures = {"users": 5} | {name: {"hit@20": value} for name, value in hits.items()}
    (table,) = ceiling.tables({"zero_shot": figures})
    assert table.head == ["feature set", "zero-shot"]
    assert table.rows == [["linear", "75%, 150%"], ["cnn", "25%, 50%"], ["shuffled", "0%, 0%"]]
    hits = {name: of for name, of in figures.items() if not name.startswith("planted")}
    assert ceiling.tables({"zero_shot": hits}) == ceiling.tables(None) == []


def test_a_sweep_is_a_table_of_points_and_a_heat_map() -> None:
    maps = [{"map": "study alignrec both: lr, cca", "settings": "lr, cca", "x": x, "y": y, "valid": v, "trials": 1}
            for x, y, v in (("0.01", "0.1", 0.2), ("0.1", "0.1", 0.3), ("0.1", "0.5", 0.25))]  # fmt: skip
    (points,), (heat,) = study.sweep_points(CURVES), study.heatmaps(maps)
    assert points.rows[1] == ["rate", "train.lr", "0.01", "2", "0.2000 ± 0.0200"]
    assert points.marks == {(1, 4): "best"}
    assert heat.rows == [["0.1", "0.200", "0.300"], ["0.5", "", "0.250"]]
    assert heat.heat[1, 2] == (0.25 - 0.2) / (0.3 - 0.2)
    assert study.sweep_points([]) == study.heatmaps([]) == []


def test_the_card_has_every_part_that_was_studied() -> None:
    tables = study.summed({"mask": table("mask", []), "tail": tail_table()})
    assert "AlignRec's lead by popularity" in [shown.heading for shown in tables]


SECTION = {"features": ["beit3"], "methods": ["residual-kmeans", "random"], "levels": 2, "codes": 2}


def test_methods_come_with_controls_in_the_order_of_the_registry(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    with running("semantic_ids", "shop", toy.params(semantic_ids=SECTION), tmp_path) as run:
        semantic_ids.main(run)
    judged = codes.gathered(layout)
    assert [(j.features, j.method) for j in judged] == [("beit3", method) for method in SECTION["methods"]]
    table = codes.headline(judged)
    assert all(len(row) == len(table.head) for row in table.rows)
    assert "random is a control: useful codes must beat it." in table.note
    assert table.rows[1][-2:] == ["", ""]  # random codes reconstruct nothing
    assert "Not for random: the codes stand for no vector." in codes.cost(judged).note
