"""A dataset of the Hub as features: only identifiers and vectors are fetched, from all its Parquet."""

import io as bytes_io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub, hub

from pipeline.compare import feature_set
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.sources import many_files
from pipeline.sources.download import download, names

ITEMS = 30
ASINS = [f"B{i:09d}" for i in range(ITEMS)]
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, 4)).astype(np.float32)
ADDRESS = "hf://datasets/owner/name"


def table(rows: np.ndarray) -> bytes:
    out = bytes_io.BytesIO()
    columns = {"parent_asin": [ASINS[i] for i in rows], "title": ["long text " * 99] * len(rows)}
    pq.write_table(pa.table(columns | {"blair": VECTORS[rows].tolist()}), out, row_group_size=4)
    return out.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(tmp_path / "hub", monkeypatch) as served:
        parts = np.array_split(np.random.default_rng(1).permutation(ITEMS)[3:], 2)
        served.dataset.commits.append(
            {f"train-{n}.parquet": table(part) for n, part in enumerate(parts)} | {"README.md": b"x"}
        )
        yield served


def test_all_parquet_of_a_dataset_is_one_set_and_items_that_it_lacks_are_counted(server: Hub, tmp_path: Path) -> None:
    lacking = np.random.default_rng(1).permutation(ITEMS)[:3]
    read = feature_set.read(f"blair={ADDRESS}", Layout(tmp_path, "shop"), ASINS)
    expected = VECTORS.copy()
    expected[lacking] = 0
    assert np.array_equal(read.vectors, expected)
    assert read.name == "blair"
    assert "rows matched by parent_asin; 3 items have no row, such as" in read.source
    one = feature_set.read(f"{ADDRESS}/train-0.parquet", Layout(tmp_path, "shop"), ASINS)
    assert one.name == "train-0"
    assert "16 items have no row" in one.source
    assert many_files.hub_size(ADDRESS) == sum(
        len(data) for name, data in server.dataset.files.items() if "parquet" in name
    )


def test_a_source_keeps_identifiers_and_vectors_as_one_file(server: Hub, tmp_path: Path) -> None:
    addresses = {"feature:blair": [ADDRESS]}
    assert names(addresses) == {"feature:blair": "name.parquet"}
    download("shop", addresses, tmp_path, {}, 5, 0, lambda name: lambda done, total: None)
    kept = pq.read_table(tmp_path / "name.parquet")
    assert kept.column_names == ["parent_asin", "blair"]
    assert len(kept) == ITEMS - 3


def test_what_is_not_there_is_one_line(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path, "shop")
    for address, said in (
        ("hf://datasets/owner/other", "no such dataset"),
        (f"{ADDRESS}@nowhere", "no such dataset"),
        ("hf://owner", "names no dataset of the Hub"),
        (f"{ADDRESS}/absent.parquet", "no such dataset or file"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            feature_set.read(address, layout, ASINS)
        assert str(caught.value).isprintable()
    server.dataset.commits.append({"README.md": b"x"})
    with pytest.raises(UserError, match=r"no Parquet there; the Hub's own conversion lies at .*@refs%2Fconvert"):
        feature_set.read(ADDRESS, layout, ASINS)
    server.dataset.commits.append({"a.parquet": b"PAR1 no"})
    with pytest.raises(UserError, match="not readable as Parquet"):
        feature_set.read(ADDRESS, layout, ASINS)
