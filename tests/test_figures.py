"""Tables of the docs come from files of figures."""

from pathlib import Path

import leagues
import numpy as np
import pyarrow as pa
import pytest
import releases
import sequential_toys
import toy
from study_tables import variants

import schemas
from benchmarks import _figures, _judge
from pipeline import io
from pipeline.compare import codes as compare

PAGE = """# Page
before
<!-- figures: {kind} {dataset} -->
typed by hand
<!-- /figures -->
after
"""


TESTED = {
    "dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16, "k": 20, "seeds": 3, "n": 4, "mean": 0.2,
    "sd": 0.1, "difference": -0.1, "low": -0.2, "high": 0.0, "p": 0.5, "p_holm": 1.0,
}  # fmt: skip
ARGUED = {
    "joint": {"variant": "without pre-training", "rate": 0.0, "best_epoch": 3.0, "before": 0.0, "seconds": 9.0},
    "wrong": {"model": "vbpr", "features": "beit3", "what": "image", "ratio": 0.5},
}
"""part of the study -> a row of its table, beside TESTED"""


@pytest.mark.parametrize("kind", _figures.KINDS)
def test_a_block_is_made_from_files_and_is_made_equal_again(kind: str, tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    if kind == "probes":  # the toy's evidence has no width
        io.write_json(layout.probes, io.read_json(layout.probes) | {"processed": {"width": 128}})
    if kind == "codes-seeds":
        params = toy.params(semantic_ids={"levels": 2, "codes": 2})
        compare.compare(layout, params, ["beit3"], ["residual-kmeans"], 2, layout.folder("compare"))
    if kind == "variants":
        io.write_table(variants().replace_schema_metadata(), layout.study("variants"), schemas.VARIANTS)
    if kind == "generative":
        for part, table in sequential_toys.study().items():
            io.write_table(table.replace_schema_metadata(), layout.study(part), schemas.STUDY[part])
    if kind == "league":
        row = leagues.ROW | {"dataset": layout.dataset, "features": "beit3"}
        made = layout.folder("league") / "league.parquet"
        io.write_table(pa.Table.from_pylist([row], schemas.LEAGUE), made, schemas.LEAGUE)
    if kind == "releases":
        releases.released(layout)
    if kind in ARGUED:
        schema = schemas.STUDY[kind]
        io.write_table(pa.Table.from_pylist([TESTED | ARGUED[kind]], schema), layout.study(kind), schema)
    once, absent = _figures.rewritten(PAGE.format(kind=kind, dataset=layout.dataset), tmp_path)
    assert not absent
    assert "typed by hand" not in once
    assert once.startswith("# Page\nbefore\n")
    assert once.endswith("<!-- /figures -->\nafter\n")
    assert ("without pre-training" if kind == "joint" else "beit3" if kind != "data" else "| shop | 4 | 6 |") in once
    assert _figures.rewritten(once, tmp_path) == (once, [])


def test_a_block_without_outputs_stays_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(kind="results", dataset="deeper/down:nothing"))
    _figures.main([str(page), "--root", str(tmp_path)])
    assert page.read_text() == PAGE.format(kind="results", dataset="deeper/down:nothing")
    said = capsys.readouterr().err
    assert "left as it was: results deeper/down:nothing" in said
    assert "alignrec benchmark nothing" in said


def test_a_probe_predicts_what_has_its_order_and_fewer_sets_tell_less() -> None:
    x = np.arange(10.0)
    assert _judge.correlation(x, x**3) == (1, 1, 1)
    assert _judge.correlation(x, -x) == (-1, -1, -1)
    noisy = x + np.random.default_rng(0).normal(size=10) * 3
    (_, low, high), (_, lower, higher) = _judge.correlation(x, noisy), _judge.correlation(x[:5], noisy[:5])
    assert higher - lower > high - low


def test_a_misspelt_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'result'; .*results, matrix"):
        _figures.rewritten(PAGE.format(kind="result", dataset="d"), tmp_path)
