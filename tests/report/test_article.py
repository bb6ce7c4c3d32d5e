"""The article's tables of a run: what git keeps, and what of an earlier run stays."""

from pathlib import Path

import pyarrow as pa
import pytest
import toy

import schemas
from pipeline import io
from pipeline.report import article, headline
from pipeline.report.outputs import Outputs
from pipeline.report.table import Table


def test_a_part_that_did_not_run_leaves_what_git_has_of_an_earlier_run(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    io.write_json(layout.figures("article-tail"), [{"note": "of its own run"}])
    io.write_json(layout.figures("article-ablation"), [{"note": "earlier"}])
    headline.write(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("article-tail")) == [{"note": "of its own run"}]
    (table,) = io.read_json(layout.figures("article-ablation"))
    assert table["head"][0] == "ablation"
    assert table["rows"]


def test_the_lead_is_marked_where_it_is_sure_and_controls_are_left_out(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    row = {
        "dataset": "shop", "protocol": "mmrec", "fingerprint": "f", "slice": "popularity", "label": "1", "n": 50,
        "k": 20, "model": "bpr", "features": "none", "seeds": 3, "mean": 0.1, "mean_low": 0.05, "mean_high": 0.15,
        "difference": 0.0312, "low": 0.01, "high": 0.05, "p": 0.001, "p_holm": 0.002,
    }  # fmt: skip
    rows = [row, row | {"label": "2", "difference": -0.001, "low": -0.1, "high": 0.1, "p": 0.8, "p_holm": 0.8}]
    rows += [row | {"features": "random", "model": "alignrec"}]
    table = pa.Table.from_pylist(rows, schemas.STUDY["tail"])
    io.write_table(table, layout.study("tail"), schemas.STUDY["tail"])
    (leads,) = article.tables(Outputs(layout, released="beit3"))["tail"]
    assert leads.head == ["run", "1", "2"]
    assert leads.rows == [["n", "50", "50"], ["BPR", "+0.0312*", "-0.0010"]]


@pytest.mark.parametrize(
    ("cell", "kept"), [("0.2265 ± 0.0032", ".2265 ± .0032"), ("+0.0312*", "+.0312*"), ("10.5", "10.5")]
)
def test_figures_are_kept_without_the_zero_before_their_points(cell: str, kept: str) -> None:
    table = Table("h", "p 0.05", ["a"], [[cell], [cell]], marks={(1, 0): "better"})
    assert article.kept(table) == {
        "heading": "h", "note": "p .05", "head": ["a"], "rows": [[kept], [f"**{kept}**"]],
    }  # fmt: skip
