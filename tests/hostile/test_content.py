"""Releases whose bytes agree with their manifest and yet say nothing: refused by name. A report of nothing is made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.export.content import of_dataset
from pipeline.export.write import write
from pipeline.graph.neighbours import neighbours
from pipeline.release import manifest, verify
from pipeline.report import atlas
from pipeline.report.neighbours import nearest
from pipeline.run import running
from stages import publish, report

EDGES, FEATURES = "graph/beit3/edges.parquet", "features/beit3/features-00000.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = toy.outputs(tmp_path_factory.mktemp("built"))
    with running("publish", "shop", toy.PARAMS, layout.root) as run:
        publish.main(run)
    return layout.release


def doubled(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table])


def unordered(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(1), table.slice(0, 1)])


def blank(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("vector")
    zeros = io.vectors(np.zeros_like(io.matrix(table["vector"])))
    return table.set_column(place, table.schema.field("vector"), zeros)


def named_alike(table: pa.Table) -> pa.Table:
    return table.set_column(1, table.schema.field("user"), pa.array(["U0", "U0", *table["user"].to_pylist()[2:]]))


FAULTS = {
    "no edges": ([EDGES], lambda t: t.slice(0, 0), f"{EDGES}: no edge of item 0"),
    "no edge of one": ([EDGES], lambda t: t.filter(pa.compute.field("item_id") != 3), f"{EDGES}: no edge of item 3"),
    "an edge twice": ([EDGES], doubled, "rank 0 of item 0 is not the next edge"),
    "edges in another order": ([EDGES], unordered, f"{EDGES}, row 0: rank 1 of item 0 is not the next edge"),
    "two users of one name": (["users.parquet", "embeddings/users.parquet"], named_alike, "user 'U0' is there twice"),
    "vectors of nothing": ([FEATURES], blank, "features/beit3: every vector is zero"),
}


@pytest.mark.parametrize(("names", "change", "error"), FAULTS.values(), ids=FAULTS)
def test_a_release_that_says_nothing_is_refused(
    built: Path, tmp_path: Path, names: list[str], change: object, error: str
) -> None:
    release = shutil.copytree(built, tmp_path / "release")
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    for place, file in enumerate(content["files"]):
        if file["path"] in names:
            at = release / file["path"]
            pq.write_table(change(pq.read_table(at, partitioning=None)), at)
            described = manifest.describe(release, at, file["table"]).model_dump()
            content["files"][place] = described | {"used_by": file["used_by"]}
    path.write_text(json.dumps(manifest.with_digest(content)))
    with pytest.raises(UserError) as caught:
        list(verify(release))
    assert error in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_report_is_made_where_a_feature_set_has_no_neighbours(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    edges = neighbours(np.zeros((toy.ITEMS, 2), np.float32), 4)
    io.write_table(edges, layout.edges("minilm-cnn"), schemas.EDGES)
    assert nearest(edges, 4) == {}
    assert np.isfinite(atlas.layout(edges, toy.ITEMS, 0)).all()
    with running("report", "shop", toy.PARAMS, tmp_path) as run:
        report.main(run)
    assert (layout.report / "index.html").exists()


@pytest.mark.parametrize("form", ["mmrec", "npy", "recbole"])
def test_formulas_of_spreadsheets_are_kept_and_said(tmp_path: Path, form: str) -> None:
    """Tools read the tables back: an apostrophe would be another identifier."""
    content = of_dataset(toy.outputs(tmp_path), [])
    names = ["=1+1", "@x", "-7", *content.items["asin"].to_pylist()[3:]]
    write(replace(content, items=content.items.set_column(1, "asin", pa.array(names))), form, tmp_path / "to")
    assert "3 identifiers, titles or brands begin with =, +, - or @" in (tmp_path / "to/README.md").read_text()
    tables = [p.read_text() for p in (tmp_path / "to").rglob("*") if p.suffix in (".csv", ".tsv", ".item")]
    assert any("=1+1" in text and "'=" not in text for text in tables)
