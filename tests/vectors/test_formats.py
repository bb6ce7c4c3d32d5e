"""Third-party formats with reordered, unknown and misspelt identifiers; and refusals."""

import gzip
import json
import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.vectors import json_lines, members, records
from alignrec.pipeline.vectors.base import match_file, open_vectors
from alignrec.pipeline.vectors.formats import list_members, pack_folder
from alignrec.pipeline.vectors.mapping_files import read_order
from alignrec.pipeline.vectors.records import RECORD_BYTES, RECORDS_PER_BLOCK
from tests.vectors import formats

ITEMS, WIDTH = 40, 5
ASINS = [f"B{i:09d}" for i in range(ITEMS)]
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, WIDTH)).astype(np.float32)


def theirs() -> tuple[list[str], np.ndarray, list[int]]:
    """Return reordered identifiers and vectors, three of them unknown, and the items that lack a row."""
    turned = np.random.default_rng(1).permutation(ITEMS)
    ids = [ASINS[i] for i in turned]
    ids[3], ids[11], ids[30] = ids[3][:-1] + "O", "X111111111", "Y222222222"
    return ids, VECTORS[turned], sorted(int(turned[row]) for row in (3, 11, 30))


@pytest.mark.parametrize("name", formats.IDENTIFIED)
def test_rows_are_matched_by_identifier_and_what_does_not_match_is_counted(tmp_path: Path, name: str) -> None:
    ids, vectors, lacking = theirs()
    matched = match_file(formats.IDENTIFIED[name](tmp_path, ids, vectors), ASINS)
    expected = VECTORS.copy()
    expected[lacking] = 0
    assert np.array_equal(matched.rows(0, ITEMS), expected)
    assert np.array_equal(matched.rows(7, 19), expected[7:19])
    assert matched.rows(5, 5).shape == (0, WIDTH)
    assert (matched.identified, matched.unknown, matched.missing) == (True, 3, 3)
    said = matched.counted(ASINS)
    assert "3 rows are of no item here, such as" in said
    assert f"3 items have no row, such as '{ASINS[lacking[0]]}', and get zeros" in said


@pytest.mark.parametrize("write", [formats.ducho, formats.parquets])
def test_files_that_other_tools_leave_beside_the_vectors_are_none(tmp_path: Path, write: formats.Write) -> None:
    folder = write(tmp_path, ASINS, VECTORS)
    for name in ("_embed.json", "._B000000000.npy", "_metadata.parquet", ".DS_Store", "_SUCCESS"):
        (folder / name).write_bytes(b"{}")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    for path in [folder] if write is formats.parquets else [folder, Path(archive)]:
        matched = match_file(path, ASINS)
        assert (matched.unknown, matched.missing) == (0, 0)


def test_identifiers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    ids = [*ASINS[::-1]]
    ids[4] = f"{ids[4][:-1]}O"
    matched = match_file(formats.parquet(tmp_path, ids, VECTORS[::-1].copy()), ASINS)
    assert matched.example == f"'{ids[4]}'"
    with pytest.raises(UserError, match=r"none of its 9 rows .* 40 items.*'X0' there, and 'B000000000' here"):
        match_file(formats.parquet(tmp_path, [f"X{i}" for i in range(9)], VECTORS[:9]), ASINS)


@pytest.mark.parametrize("name", formats.IDENTIFIED)
def test_a_value_that_is_not_finite_names_its_row_and_not_that_of_no_item(tmp_path: Path, name: str) -> None:
    vectors = VECTORS.copy()
    vectors[6, 2] = np.nan
    path = formats.IDENTIFIED[name](tmp_path, ASINS, vectors)
    with pytest.raises(UserError, match="row 6: not finite in single precision"):
        match_file(path, ASINS).rows(0, ITEMS)
    assert np.array_equal(match_file(path, [*ASINS[:6], *ASINS[7:]]).rows(0, ITEMS - 1), np.delete(VECTORS, 6, 0))


@pytest.mark.parametrize("name", formats.ORDERED)
def test_without_identifiers_rows_are_in_order_or_in_that_of_a_mapping_file(tmp_path: Path, name: str) -> None:
    ids, vectors, lacking = theirs()
    path = formats.ORDERED[name](tmp_path, vectors)
    plain = match_file(path, ASINS)
    assert np.array_equal(plain.rows(0, ITEMS), vectors)
    assert plain.how == "rows assumed to be in order of item_id: it holds no identifiers; --order gives another order"
    matched = match_file(path, ASINS, formats.mapping(tmp_path, ids))
    expected = VECTORS.copy()
    expected[lacking] = 0
    assert np.array_equal(matched.rows(0, ITEMS), expected)
    assert (matched.identified, matched.unknown, matched.missing) == (False, 3, 3)
    assert matched.how == "rows in the order of i_id_mapping.csv"
    with pytest.raises(UserError, match=r"40 rows.*39 items"):
        match_file(path, ASINS[1:])
    with pytest.raises(UserError, match=r"i_id_mapping\.csv names 39"):
        match_file(path, ASINS, formats.mapping(tmp_path, ids[1:]))
    with pytest.raises(UserError, match="expected a column of this dataset's identifiers"):
        match_file(path, ASINS, formats.mapping(tmp_path, [f"X{i}" for i in range(ITEMS)]))


def test_a_larger_file_gives_its_part(tmp_path: Path) -> None:
    many = [f"B{i:09d}" for i in range(9 * ITEMS)]
    vectors = np.random.default_rng(2).standard_normal((len(many), WIDTH)).astype(np.float32)
    table = pa.table({"item_id": range(len(many)), "parent_asin": many[::-1], "v": vectors.tolist()})
    pq.write_table(table, tmp_path / "t.parquet")  # numbers of their own, that look like ours
    matched = match_file(tmp_path / "t.parquet", ASINS)
    assert matched.how == "rows matched by parent_asin"
    assert np.array_equal(matched.rows(0, ITEMS), vectors[::-1][:ITEMS])
    assert (matched.unknown, matched.missing) == (8 * ITEMS, 0)


def test_whole_numbers_are_the_sources_identifiers_or_ours_and_never_a_guess(tmp_path: Path) -> None:
    def written(key: str) -> Path:
        rows = [json.dumps({key: i, "v": VECTORS[i].tolist()}) for i in (2, 0, 1)]
        (tmp_path / "x.jsonl").write_text("\n".join(rows))
        return tmp_path / "x.jsonl"

    assert np.array_equal(match_file(written("item_id"), ASINS[:3]).rows(0, 3), VECTORS[:3])
    assert np.array_equal(match_file(written("item"), ["1", "2", "x"]).rows(0, 3)[:2], VECTORS[[1, 2]])
    with pytest.raises(UserError, match="column 'item_id' fits as identifiers and as item numbers; add asin"):
        match_file(written("item_id"), ["1", "2", "x"])


def test_folders_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(UserError, match=r"no \*\.parquet in this folder"):
        match_file(folder, ASINS)
    np.save(folder / f"{ASINS[0]}.npy", np.ones(3))
    np.save(folder / f"{ASINS[1]}.npy", np.ones(4))
    with pytest.raises(UserError, match="row 1: 4 numbers, the rows before have 3"):
        match_file(folder, ASINS).rows(0, ITEMS)
    np.save(folder / f"{ASINS[1]}.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=f"{ASINS[1]}.npy: not readable"):
        match_file(folder, ASINS).rows(0, ITEMS)
    (folder / f"{ASINS[1]}.npy").unlink()
    (folder / f"{ASINS[1]}.npy").mkdir()
    with pytest.raises(UserError, match="not a plain file"):
        match_file(folder, ASINS).rows(0, ITEMS)
    (tmp_path / "x.feature").write_bytes(VECTORS.tobytes())
    with pytest.raises(UserError, match="no folder, and its name has no ending of a known format"):
        match_file(tmp_path / "x.feature", ASINS)


def test_several_tensors_of_items_are_refused_and_code_is_never_run(tmp_path: Path) -> None:
    torch.save({"image": torch.ones(3, 2), "text": torch.ones(3, 2)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"holds image \(3, 2\), text \(3, 2\); expected one matrix"):
        match_file(tmp_path / "x.pt", ASINS)


def test_what_is_as_large_as_may_be_is_read_and_a_byte_less_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps({"asin": ASINS[0], "vector": [1.0, 2.0]}).encode()
    (tmp_path / "x.jsonl").write_bytes(line)
    for most in (len(line), len(line) - 1):
        monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", most)
        with nullcontext() if most == len(line) else pytest.raises(UserError, match="line 1: longer than"):
            match_file(tmp_path / "x.jsonl", ASINS)

    (tmp_path / "items").mkdir()
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", formats.ducho(tmp_path / "items", ASINS, VECTORS)))
    with zipfile.ZipFile(archive) as opened:
        largest = max(member.file_size for member in opened.infolist())
    for most in (largest, largest - 1):
        monkeypatch.setattr(members, "MAX_MEMBER_BYTES", most)
        with nullcontext() if most == largest else pytest.raises(UserError, match="no member of this kind has more"):
            match_file(archive, ASINS).rows(0, ITEMS)


INDEXES = {
    "": range(40, 80),
    "index": range(7, 47),
    "Unnamed: 0": range(40),
    "row": [*range(20, 40), *range(20)],
}
"""name of a column -> its numbers"""


@pytest.mark.parametrize("name", INDEXES)
def test_row_numbers_beside_vectors_are_left_out_and_named(tmp_path: Path, name: str) -> None:
    named = {f"v{i}": column for i, column in enumerate(VECTORS.T)}
    frame = pd.DataFrame({name: INDEXES[name], "asin": ASINS, **named})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    frame.set_index(name).to_csv(tmp_path / "index.csv")
    for file in ("x.csv", "x.parquet", "index.csv"):
        matched = match_file(tmp_path / file, ASINS)
        assert np.array_equal(matched.rows(0, ITEMS), VECTORS), file
        assert matched.counted(ASINS) == f"column {name!r} is left out, as it numbers the rows"


def test_the_index_that_pandas_stores_is_left_out_and_named(tmp_path: Path) -> None:
    named = {f"v{i}": column for i, column in enumerate(VECTORS.T)}
    frame = pd.DataFrame({"asin": ASINS, **named}).sort_values("v0")
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv")
    for file, name in {"x.parquet": "__index_level_0__", "x.csv": ""}.items():
        matched = match_file(tmp_path / file, ASINS)
        assert np.array_equal(matched.rows(0, ITEMS), VECTORS)
        assert f"column {name!r} is left out" in matched.counted(ASINS)
    pd.DataFrame(VECTORS).to_csv(tmp_path / "bare.csv", header=False)
    bare = match_file(tmp_path / "bare.csv", ASINS)
    assert np.array_equal(bare.rows(0, ITEMS), VECTORS)
    assert "column 'first' is left out" in bare.counted(ASINS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["price", "timestamp", "w0", "index2"])
def test_other_numbers_beside_vectors_are_refused(tmp_path: Path, ending: str, name: str) -> None:
    named = {f"v{i}": column for i, column in enumerate(VECTORS.T)}
    frame = pd.DataFrame({"asin": ASINS, **named, name: np.arange(ITEMS) + 7})
    getattr(frame, f"to_{ending}")(tmp_path / f"x.{ending}", index=False)
    with pytest.raises(UserError, match=rf"columns '{name}' are not those of the vector, v0 \.\. v4; leave out"):
        match_file(tmp_path / f"x.{ending}", ASINS)
    columns = ["asin", "v0", name]
    getattr(frame[columns], f"to_{ending}")(tmp_path / f"x.{ending}", index=False)
    with pytest.raises(UserError, match=rf"columns 'v0', '{name}' are not a numbered series, such as v0, v1"):
        match_file(tmp_path / f"x.{ending}", ASINS)


EMPTY = {"asin": pa.array([], pa.string()), "v": pa.array([], pa.list_(pa.float32()))}
TABLES = {
    "two widths": ({"asin": ASINS[:3], "v": [[1.0, 2.0], [1.0], [3.0, 4.0]]}, "row 1: column 'v' holds 1 numbers"),
    "a null": ({"asin": ASINS[:3], "v": [[1.0, 2.0], None, [3.0, 4.0]]}, "row 1: column 'v' holds no vector"),
    "a null in a vector": ({"asin": ASINS[:1], "v": [[1.0, None]]}, "a null inside a vector"),
    "no rows": (EMPTY, "holds no vectors"),
}


@pytest.mark.parametrize(("columns", "said"), TABLES.values(), ids=TABLES)
def test_parquet_that_does_not_fit_is_one_line(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=said):
        match_file(tmp_path / "x.parquet", ASINS).rows(0, ITEMS)


@pytest.mark.parametrize("write", [formats.ducho, formats.parquets])
def test_a_folder_packed_is_one_file_the_same_each_time(tmp_path: Path, write: formats.Write) -> None:
    ids, vectors, _ = theirs()
    folder = write(tmp_path, ids, vectors)
    packed = tmp_path / ("packed.zip" if list_members(folder) else "packed.parquet")
    pack_folder(folder, packed)
    first = packed.read_bytes()
    pack_folder(folder, packed)
    assert packed.read_bytes() == first
    here, there = match_file(packed, ASINS), match_file(folder, ASINS)
    assert np.array_equal(here.rows(0, ITEMS), there.rows(0, ITEMS))
    assert here.unknown == there.unknown == 3


# --- image features by ASIN


def record(asin: str, value: float) -> bytes:
    return asin.encode() + np.full(records.RECORD_WIDTH, value, "<f4").tobytes()


def write(path: Path, *records: bytes) -> Path:
    data = b"".join(records)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["x.b", "x.b.gz"])
def test_wanted_items_in_the_wanted_order_and_the_others_counted(tmp_path: Path, name: str) -> None:
    many = [record(f"B{i:09d}", i) for i in range(RECORDS_PER_BLOCK + 2)]
    path = write(tmp_path / name, *many, record("B000000003", -1))
    asins = [f"B{RECORDS_PER_BLOCK + 1:09d}", "NOT_THERE_", "B000000003"]
    matched = match_file(path, asins)
    assert matched.rows(0, 3)[:, [0, -1]].tolist() == [[RECORDS_PER_BLOCK + 1] * 2, [0, 0], [3, 3]]
    assert (matched.place >= 0).tolist() == [True, False, True]
    assert (matched.unknown, matched.missing, matched.vectors.of_images) == (RECORDS_PER_BLOCK + 1, 1, True)


def test_a_cut_or_broken_file_is_one_line_with_the_place(tmp_path: Path) -> None:
    good = record("B000000000", 1)
    with pytest.raises(UserError, match=rf"x\.b: cut off at byte {RECORD_BYTES + 99:,}"):
        match_file(write(tmp_path / "x.b", good, good[:99]), ["B000000000"])
    matched = match_file(write(tmp_path / "x.b", good, record("B000000001", np.nan)), ["B000000000", "B000000001"])
    with pytest.raises(UserError, match="row 1: not finite"):
        matched.rows(0, 2)


def test_parquet_that_lacks_rows_it_announces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]]}), path)
    vectors, whole = open_vectors(path), pq.ParquetFile.iter_batches
    # as pyarrow reads a file with a damaged page
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args: (b.slice(0, 1) for b in whole(*args)))
    with pytest.raises(UserError, match=r"short.parquet: holds 1 of 2 rows"):
        vectors.take(np.arange(2))
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args: iter(()))
    with pytest.raises(UserError, match=r"short.parquet: holds 0 of 2 rows"):
        open_vectors(path)


def test_a_tensor_that_is_stored_negated_is_read(tmp_path: Path) -> None:
    torch.save(torch.full((2, 2), 1j).conj().imag, tmp_path / "n.pt")
    assert match_file(tmp_path / "n.pt", ["a", "b"]).rows(0, 2).tolist() == [[-1, -1]] * 2


@pytest.mark.parametrize("names", ["asin,row", "row,item", "asin,Row", "row,id"])
def test_a_mapping_file_may_call_its_rows_row(tmp_path: Path, names: str) -> None:
    rows = {"b": 0, "c": 1, "a": 2}
    lines = [f"{row},{asin}" if names.startswith("row") else f"{asin},{row}" for asin, row in rows.items()]
    path = tmp_path / "map.csv"
    path.write_text("\n".join([names, *lines]))
    assert read_order(path, ["a", "b", "c"]) == ["b", "c", "a"]

    path.write_text("\n".join([f"{names},{names}", *(f"{line},{line}" for line in lines)]))
    with pytest.raises(UserError, match="two columns are called"):
        read_order(path, ["a", "b", "c"])
