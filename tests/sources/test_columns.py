"""Columns are read by their own name: whatever the case of others, the folder's name, or the path's characters."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import toy

from alignrec.pipeline.dataset.items import find_shared
from alignrec.pipeline.dataset.split_tables import create_database
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.amazon import Reader2023
from alignrec.pipeline.sources.base import Reader
from alignrec.pipeline.sources.inspect import inspect_table
from alignrec.pipeline.sources.mmrec import MmrecReader
from alignrec.pipeline.sources.tabular import Tabular, TabularSource

ENDINGS = ("parquet", "csv", "jsonl")
ROW = {"USER": "zz", "user": "a", "item": "x", "Rating": "1", "rating": "5", "Timestamp": "1500000000"}
ROW |= {"timestamp": "1600000000"}
EXPECTED = [("a", "x", 5.0, 1600000000)]


def write(path: Path, names: Sequence[str], values: Sequence[str]) -> Path:
    """Write a table of one row of texts in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table([pa.array([value]) for value in values], names=list(names)), path)
    elif path.suffix == ".csv":
        path.write_text(f"{','.join(names)}\n{','.join(values)}\n")
    else:
        path.write_bytes(orjson.dumps(dict(zip(names, values, strict=True))))
    return path


def reader(path: Path, **columns: str) -> Tabular:
    return Tabular(TabularSource(kind="tabular", interactions=str(path), columns=columns))


def ratings(reader: Reader, path: Path, role: str = "interactions") -> list[tuple[object, ...]]:
    with create_database(path.parent / "scratch", "256MiB") as db:
        return db.sql(reader.ratings({role: path})).fetchall()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_column_is_not_that_of_another_case(tmp_path: Path, ending: str, backwards: bool) -> None:
    row = dict(reversed(ROW.items())) if backwards else ROW
    path = write(tmp_path / f"r.{ending}", [*row], [*row.values()])
    assert ratings(reader(path), path) == EXPECTED
    if ending != "jsonl":
        assert inspect_table(path, {}).roles["user"] == "user"
        assert ratings(reader(path, user="USER"), path) == [("zz", *EXPECTED[0][1:])]


def test_roles_may_be_columns_that_differ_in_case_only(tmp_path: Path) -> None:
    for ending in ENDINGS[:2]:
        path = write(tmp_path / f"r.{ending}", ["id", "ID"], ["u", "i"])
        assert ratings(reader(path, user="id", item="ID"), path) == [("u", "i", None, None)]

    path = write(tmp_path / "r.jsonl", ["id", "ID"], ["u", "i"])
    with pytest.raises(UserError, match=r"another key differs from 'id' in case only; rename one"):
        ratings(reader(path, user="id", item="ID"), path)


@pytest.mark.parametrize("folder", ["user=zz", "rating=1/timestamp=9", "x[1]", "y*", "z?"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_path_says_nothing_about_the_rows(tmp_path: Path, folder: str, ending: str) -> None:
    for other in ("x1", "y1", "z1"):  # what the path would be a pattern of
        write(tmp_path / other / f"r.{ending}", ["user", "item"], ["wrong", "wrong"])
    path = write(tmp_path / folder / f"r.{ending}", ["user", "item"], ["a", "x"])
    assert ratings(reader(path), path) == [("a", "x", None, None)]


def test_amazon_and_mmrec_read_columns_by_name_too(tmp_path: Path) -> None:
    names, values = ["USER_ID", *Reader2023.columns], ["zz", "a", "x", "5", "1600000000000"]
    path = write(tmp_path / "user_id=zz/r.parquet", names, values)
    assert ratings(Reader2023(), path, "reviews") == EXPECTED
    path = write(tmp_path / "less.parquet", names[:-1], values[:-1])
    with pytest.raises(UserError, match="no column 'timestamp'; it has USER_ID, user_id"):
        ratings(Reader2023(), path, "reviews")

    path = tmp_path / "userID=7/x.inter"
    path.parent.mkdir()
    path.write_text("USERID\tuserID\titemID\trating\ttimestamp\tx_label\n9\t0\t1\t5\t3\t0\n")
    assert ratings(MmrecReader(), path) == [(0, 1, 5.0, 3, 0)]


def test_placeholders_are_those_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "title=zz/items.parquet"
    path.parent.mkdir()
    pq.write_table(toy.item_table(["a", "b", "b"], asin=["x", "y", "z"]), path)
    assert [(row["value"], row["items"]) for row in find_shared(path, 0.5)] == [("b", 2)] * 2


@pytest.mark.parametrize("ending", ENDINGS[:2])
@pytest.mark.parametrize("name", ["user", "rating"])
def test_a_name_of_two_columns_is_refused(tmp_path: Path, ending: str, name: str) -> None:
    path = write(tmp_path / f"r.{ending}", ["user", "item", "rating", name], ["a", "x", "5", "4"])
    fault = f"two columns are called '{name}'; rename one"
    with pytest.raises(UserError, match=fault):
        ratings(reader(path), path)
    with pytest.raises(UserError, match=fault):
        inspect_table(path, {})


@pytest.mark.parametrize("ending", ENDINGS[:2])
def test_a_name_of_two_columns_of_items_is_refused(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"i.{ending}", ["item", "title", "title"], ["x", "one", "two"])
    with pytest.raises(UserError, match="two columns are called 'title'"):
        reader(path).metadata({"metadata": path})
    with pytest.raises(UserError, match="two columns are called 'title'"):
        MmrecReader().metadata({"metadata": path})

    for names in (["item", "title", "title"], ["item", "item", "title"]):
        path = write(tmp_path / f"i.{ending}", names, ["x", "y", "two"])
        result = alignrec("embed", path, "--encoder", "descriptors", "--to", tmp_path / "to", cwd=tmp_path)
        assert result.exit_code == 1, result.output
        assert f"two columns are called '{names[1]}'" in result.output.replace("\n", " ")
