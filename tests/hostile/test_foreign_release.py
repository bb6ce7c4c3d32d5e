"""Hostile releases: each fault is one line, before anything of the release is used or written."""

import importlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from typer.testing import CliRunner
from webserver import body, serving

import schemas
from alignrec.commands.app import app
from pipeline import io
from pipeline.errors import UserError
from pipeline.export.content import of_release
from pipeline.io import sha256
from pipeline.release import manifest, signature, verify
from pipeline.remote.fetch import fetch
from pipeline.run import running
from stages import publish

TABLE = "features/beit3/features-00000.parquet"
EDGES = "graph/beit3/edges.parquet"
CODES = "semantic_ids/beit3/codes.parquet"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded.outputs(tmp_path_factory.mktemp("published")).release


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "release")


def line(*arguments: str | Path) -> str:
    """Return the only line of an error."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    *before, last = done.output.splitlines()
    assert not [text for text in (*before, last) if "error" in text or not text.isprintable()][1:]
    assert last.startswith("error: ")
    return last


# --- the manifest


def edit(release: Path, change: Change) -> None:
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    with suppress(ValueError):  # what is no JSON has no digest
        content = manifest.with_digest(content)
    path.write_text(json.dumps(content))


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
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_hostile_manifest_is_one_line(release: Path, tmp_path: Path, change: Change) -> None:
    edit(release, change)
    line("verify", release)
    line("fetch", release, "--to", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_hostile_name_of_a_dataset_is_not_exported(release: Path) -> None:
    for name in ("../../escaped", "a/b", "", "-", "a\x1b[2J"):
        edit(release, lambda m, name=name: m.update(dataset=name))
        with pytest.raises(UserError, match="name of a dataset"):
            of_release(release, [])


def test_a_flipped_bit_of_the_manifest_is_found(release: Path) -> None:
    """One bit of each byte: refused, or the manifest means the same, as with E in place of e."""
    whole = (release / "manifest.json").read_bytes()
    before = json.loads(whole)
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        try:
            manifest.parsed(release, bytes(flipped))
        except UserError:
            continue
        assert json.loads(flipped) == before, (at, bytes(flipped[at - 20 : at + 20]))


def test_many_paths_and_paths_of_many_parts_take_linear_time(release: Path) -> None:
    content = json.loads((release / "manifest.json").read_text())
    deep = ["/".join("ab"[i >> bit & 1] for bit in range(500)) for i in range(4000)]
    first, started = content["files"][0], time.process_time()
    for paths in (dict.fromkeys(deep), [f"a/{'x' * 60}/{i}" for i in range(60_000)]):
        content["files"] = [first | {"path": path} for path in paths]
        manifest.parsed(release, json.dumps(manifest.with_digest(content)).encode())
    assert time.process_time() - started < 60  # of this process; comparing each with each takes ten minutes


# --- tables


def replaced(release: Path, table: pa.Table, name: str = TABLE) -> None:
    """Replace a table and make the manifest agree, as an attacker would."""
    pq.write_table(table, release / name)
    rows, columns = manifest.shape(release / name)
    agree(release, name, rows=rows, columns=[c.model_dump() for c in columns])


def agree(release: Path, name: str, **more: object) -> None:
    facts = {"bytes": (release / name).stat().st_size, "sha256": sha256(release / name)} | more
    edit(release, lambda m: next(f for f in m["files"] if f["path"] == name).update(facts))


def with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def narrow(table: pa.Table) -> pa.Table:
    kind = schemas.features(0).field("vector").type
    nothing = pa.FixedSizeListArray.from_buffers(kind, len(table), [None], children=[pa.array([], pa.float32())])
    return with_column(table, "vector", nothing)


def blank(table: pa.Table) -> pa.Table:
    return with_column(table, "vector", io.vectors(np.zeros_like(io.matrix(table["vector"]))))


def with_first(table: pa.Table, name: str, value: object) -> pa.Table:
    column = table[name]
    return with_column(table, name, pa.array([value, *column.to_pylist()[1:]], column.type))


BROKEN = pa.array([b"\xed\xa0\x80"] * toy.ITEMS).view(pa.string())  # lone surrogates
ODD = {b"\xff": b"\xff", b"alignrec": b"{"}
TABLES: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "duplicate columns": (TABLE, lambda t: t.append_column("asin", t["asin"])),
    "zero width": (TABLE, narrow),
    "lone surrogates": (TABLE, lambda t: with_column(t, "asin", BROKEN)),
    "escapes": (TABLE, lambda t: with_column(t, "asin", pa.array(["\x1b[2J"] * len(t)))),
    "metadata that is no UTF-8": (TABLE, lambda t: t.replace_schema_metadata(ODD).drop_columns("has_text")),
    "vectors of nothing": (TABLE, blank),
    "no edges": (EDGES, lambda t: t.slice(0, 0)),
    "no edge of one item": (EDGES, lambda t: t.filter(pa.compute.field("item_id") != 3)),
    "an edge twice": (EDGES, lambda t: pa.concat_tables([t.slice(0, 1), t])),
    "an item without content that has codes": (CODES, lambda t: with_first(t, "status", "no_content")),
    "a negative code": (CODES, lambda t: with_first(t, "codes", [-1, 0])),
    "a suffix of no codes": (CODES, lambda t: with_first(t, "codes", None)),
    "edges in another order": (EDGES, lambda t: pa.concat_tables([t.slice(1), t.slice(0, 1)])),
}


@pytest.mark.parametrize(("name", "change"), TABLES.values(), ids=TABLES)
def test_a_hostile_table_is_one_line(release: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    replaced(release, change(pq.read_table(release / name, partitioning=None)), name)
    assert name.rpartition("/")[0] in line("verify", release)


def test_two_users_of_one_name_are_one_line(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    with running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)
    for name in ("users.parquet", "embeddings/users.parquet"):
        table = pq.read_table(layout.release / name, partitioning=None)
        users = pa.array(["U0", "U0", *table["user"].to_pylist()[2:]])
        replaced(layout.release, table.set_column(1, table.schema.field("user"), users), name)
    assert "'U0'" in line("verify", layout.release)


def test_a_table_that_unpacks_to_much_more_than_its_size_is_refused_unread(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("pipeline.release.tables")
    monkeypatch.setattr(module, "SMALL", 1 << 20)
    monkeypatch.setattr(module, "EXPANSION", 100)
    table = pq.read_table(release / TABLE, partitioning=None)
    replaced(release, table.take(pa.array(np.zeros(100_000, np.int8))))
    assert f"{TABLE}: takes 2,800,000 bytes of memory" in line("verify", release)


# --- the signature

signing = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ours"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "Jürgen", "-f", path], check=True)
    return path


@signing
def test_a_manifest_that_is_not_the_signed_one_is_not_even_parsed(
    release: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature.sign(release, key)
    (release / "manifest.json").write_bytes(b"[" * 200_000)
    monkeypatch.setattr(manifest, "parsed", lambda *_: pytest.fail("the manifest was parsed"))
    for required in (None, key.with_suffix(".pub")):
        with pytest.raises(UserError, match="signature"):
            list(verify(release, required))
        with pytest.raises(UserError, match="signature"):
            fetch(str(release), tmp_path / "there", key=required)


@pytest.mark.parametrize("page", [b"x" * (signature.MAX_BYTES + 1), b"\n<!DOCTYPE html><html>not here</html>"])
def test_a_page_in_place_of_a_missing_signature_is_ignored(release: Path, tmp_path: Path, page: bytes) -> None:
    files = {f"/{p.relative_to(release)}": body(p.read_bytes()) for p in release.rglob("*.*") if p.is_file()}
    with serving(files | {"/manifest.json.sig": body(page)}) as server:
        fetch(server.address, tmp_path / "here")
    assert not (tmp_path / "here/manifest.json.sig").exists()


# --- the folder


def test_the_root_and_file_names_that_are_not_text(release: Path) -> None:
    for command in (("fetch", release), ("export", release, "--format", "npy")):
        for to in ("/", "/../.."):
            assert "cannot create a folder there" in line(*command, "--to", to)
    (release / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")
    assert "not in the manifest" in line("verify", release)
