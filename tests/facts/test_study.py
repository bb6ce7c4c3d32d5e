"""The study as tables, on rows whose figures are plain to see."""

from study_tables import CURVES, table, tail_table, variants

from pipeline.facts import study


def test_variants_have_their_change_and_its_interval() -> None:
    recommended, probed = study.variants(variants())
    assert [row[0] for row in recommended.rows] == ["recipe", "article", "taste"]
    assert recommended.rows[0][3:] == ["0.2000 ± 0.0100", "", "", ""]
    assert recommended.rows[1][3:6] == ["0.1800 ± 0.0100", "+0.1000", "+0.0500 .. +0.1500"]
    assert recommended.marks == {(1, 4): "better"}
    assert probed.head[3:] == ["Item-CF hit@20"]
    assert [row[3] for row in probed.rows] == ["0.2000", "0.2000 (+0.1000)"]
    assert study.variants(variants().slice(0, 0)) == []


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
    tables = study.summed({"mask": table("mask", []), "tail": tail_table(), "variants": variants()})
    assert [shown.heading for shown in tables][-2:] == [
        "AlignRec on the encoder of each variant",
        "Probes of each variant",
    ]
