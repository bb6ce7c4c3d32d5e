"""The study's tables and charts on rows whose figures are plain to see."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import toy

import schemas
from pipeline import io
from pipeline.evaluation.evidence import Comparison, Row, comparisons
from pipeline.report import studied, tail
from pipeline.run import running
from stages import report

JUDGED = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "e" * 16}
SURE = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.004}
UNSURE = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.2, "p_holm": 0.4}


def table(part: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = schemas.STUDY[part]
    return pa.Table.from_pylist([JUDGED | row for row in rows], schema)


def tail_table() -> pa.Table:
    mean = {"k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    runs = (
        ("alignrec", "beit3", {}),
        ("bpr", "none", SURE),
        ("alignrec", "tfidf", UNSURE),
        ("alignrec", "random", SURE),
    )
    return table(
        "tail",
        [
            mean | {"slice": name, "label": label, "model": model, "features": features} | test
            for name, labels in (("popularity", ("tail", "head")), ("history", ("3",)))
            for label in labels
            for model, features, test in runs
        ],
    )


def test_the_tail_has_means_and_leads_with_intervals_and_marks_what_is_sure() -> None:
    means, leads, of_history, _ = tail.tails(tail_table())
    assert means.head == ["run", "tail", "head"]
    assert means.rows[0] == ["n", "7", "7"]
    assert means.rows[1] == ["alignrec on beit3", *["0.3000 (0.2500 .. 0.3500)"] * 2]
    assert "thirds" in means.note
    assert [row[0] for row in leads.rows] == ["n", "bpr", "alignrec on tfidf"]  # neither itself nor the controls
    assert leads.rows[1][1] == "+0.1000 (+0.0500 .. +0.1500)"
    assert leads.best == {(1, 1), (1, 2)}
    assert of_history.heading == "Recall@20 by history"
    assert tail.tails(tail_table().slice(0, 0)) == []


def test_the_tail_is_drawn_by_group_for_the_models_on_the_released_features() -> None:
    judged = Comparison("mmrec", "e" * 16, [Row("alignrec", "beit3", "", {}), Row("bpr", "none", "", {})])
    groups = tail.by_study(tail_table(), judged, "popularity")
    drawn = tail.served(groups, "popularity", "recall", "beit3")
    assert drawn
    assert drawn.keys == ["alignrec on beit3", "bpr"]  # neither another feature set nor a control
    assert [row.name for row in drawn.rows] == ["tail", "head"]
    assert drawn.rows[0].spans[0] == (71.43, 85.71, 100.0)


def test_who_is_shown_stands_beside_what_users_chose(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    (judged,) = comparisons(io.read_table(layout.results, schemas.RESULTS))
    k, slices = tail.sliced(io.read_table(layout.slices, schemas.SLICES), judged)
    drawn = tail.shown(slices, "who")
    assert k == 20
    assert drawn
    assert drawn.keys == ["less popular half", "next four tenths", "most popular tenth"]  # no cold target, none shown
    (chosen, targets), (run, shares), _ = drawn.rows
    assert (chosen, run) == (tail.CHOSEN, "alignrec on beit3")
    assert targets == pytest.approx([50 / 125, 58 / 125, 17 / 125])
    assert shares == pytest.approx([0.5, 0.4, 0.1])
    assert tail.in_words(drawn, "lightgcn") == [
        "The less popular half of the items has 40% of what users chose in test, 50% of what lightgcn shows, and 50% "
        "of what alignrec on beit3 shows."
    ]
    assert tail.in_words(drawn, "nobody") == tail.in_words(None, "lightgcn") == []


def arms() -> pa.Table:
    trained = {"what": "alignrec", "features": "beit3", "form": "raw", "metric": "recall", "k": 20, "seeds": 3,
               "mean": 0.2, "sd": 0.01, "encoder_seed": 0, "note": ""}  # fmt: skip
    probed = trained | {"what": "item_cf", "metric": "hit", "seeds": 1, "sd": None}
    return table(
        "arms",
        [
            trained | {"arm": "recipe"},
            trained | {"arm": "article", "mean": 0.9},  # of its first encoder alone
            trained | {"arm": "article", "mean": 0.18} | SURE,
            trained | {"arm": "taste", "note": "the encoder read train interactions"} | UNSURE,
            trained | {"arm": "taste", "k": 10},
            probed | {"arm": "recipe"},
            probed | {"arm": "taste", "note": "leak"} | SURE,
        ],
    )


def test_arms_have_their_change_its_interval_and_their_leak() -> None:
    (drawn,) = studied.arms_pictures(arms())
    assert drawn.title == "Change in test Recall@20 against the recipe over 3 trainings, 95 % interval"
    assert [(row.name, row.sure) for row in drawn.rows] == [("article", True), ("taste", False)]
    recommended, probed = studied.arms(arms())
    assert [row[0] for row in recommended.rows] == ["recipe", "article", "taste"]
    assert recommended.rows[0][3:] == ["0.2000 ± 0.0100", "", "", "", ""]
    assert recommended.rows[1][3:6] == ["0.1800 ± 0.0100", "+0.1000", "+0.0500 .. +0.1500"]
    assert recommended.rows[2][-1] == "the encoder read train interactions"
    assert recommended.best == {(1, 4)}
    assert probed.head[3:] == ["Item-CF hit@20"]
    assert [row[3] for row in probed.rows] == ["0.2000", "0.2000 (+0.1000)"]
    assert "taste, item_cf: leak." in probed.note
    assert studied.arms(arms().slice(0, 0)) == []


def test_a_sweep_is_a_curve_and_a_heat_map() -> None:
    curves = [
        {"sweep": "rate", "key": "train.lr", "value": value, "recall@20": recall, "sd": sd, "seeds": 2}
        for value, recall, sd in ((0.001, 0.1, 0.01), (0.01, 0.2, 0.02), (0.1, 0.15, None))
    ]
    maps = [{"map": "study alignrec both: lr, cca", "settings": "lr, cca", "x": x, "y": "0.1", "valid": v, "trials": 1}
            for x, v in (("0.01", 0.2), ("0.1", 0.3))]  # fmt: skip
    (chart,) = studied.sweep_charts(curves)
    assert chart.title == "rate: valid Recall@20 by train.lr, mean ± sd over 2 seeds"
    assert [text for _, text in chart.x_marks] == ["0.001", "0.01", "0.1"]
    (points,), (heat,) = studied.sweep_points(curves), studied.heatmaps(maps)
    assert points.rows[1] == ["rate", "train.lr", "0.01", "2", "0.2000 ± 0.0200"]
    assert points.best == {(1, 4)}
    assert heat.rows == [["0.1", "0.200", "0.300"]]
    assert studied.sweep_points([]) == studied.heatmaps([]) == []


def test_the_page_has_a_section_for_each_part(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for part, rows in (("tail", tail_table()), ("arms", arms())):
        io.write_table(rows.replace_schema_metadata(), layout.study(part), schemas.STUDY[part])
    points = [
        {"sweep": "rate", "key": "train.lr", "value": v, "recall@20": v, "sd": None, "seeds": 1} for v in (0.1, 0.2)
    ]
    io.write_json(layout.study_plot("curves"), points)
    with running("report", "shop", toy.PARAMS, tmp_path) as run:
        report.main(run)
    page, text = ((layout.report / name).read_text() for name in ("index.html", "report.md"))
    for anchor in ("tail", "mask", "arms", "settings-swept"):
        assert page.count(f'<section id="{anchor}">') == page.count(f'href="#{anchor}"') == 1
    assert "### AlignRec's lead by popularity" in text
    assert text.count("### Recall@20 by popularity") == 1  # once, with intervals
    assert "### AlignRec on the encoder of each arm" in text
    assert "measured on valid alone" in text
    summed = [
        shown.heading for shown in studied.summed({"mask": table("mask", []), "tail": tail_table(), "arms": arms()})
    ]
    assert summed[-2:] == ["AlignRec on the encoder of each arm", "Probes of each arm"]
