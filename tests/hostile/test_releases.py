"""Hostile releases: each fault is one line, before anything is used or written."""

import importlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from safetensors.numpy import load, save
from shop import releases, toy
from shop.releases import agree, edit, put
from webserver import Folder, body, listening, serving

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io import pages
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.io.tables import PARQUET as WRITTEN
from alignrec.pipeline.release import manifest, signature
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.read import verify
from alignrec.schemas import ContractError

TABLE = "features/beit3/features-00000.parquet"
EDGES = "graph/beit3/edges.parquet"
CODES = "semantic_ids/beit3/codes.parquet"
CONFIG, ENCODER = "encoders/beit3/config.json", "encoders/beit3/encoder.json"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return releases.with_encoders(tmp_path / "outputs", read=True).release


def refused(release: Path) -> str:
    """Return the one-line error of `verify` or of loading an encoder."""
    with pytest.raises((UserError, ContractError)) as e:  # noqa: PT012
        list(verify(release))
        encode_items(ReleasedEncoders(release).load("beit3"), ["a red ball"], [None])
    assert (len(str(e.value)) < 2000, str(e.value).isprintable()) == (True, True)
    return str(e.value)


def listed(*paths: str) -> Change:
    return lambda m: m["files"].extend(m["files"][0] | {"path": path} for path in paths)


MANIFESTS: dict[str, Change] = {
    "huge number": lambda m: m["counts"].update(items=10**30),
    "odd digits": lambda m: m.update(version="1.٣.0"),
    "long version": lambda m: m.update(version="1.0." + "9" * 5000),
    "lone surrogate": lambda m: m.update(dataset="\ud800"),
    "a lone surrogate in a path": listed("\ud800"),
    "escape in a path": listed("\x1b[2J"),
    "direction in a path": listed("gnp.\u202eexe"),
    "twice": listed("ITEMS.parquet"),
    "twice by composition": listed("\u00e9", "e\u0301"),
    "in a file": listed("items.parquet/x"),
    "itself": listed("manifest.json"),
    "in itself": listed("manifest.json/x"),
    "its signature": listed("manifest.json.sig"),
} | {
    path: listed(path)
    for path in (
        *("/etc/passwd", "../out", "a/../../out", "./a", "a//b", "", "a\\..\\b", "C:x", "a\nb", "README.MD"),
        *("CON", "features/aux.txt", "com1/x", "Lpt9 .b", "a.", "a /b"),
    )
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_hostile_manifest_is_refused(release: Path, tmp_path: Path, change: Change) -> None:
    edit(release, change)
    refused(release)
    with listening(Folder(release)) as server, pytest.raises(UserError, match=server.address):
        fetch(server.address, tmp_path / "here")
    assert (set(server.asked), [*tmp_path.glob("*here*")]) == ({"/manifest.json", "/manifest.json.sig"}, [])


def test_a_hostile_name_of_a_dataset_is_not_exported(release: Path) -> None:
    for name in ("../../escaped", "a/b", "", "-", "a\x1b[2J"):
        edit(release, lambda m, name=name: m.update(dataset=name))
        with pytest.raises(UserError, match="name of a dataset"):
            manifest.load(release)


def test_many_paths_and_paths_of_many_parts_take_linear_time(release: Path) -> None:
    content = json.loads((release / "manifest.json").read_text())
    deep = ["/".join("ab"[i >> bit & 1] for bit in range(500)) for i in range(2000)]
    first, started = content["files"][0], time.process_time()
    for paths in (dict.fromkeys(deep), [f"a/{'x' * 60}/{i}" for i in range(30_000)]):
        content["files"] = [first | {"path": path} for path in paths]
        manifest.parse(release, json.dumps(manifest.with_digest(content)).encode())
    assert time.process_time() - started < 30  # of this process; comparing each with each takes minutes


def replaced(release: Path, table: pa.Table, name: str = TABLE) -> None:
    """Replace a table and update the manifest, as an attacker would."""
    pq.write_table(table, release / name)
    rows, columns = manifest.read_shape(release / name)
    agree(release, name, rows=rows, columns=[c.model_dump() for c in columns])


def with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def narrow(table: pa.Table) -> pa.Table:
    kind = schemas.features(0).field("vector").type
    nothing = pa.FixedSizeListArray.from_buffers(kind, len(table), [None], children=[pa.array([], pa.float32())])
    return with_column(table, "vector", nothing)


def with_first(table: pa.Table, name: str, value: object) -> pa.Table:
    column = table[name]
    return with_column(table, name, pa.array([value, *column.to_pylist()[1:]], column.type))


BROKEN = pa.array([b"\xed\xa0\x80"] * toy.ITEMS).view(pa.string())  # lone surrogates
ODD = {b"\xff": b"\xff", b"alignrec": b"{"}
BLANK = io.vectors(np.zeros((toy.ITEMS, 8), np.float32))
TABLES: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "duplicate columns": (TABLE, lambda t: t.append_column("asin", t["asin"])),
    "zero width": (TABLE, narrow),
    "lone surrogates": (TABLE, lambda t: with_column(t, "asin", BROKEN)),
    "escapes": (TABLE, lambda t: with_column(t, "asin", pa.array(["\x1b[2J"] * len(t)))),
    "metadata that is no UTF-8": (TABLE, lambda t: t.replace_schema_metadata(ODD).drop_columns("has_text")),
    "vectors of nothing": (TABLE, lambda t: with_column(t, "vector", BLANK)),
    "no edges": (EDGES, lambda t: t.slice(0, 0)),
    "no edge of one item": (EDGES, lambda t: t.filter(pa.compute.field("item_id") != 3)),
    "an edge twice": (EDGES, lambda t: pa.concat_tables([t.slice(0, 1), t])),
    "an item without content that has codes": (CODES, lambda t: with_first(t, "status", "no_content")),
    "a negative code": (CODES, lambda t: with_first(t, "codes", [-1, 0])),
    "a suffix of no codes": (CODES, lambda t: with_first(t, "codes", None)),
    "edges in another order": (EDGES, lambda t: pa.concat_tables([t.slice(1), t.slice(0, 1)])),
    "two users of one name": ("users.parquet", lambda t: with_first(t, "user", "U1")),
}


@pytest.mark.parametrize(("name", "change"), TABLES.values(), ids=TABLES)
def test_a_hostile_table_is_refused(release: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    replaced(release, change(pq.read_table(release / name, partitioning=None)), name)
    assert (name.rpartition("/")[0] or name) in refused(release)


def test_a_table_that_unpacks_to_too_much_is_refused_unread(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("alignrec.pipeline.io.tables")
    monkeypatch.setattr(module, "MIN_BYTES_OF_BOMB", 1 << 20)
    monkeypatch.setattr(module, "MAX_EXPANSION", 100)
    table = pq.read_table(release / TABLE, partitioning=None)
    replaced(release, table.take(pa.array(np.zeros(100_000, np.int8))))
    assert f"{TABLE}: takes " in refused(release)


@pytest.mark.parametrize(
    ("text", "column", "fault"),
    [
        ("x" * ((1 << 20) + 1), "description", "has a text of 1,048,577 characters"),
        ("x" * (1 << 20), "description", "takes .* bytes of memory for texts"),
        (["x" * (1 << 20)], "categories", "takes .* bytes of memory for texts"),
    ],
    ids=["long", "repeated", "in a list"],
)
def test_repeated_texts_are_counted_before_they_are_read(release: Path, text: object, column: str, fault: str) -> None:
    table = pq.read_table(release / "items.parquet", partitioning=None)
    table = table.take(pa.array(np.zeros(300, np.int8)))
    replaced(release, with_column(table, column, pa.array([text] * 300, table[column].type)), "items.parquet")
    before = pa.default_memory_pool().max_memory()
    assert re.search(f"items.parquet: {fault}", refused(release))
    assert pa.default_memory_pool().max_memory() == before  # making the table took more


def test_a_text_that_takes_too_much_memory_is_not_unpacked(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_TEXT_BYTES": 1 << 20, "MAX_TEXT_EXPANSION": 1}.items():
        monkeypatch.setattr(f"alignrec.pipeline.release.tables.{name}", value)
    table = pq.read_table(release / "items.parquet", partitioning=None)
    titles = ["x" * (1 << 25), *table["title"].to_pylist()[1:]]
    replaced(release, with_column(table, "title", pa.array(titles)), "items.parquet")
    opened = list[Path]()

    def reading(path: Path, **options: int) -> Iterator[pa.RecordBatch]:
        opened.append(path)
        return read_batches(path, **options)

    monkeypatch.setattr("alignrec.pipeline.release.tables.read_batches", reading)
    assert re.search(r"items.parquet: takes 33,5\d\d,\d\d\d bytes of memory for texts", refused(release))
    assert release / "items.parquet" not in opened


PAGES: dict[str, dict[str, object]] = {
    "as by default": {},
    "as ours": WRITTEN,
    "without dictionaries": {"compression": "none", "use_dictionary": False},
    "second version": {"data_page_version": "2.0", "write_page_index": True},
    "groups": {"row_group_size": 77, "write_page_checksum": True},
}


@pytest.mark.parametrize("options", PAGES.values(), ids=PAGES)
def test_sizes_of_pages_are_those_of_the_footer_without_headers(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"{'x' * (n % 700)}{n}" for n in range(3000)]
    pq.write_table(pa.table({"a": texts, "b": range(3000), "c": [[text] for text in texts]}), path, **options)
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    sizes = [group.column(column).total_uncompressed_size for group in groups for column in (0, 2)]
    assert 0.9 * sum(sizes) < pages.text_bytes(path) < sum(sizes)
    pq.write_table(pa.table({"a": texts[:0]}), path, **options)
    assert pages.text_bytes(path) < 100


@pytest.mark.parametrize("header", [b"\x1c" * 70_000, b"\xff", b"\x15\x00\x15\x01\x15\x00\x00", b""])
def test_a_wrong_header_of_a_page_is_named(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [str(n) * 99 for n in range(3000)]}), path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    path.write_bytes(data[:4] + (header or bytes(9)) + data[4 + len(header or bytes(9)) :])
    with pytest.raises(ValueError, match="at byte 4"):
        pages.text_bytes(path)


def changed(release: Path, name: str, **values: object) -> None:
    put(release, name, json.dumps(json.loads((release / name).read_text()) | values).encode())


WRONG: dict[str, list[dict[str, object]]] = {
    CONFIG: [
        *({"layers": 10**9}, {"image": 10**9}, {"patch": 7}, {"vocab": 10**6}, {"width": 128}, {"heads": 3}),
        *({"ffn": 65}, {"positions": -1}, {"codes": 8}, {"mlm": "yes"}, {"more": 1}),
        {"image": 1 << 24, "patch": 1, "width": 1 << 24},  # its size overflows
    ],
    ENCODER: [
        *({"batch_size": 0}, {"image_size": 10**9}, {"image_quality": 0}, {"reads": ["sound"]}),
        *({"weights": "../../x"}, {"packages": {"": "1"}}, {"kind": "huggingface"}),
    ],
}


@pytest.mark.parametrize(("name", "values"), [(name, values) for name in WRONG for values in WRONG[name]])
def test_a_wrong_value_is_refused_in_one_line(release: Path, name: str, values: dict[str, object]) -> None:
    changed(release, name, **values)
    refused(release)


def tensors_of(sound: bytes) -> Iterator[bytes]:
    """Yield files of weights with another shape, type, name or value of a tensor, and other files."""
    arrays = load(sound)
    first = sorted(arrays)[0]
    x = arrays[first]
    for other in (x[..., None], x.astype(np.float64), x.astype(np.int64), x[:0], np.full_like(x, np.nan)):
        yield save(arrays | {first: np.ascontiguousarray(other)})
    yield save({**arrays, "more": x})
    yield save({key: x for key, x in arrays.items() if key != first})
    yield from (sound[:-1], sound + b"\0", (1 << 60).to_bytes(8, "little") + sound[8:])
    yield b"\x80\x04cos\nsystem\n(S'true'\ntR."


@pytest.mark.parametrize("name", ["encoder.safetensors", "whitening.safetensors"])
def test_wrong_tensors_are_refused_in_one_line(release: Path, name: str) -> None:
    for data in tensors_of((release / "encoders/beit3" / name).read_bytes()):
        put(release, f"encoders/beit3/{name}", data)
        refused(release)


def test_finite_weights_of_infinite_products_are_one_line(release: Path) -> None:
    name = "encoders/beit3/encoder.safetensors"
    put(release, name, save({key: np.full_like(x, 3e38) for key, x in load((release / name).read_bytes()).items()}))
    with pytest.raises(UserError, match="encodes into another space than beit3"):
        list(verify(release))
    with pytest.raises(UserError, match="not finite"):  # also without verify
        encode_items(ReleasedEncoders(release).load("beit3"), ["red ball"], [None])


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_an_unsigned_manifest_is_not_parsed(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = releases.signing_key(tmp_path / "ours", "Jürgen")
    signature.sign(release, key)
    (release / "manifest.json").write_bytes(b"[" * 200_000)
    monkeypatch.setattr(manifest, "parse", lambda *_: pytest.fail("the manifest was parsed"))
    for required in (None, key.with_suffix(".pub")):
        with pytest.raises(UserError, match="signature"):
            list(verify(release, required))
        with pytest.raises(UserError, match="signature"):
            fetch(str(release), tmp_path / "there", key=required)


@pytest.mark.parametrize(
    "page", [b"x" * (signature.MAX_SIGNATURE_BYTES + 1), b"\n<!DOCTYPE html><html>not here</html>"]
)
def test_a_page_in_place_of_a_missing_signature_is_ignored(release: Path, tmp_path: Path, page: bytes) -> None:
    files = {f"/{p.relative_to(release)}": body(p.read_bytes()) for p in release.rglob("*.*") if p.is_file()}
    with serving(files | {"/manifest.json.sig": body(page)}) as server:
        fetch(server.address, tmp_path / "here")
    assert not (tmp_path / "here/manifest.json.sig").exists()


def test_the_root_and_file_names_that_are_not_text(release: Path) -> None:
    for to in ("/", "/../.."):
        done = alignrec("fetch", release, "--to", to, cwd=release)
        assert done.output.splitlines()[-1].startswith("error: ")
        assert "cannot create a folder there" in done.output
    (release / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")
    with pytest.raises(UserError, match="not in the manifest"):
        list(verify(release))
