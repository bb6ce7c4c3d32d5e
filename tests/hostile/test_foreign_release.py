"""Hostile releases: each fault is one line that names it, before anything of the release is used or written."""

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
from typer.testing import CliRunner
from webserver import body, serving

import schemas
from pipeline.compare.releases import diff
from pipeline.errors import UserError
from pipeline.export.content import of_release
from pipeline.io import sha256
from pipeline.release import manifest, signature, verify
from pipeline.remote import fetch as fetching
from pipeline.remote.fetch import fetch
from stages.cli import app

TABLE = "features/beit3/features-00000.parquet"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded.outputs(tmp_path_factory.mktemp("published")).release


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "release")


def line(*arguments: str | Path) -> str:
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


def listed(path: str) -> Change:
    return lambda m: m["files"].append(m["files"][0] | {"path": path})


MANIFESTS: dict[str, tuple[Change, str]] = {
    "huge number": (lambda m: m["counts"].update(items=10**30), "'counts.items'"),
    "odd digits": (lambda m: m.update(version="1.٣.0"), "'version'"),
    "long version": (lambda m: m.update(version="1.0." + "9" * 5000), "'version'"),
    "lone surrogate": (lambda m: m.update(dataset="\ud800"), "not JSON"),
    "a lone surrogate in a path": (listed("\ud800"), "not JSON"),
    "escape in a path": (listed("\x1b[2J"), "is no path inside the release"),
    "direction in a path": (listed("gnp.\u202eexe"), "is no path inside the release"),
    "twice": (listed("ITEMS.parquet"), "is named twice"),
    "twice by composition": (lambda m: [listed(n)(m) for n in ("\u00e9", "e\u0301")], "is named twice"),  # type: ignore[func-returns-value]
    "in a file": (listed("items.parquet/x"), "its parent path is a file"),
    "itself": (listed("manifest.json"), "lists manifest.json itself"),
    "in itself": (listed("manifest.json/x"), "its parent path is a file"),
    "its signature": (listed("manifest.json.sig"), "lists manifest.json.sig itself"),
}

BYTES = {
    "deep": (b"[" * 200_000, "not JSON"),
    "deep inside": (b'{"made_by": ' + b'{"a": ' * 200_000, "not JSON"),
    "long number": (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
    "no UTF-8": (b'{"dataset": "\xff"}', "not JSON"),
    "empty": (b"", "not JSON"),
    "a web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, and no manifest"),
    "no object": (b"7", "no valid manifest"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_hostile_manifest_is_one_line(release: Path, tmp_path: Path, case: str) -> None:
    change, fault = MANIFESTS[case]
    edit(release, change)
    assert fault in line("verify", release)
    assert fault in line("fetch", release, "--to", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_other_bytes_in_place_of_a_manifest_are_one_line(release: Path) -> None:
    path = release / "manifest.json"
    sound = path.read_bytes()
    for data, fault in BYTES.values():
        path.write_bytes(data)
        assert fault in line("verify", release)
    for name in ("../../escaped", "a/b", "", "-", "a\x1b[2J"):
        path.write_bytes(sound)
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
    content["files"] = [first | {"path": "a/" * 1_000_000 + "a"}]
    with pytest.raises(UserError, match="longer than"):
        manifest.parsed(release, json.dumps(content).encode())
    assert time.process_time() - started < 60  # of this process; comparing each with each takes ten minutes


def test_room_for_the_copies_of_one_content_is_checked_first(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twins(content: dict[str, Any]) -> None:
        content["files"] += [content["files"][-1] | {"path": f"copies/{i}"} for i in range(1000)]

    edit(release, twins)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match="copies of equal files"):
        fetch(str(release), tmp_path / "here")
    assert list((tmp_path / ".here.fetch/parts").iterdir()) == []


# --- tables


def replaced(release: Path, table: pa.Table, name: str = TABLE) -> None:
    """Replace a table and make the manifest agree, as an attacker would."""
    pq.write_table(table, release / name)
    agree(release, name, columns=[c.model_dump() for c in manifest.shape(release / name)[1]])


def agree(release: Path, name: str, **more: object) -> None:
    facts = {"bytes": (release / name).stat().st_size, "sha256": sha256(release / name)} | more
    edit(release, lambda m: next(f for f in m["files"] if f["path"] == name).update(facts))


def narrow(table: pa.Table) -> pa.Table:
    kind = schemas.features(0).field("vector").type
    nothing = pa.FixedSizeListArray.from_buffers(kind, len(table), [None], children=[pa.array([], pa.float32())])
    return table.set_column(table.column_names.index("vector"), "vector", nothing)


def no_text(table: pa.Table) -> pa.Table:
    broken = pa.array([b"\xed\xa0\x80"] * len(table)).view(pa.string())  # a lone surrogate
    return table.set_column(table.column_names.index("asin"), "asin", broken)


def escaped(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("asin"), "asin", pa.array(["\x1b[2J"] * len(table)))


ODD = {b"\xff": b"\xff", b"alignrec": b"{"}
TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "duplicate columns": (lambda t: t.append_column("asin", t["asin"]), "column 'asin' twice"),
    "zero width": (narrow, "not a readable Parquet file"),
    "lone surrogates": (no_text, "UTF8"),
    "escapes": (escaped, "elsewhere"),
    "metadata that is no UTF-8": (lambda t: t.replace_schema_metadata(ODD).drop_columns("has_text"), "'has_text'"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_is_one_line(release: Path, case: str) -> None:
    change, fault = TABLES[case]
    replaced(release, change(pq.read_table(release / TABLE, partitioning=None)))
    assert fault in line("verify", release)


def test_a_table_that_unpacks_to_much_more_than_its_size_is_refused_unread(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("pipeline.release.tables")
    monkeypatch.setattr(module, "SMALL", 1 << 20)
    monkeypatch.setattr(module, "EXPANSION", 100)
    table = pq.read_table(release / TABLE, partitioning=None)
    many = table.take(pa.array(np.zeros(100_000, np.int8)))
    replaced(release, many)
    agree(release, TABLE, rows=len(many))
    assert f"{TABLE}: takes 2,800,000 bytes of memory" in line("verify", release)


def test_a_diff_of_a_release_without_items_is_one_line(published: Path, release: Path) -> None:
    (release / "items.parquet").unlink()
    edit(release, lambda m: m.update(files=[f for f in m["files"] if f["path"] != "items.parquet"]))
    for pair in ((release, published), (published, release)):
        with pytest.raises(UserError, match=r"items\.parquet"):
            diff(*pair, changed=5)
    assert "this release has no items.parquet" in line("export", release, "--format", "npy", "--to", release / "new")


# --- semantic IDs

CODES: dict[str, tuple[str, Callable[[list[Any]], list[Any]], str]] = {
    "an item without content": ("status", lambda s: ["no_content", *s[1:]], "row 0: codes, suffix and status do not"),
    "a negative code": ("codes", lambda c: [[-1, 0], *c[1:]], "row 0: codes, suffix and status do not"),
    "a suffix of nothing": ("codes", lambda c: [None, *c[1:]], "row 0: codes, suffix and status do not"),
    "twice": ("codes", lambda c: [[0, 0]] * len(c), "items have the codes and suffix of another"),
}


@pytest.mark.parametrize("case", CODES)
def test_codes_that_contradict_their_table_are_refused(release: Path, case: str) -> None:
    name, (column, change, fault) = "semantic_ids/beit3/codes.parquet", CODES[case]
    table = pq.read_table(release / name, partitioning=None)
    at = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), table.schema.field(at).type)
    table = table.set_column(at, table.schema.field(at), values)
    if case == "twice":
        at = table.column_names.index("suffix")
        table = table.set_column(at, table.schema.field(at), pa.array([0] * len(table), pa.int32()))
    replaced(release, table, name)
    assert f"{name}: {fault}" in line("verify", release) or fault in line("verify", release)


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
    public, here = key.with_suffix(".pub"), tmp_path / "here"
    assert ": not signed" in line("fetch", release, "--to", here, "--key", public)
    assert not here.exists()
    signature.sign(release, key)
    fetch(str(release), here, key=public)
    assert f"signed by {public}" in list(verify(here, public))
    (release / "manifest.json").write_bytes(b"[" * 200_000)
    monkeypatch.setattr(manifest, "parsed", lambda *_: pytest.fail("the manifest was parsed"))
    for required in (None, public):
        with pytest.raises(UserError, match="signature"):
            list(verify(release, required))
        with pytest.raises(UserError, match="signature"):
            fetch(str(release), tmp_path / "there", key=required)


@signing
@pytest.mark.parametrize("named", [True, False], ids=["with the key", "with any key"])
def test_a_signed_release_is_attacked_like_an_unsigned_one(release: Path, key: Path, named: bool) -> None:
    signature.sign(release, key)
    public = key.with_suffix(".pub") if named else None
    sound = {name: (release / name).read_bytes() for name in ("manifest.json", signature.NAME, "items.parquet")}
    whole = list(verify(release, public))
    for name, data in sound.items():
        for at in range(0, len(data), len(data) // 25):
            flipped = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            (release / name).write_bytes(flipped)
            if name != signature.NAME:
                with pytest.raises(UserError, match="signature" if "json" in name else "changed"):
                    list(verify(release, public))
            else:
                with suppress(UserError):  # redundant parts of its armour may differ
                    assert list(verify(release, public)) == whole
        (release / name).write_bytes(data)
    for change, _ in MANIFESTS.values():
        edit(release, change)
        with pytest.raises(UserError, match="signature"):
            list(verify(release, public))
        (release / "manifest.json").write_bytes(sound["manifest.json"])


@pytest.mark.parametrize("page", [b"x" * (signature.MAX_BYTES + 1), b"\n<!DOCTYPE html><html>not here</html>"])
def test_a_page_in_place_of_a_missing_signature_is_ignored(release: Path, tmp_path: Path, page: bytes) -> None:
    files = {f"/{p.relative_to(release)}": body(p.read_bytes()) for p in release.rglob("*.*") if p.is_file()}
    with serving(files | {"/manifest.json.sig": body(page)}) as server:
        fetch(server.address, tmp_path / "here")
    assert not (tmp_path / "here/manifest.json.sig").exists()


def test_a_key_that_is_none_is_one_line(release: Path, tmp_path: Path) -> None:
    (release / signature.NAME).write_bytes(b"-----BEGIN SSH SIGNATURE-----")
    for data in (b"\xff\xfe\x00key", b"", b"ssh-ed25519", b"\x00" * 100, b"ssh-ed25519 \x1b[2J"):
        (tmp_path / "key.pub").write_bytes(data)
        assert "not a public SSH key" in line("verify", release, "--key", tmp_path / "key.pub")


# --- the folder


def test_the_root_and_file_names_that_are_not_text(release: Path) -> None:
    for command in (("fetch", release), ("export", release, "--format", "npy")):
        for to in ("/", "/../.."):
            assert "cannot create a folder there" in line(*command, "--to", to)
    (release / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")
    assert "not in the manifest" in line("verify", release)
