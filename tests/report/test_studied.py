"""The study's pictures on rows with plain figures, and the users on the page."""

from pathlib import Path

import toy
from study_tables import CURVES, tail_table

import schemas
from pipeline import io
from pipeline.evaluation.evidence import Comparison, Row
from pipeline.report import page, studied
from pipeline.report.outputs import Outputs
from pipeline.report.tail import by_study
from pipeline.report.users import users
from pipeline.run import Run, running
from stages import report


def test_the_tail_is_drawn_by_group_for_the_models_on_the_released_features() -> None:
    judged = Comparison("mmrec", "e" * 16, [Row("alignrec", "beit3", "", {}), Row("bpr", "none", "", {})])
    groups = by_study(tail_table(), judged, "popularity")
    drawn = studied.served(groups, "popularity", "recall", "beit3")
    assert drawn
    assert drawn.keys == ["AlignRec on beit3", "BPR"]  # neither another feature set nor a control
    assert [row.name for row in drawn.rows] == ["tail", "head"]
    assert drawn.rows[0].spans[0] == (71.43, 85.71, 100.0)


def test_the_page_has_a_section_for_each_part(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    io.write_table(tail_table().replace_schema_metadata(), layout.study("tail"), schemas.TAIL)
    io.write_json(layout.study_plot("curves"), CURVES)
    with running("report", "shop", toy.PARAMS, tmp_path) as run:
        report.main(run)
    page, text = ((layout.report / name).read_text() for name in ("index.html", "report.md"))
    for anchor in ("tail", "mask", "settings-swept"):
        assert page.count(f'<section id="{anchor}">') == page.count(f'href="#{anchor}"') == 1
    assert "### AlignRec's lead by popularity" in text
    assert text.count("### Recall@20 by popularity") == 1  # once, with intervals
    assert "measured on valid only" in text


def test_items_bought_in_test_are_framed_and_have_images(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    with running("report", "shop", toy.PARAMS, layout.root) as run:
        report.main(run)
    text = (layout.report / "index.html").read_text()
    section = text.split('<section id="users">')[1].split('<section id="results">')[0]
    outputs = Outputs(layout, released="beit3")
    shown = users(outputs, Run("report", "shop", toy.PARAMS, layout.root).seed("users"))
    hits = sum(item in user.wanted for user in shown for items in user.ranked.values() for item in items)
    assert section.count("framed") == hits + sum(len(user.wanted) for user in shown)
    assert "<script>" not in section
    view = page.view(outputs, None, shown, seed=1)  # of a page that cannot search all items
    assert view
    assert set(view.images) == {item for user in shown for item in user.shown if toy.COLOURS[item]}


def test_a_sweep_is_a_curve() -> None:
    (chart,) = studied.sweep_charts(CURVES)
    assert chart.title == "rate: valid Recall@20 by train.lr, mean ± sd over 2 seeds"
    assert [text for _, text in chart.x_marks] == ["0.001", "0.01", "0.1"]
