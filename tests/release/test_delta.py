"""A delta and its older release give the newer release, byte for byte, or nothing."""

import hashlib
import json
import os
import shutil
import signal
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import releases, toy
from shop.toy import contents
from webserver import Folder, listening

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.release import fetch as fetching
from alignrec.pipeline.release import manifest, stores
from alignrec.pipeline.release.delta import match, rebuild
from alignrec.pipeline.release.delta.make import write_delta
from alignrec.pipeline.release.delta.onto import fetch_onto
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.runtime.layout import Layout

WIDTH = 48
SHARD_ROWS = 250
SIZES = (500, 1_500)
HELD = 300
"""memory per item in bytes: identifiers, and hashes of its rows; a vector of 400 numbers takes 1,600"""
OLD = [f"P{number:05}" for number in range(600)]
REMOVED = OLD[7:600:120]
CHANGED = OLD[11:600:40]
NEW = [f"N{number}" for number in range(15)]


def grown() -> list[str]:
    """Return the catalogue with new items in between and some removed, so that numbers change."""
    asins = [asin for asin in OLD if asin not in REMOVED]
    for number, asin in enumerate(NEW):
        asins.insert(37 * number, asin)
    return asins


def draw(*names: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def settings(version: str) -> Params:
    return toy.params(publish={"version": version, "features": ["minilm-cnn"], "interactions": True})


def made(root: Path, asins: list[str], changed: list[str], version: str) -> Path:
    """Publish a shop whose vectors depend on the item, and those of the recommender on the run."""
    layout = toy.outputs(root)
    io.keep_only(layout.images, [])
    revision = {asin: asin in changed for asin in asins}
    texts = [f"{asin} {draw(asin, revision[asin]).bytes(40).hex()}" for asin in asins]
    items = toy.item_table(texts, asin=asins)
    write_parts(items, layout.items, schemas.ITEMS, toy.record("items"))
    io.write_table(items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS)
    write_features(layout, asins, revision)
    write_users(layout, asins)
    releases.published(layout, settings(version))
    return layout.release


def write_parts(table: pa.Table, path: Path, schema: pa.Schema, record: dict[str, Any]) -> None:
    """Write row groups of SHARD_ROWS rows, so that no whole table is in memory."""
    starts = range(0, len(table), SHARD_ROWS)
    io.write_tables((table.slice(start, SHARD_ROWS) for start in starts), path, schema, record)


def write_features(layout: Layout, asins: list[str], revision: dict[str, bool]) -> None:
    folder = layout.features("minilm-cnn")
    io.keep_only(folder, [])
    x = np.array([draw("x", asin, revision[asin]).normal(size=WIDTH) for asin in asins], np.float32)
    flags = [True] * len(asins)
    table = toy.feature_table(x, asin=asins, has_image=flags, has_text=flags)
    toy.write_set(folder, table, SHARD_ROWS, toy.record("encode"))
    io.write_json(folder / "set.json", toy.facts("minilm-cnn").model_dump())
    edges = neighbours.find_neighbours(x, 6)
    write_parts(edges, layout.edges("minilm-cnn"), schemas.EDGES, toy.record("graph"))

    codes = [draw("c", asin, revision[asin]).integers(0, 90, 3).tolist() if asin[-1] != "3" else None for asin in asins]
    status = ["coded" if code else "no_content" for code in codes]
    cosine = [0.5 if code else None for code in codes]
    own = {"item_id": range(len(asins)), "asin": asins, "codes": codes, "status": status, "cosine": cosine}
    table = toy.filled(schemas.semantic_ids(3), **own)
    write_parts(table, layout.codes("minilm-cnn"), schemas.semantic_ids(3), toy.record("semantic_ids"))


def write_users(layout: Layout, asins: list[str]) -> None:
    number = {asin: n for n, asin in enumerate(asins)}
    bought = {f"U{u:04}": [a for a in draw("u", u).choice([*OLD, *NEW], 12) if a in number] for u in range(200)}
    users = sorted(user for user, items in bought.items() if NEW[0] not in items)
    rows = [
        (u, number[asin], 5.0, 10 * t, t % 3) for u, user in enumerate(users) for t, asin in enumerate(bought[user])
    ]
    table = pa.Table.from_arrays([*map(pa.array, zip(*rows, strict=True))], schemas.INTERACTIONS.names)
    io.write_table(
        table.cast(schemas.INTERACTIONS), layout.interactions, schemas.INTERACTIONS, toy.record("interactions")
    )
    named = pa.table({"user_id": pa.array(range(len(users)), pa.int32()), "user": users})
    io.write_table(named, layout.users, schemas.USERS)

    rng = draw("recommender", len(asins))
    vectors = io.vectors(rng.normal(size=(len(users), 4)))
    io.write_table(named.append_column("vector", vectors), layout.user_embeddings, schemas.user_embeddings(4))
    items = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    vectors = io.vectors(rng.normal(size=(len(asins), 4)))
    io.write_table(items.append_column("vector", vectors), layout.item_embeddings, schemas.item_embeddings(4))
    layout.items_index.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("older"), OLD, [], "0.1.0")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("newer"), grown(), CHANGED, "0.2.0")


@pytest.fixture(scope="module")
def delta(newer: Path, older: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta") / "delta"
    write_delta(newer, older, folder)
    return folder


def size(folder: Path) -> int:
    return sum(map(len, contents(folder).values()))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_delta_gives_the_release_byte_for_byte(delta: Path, older: Path, newer: Path, tmp_path: Path) -> None:
    assert fetch_onto(str(delta), older, tmp_path / "here") == tmp_path / "here"
    assert contents(tmp_path / "here") == contents(newer)
    assert left(tmp_path) == ["here"]
    fetch_onto(str(delta), older, tmp_path / "here")
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", delta)
    fetch_onto(archive, older, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(newer)


def test_every_table_but_the_recommenders_goes_by_rows(delta: Path, newer: Path) -> None:
    listed = json.loads((delta / "delta.json").read_text())
    tables = {file.path for file in Release(newer).manifest.list_tables()}
    rebuilt = {table["path"] for table in listed["rebuilt"]}
    # users.parquet is smaller than the footers of two files
    assert tables - rebuilt == {"embeddings/items.parquet", "embeddings/users.parquet", "users.parquet"}
    assert listed["items"] == {"new": len(NEW), "changed": len(set(CHANGED) - set(REMOVED)), "removed": len(REMOVED)}
    assert pq.read_table(delta / "removed.parquet")["asin"].to_pylist() == REMOVED
    shards = sorted((delta / "rows/features/minilm-cnn").iterdir())
    rows = pa.concat_tables([pq.read_table(path, partitioning=None) for path in shards])
    assert set(rows["asin"].to_pylist()) == {*NEW, *CHANGED} - {*REMOVED}


def test_five_percent_of_rows_are_a_small_delta(delta: Path, newer: Path) -> None:
    for name in ("features", "items.parquet"):
        whole = sum(len(data) for path, data in contents(newer).items() if path.startswith(name))
        parts = [data for path, data in contents(delta).items() if path.split("/", 1)[-1].startswith(name)]
        assert sum(map(len, parts)) < 0.25 * whole, name
    edges = "graph/minilm-cnn/edges.parquet"
    n_edges = pq.read_metadata(newer / edges).num_rows
    assert pq.read_metadata(delta / "rows" / edges).num_rows < 0.3 * n_edges


def test_making_it_again_gives_the_same_bytes_and_replaces_it(
    delta: Path, older: Path, newer: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(delta, tmp_path / "delta")
    (folder / "delta.json").write_text("{}")
    write_delta(newer, older, folder)
    assert contents(folder) == contents(delta)
    assert left(tmp_path) == ["delta"]


def test_a_file_that_cannot_be_rebuilt_goes_whole(older: Path, newer: Path, tmp_path: Path) -> None:
    other = shutil.copytree(newer, tmp_path / "other")
    path = other / "features/minilm-cnn/features-00000.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(table, path, compression="snappy")
    releases.relist(other, "features/minilm-cnn/features-00000.parquet")
    found = write_delta(other, older, tmp_path / "delta")
    assert "features/minilm-cnn/features-00000.parquet" not in {table.path for table in found.rebuilt}
    assert (tmp_path / "delta/whole/features/minilm-cnn/features-00000.parquet").is_file()
    fetch_onto(str(tmp_path / "delta"), older, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(other)


def test_items_in_another_order(older: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", [*OLD[300:], *OLD[:300][::-1]], [], "0.3.0")
    found = write_delta(other, older, tmp_path / "delta")
    assert (found.items.new, found.items.changed, found.items.removed) == (0, 0, 0)
    fetch_onto(str(tmp_path / "delta"), older, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(other)


def test_back_to_the_older_release(older: Path, newer: Path, tmp_path: Path) -> None:
    write_delta(older, newer, tmp_path / "delta")
    fetch_onto(str(tmp_path / "delta"), newer, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(older)


def test_commands(older: Path, newer: Path, tmp_path: Path) -> None:
    shutil.copytree(newer, tmp_path / "outputs/publish/shop/release")
    shutil.copytree(older, tmp_path / "old")
    made = alignrec("publish", "shop", "--since", "old", "--to", "public", cwd=tmp_path)
    assert made.exit_code == 0, made.output
    assert "15 new, 15 changed and 5 removed items" in made.output
    assert "delta: outputs/delta/shop/since-0.1.0" in made.output
    assert contents(tmp_path / "public/shop/0.2.0") == contents(newer)
    sent = "public/shop/0.2.0-since-0.1.0"
    assert f"alignrec fetch {sent} --onto old" in made.output
    assert contents(tmp_path / sent) == contents(tmp_path / "outputs/delta/shop/since-0.1.0")

    assert alignrec("publish", "shop", "--since", "old", "--to", "public", cwd=tmp_path).exit_code == 0
    fetched = alignrec("fetch", sent, "--onto", "old", cwd=tmp_path)
    assert fetched.exit_code == 0, fetched.output
    assert contents(tmp_path / "shop-0.2.0") == contents(newer)
    result = alignrec("fetch", sent, "--to", "here", cwd=tmp_path)
    assert "a delta and no release; name its older release by --onto" in result.output
    assert alignrec("fetch", sent, cwd=tmp_path).exit_code == 2
    assert alignrec("fetch", sent, "--onto", "old", "--encoder", "beit3", cwd=tmp_path).exit_code == 2


# --- interrupted


@pytest.mark.parametrize("at", [1, 4, 9, 15])
def test_interrupted_it_goes_on(delta: Path, older: Path, newer: Path, tmp_path: Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt), toy.stopped(at):
        fetch_onto(str(delta), older, tmp_path / "here")
    assert left(tmp_path) == [".here.fetch"]
    unfinished = next((tmp_path / ".here.fetch").glob("*.release"))
    (unfinished / ".items.parquet.0.tmp").write_text("half")  # as a killed process leaves it
    fetch_onto(str(delta), older, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(newer)
    assert left(tmp_path) == ["here"]


@pytest.mark.parametrize("at", [1, 6, 12])
def test_interrupted_making_leaves_the_delta_before(
    delta: Path, older: Path, newer: Path, tmp_path: Path, at: int
) -> None:
    folder = shutil.copytree(delta, tmp_path / "delta")
    with pytest.raises(KeyboardInterrupt), toy.stopped(at):
        write_delta(newer, older, folder)
    assert contents(folder) == contents(delta)
    assert left(tmp_path) == ["delta"]


def test_killed_during_the_download(delta: Path, older: Path, newer: Path, tmp_path: Path) -> None:
    with listening(Folder(shutil.copytree(delta, tmp_path / "served"))) as server:
        server.pause = 30
        child = processes.alignrec("fetch", server.address, "--onto", older, "--to", tmp_path / "here")
        while not any((tmp_path / ".here.fetch").glob("*/*")) and child.poll() is None:
            time.sleep(0.05)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert not (tmp_path / "here").exists()
        server.pause = 0
        fetch_onto(server.address, older, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(newer)
    assert left(tmp_path) == ["here", "served"]


# --- damaged and hostile


@pytest.fixture
def copy(delta: Path, tmp_path: Path) -> Path:
    return shutil.copytree(delta, tmp_path / "copy")


def edit(delta: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change delta.json, with new digests of all files, as an attacker would."""
    path = delta / "delta.json"
    content = json.loads(path.read_text())
    for file in content["files"]:
        data = (delta / file["path"]).read_bytes()
        file |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change(content)
    path.write_text(json.dumps(manifest.with_digest(content)))


def refused(delta: Path, older: Path, to: Path, fault: str) -> None:
    with pytest.raises(UserError, match=fault) as e:
        fetch_onto(str(delta), older, to)
    assert "\n" not in str(e.value)
    assert not to.exists()
    assert {path.name for path in to.parent.iterdir()} <= {"copy", "other", f".{to.name}.fetch"}


RUNS = "runs/items.parquet"
ROWS = "rows/features/minilm-cnn/features-00000.parquet"


def test_a_damaged_delta(copy: Path, older: Path, tmp_path: Path) -> None:
    data = (copy / ROWS).read_bytes()
    (copy / ROWS).write_bytes(data[:-1] + b"?")
    refused(copy, older, tmp_path / "here", f"{ROWS}: tampered with")
    (copy / ROWS).unlink()
    refused(copy, older, tmp_path / "here", f"{ROWS}: missing")
    (copy / ROWS).write_bytes(data)
    text = (copy / "delta.json").read_text()
    for damaged, fault in (("{", "not JSON"), (text.replace("P0", "P1", 1), ""), (text[:-9], "not JSON")):
        (copy / "delta.json").write_text(damaged)
        if damaged != text:
            refused(copy, older, tmp_path / "here", fault)
    (copy / "delta.json").write_text(text.replace('"dataset": "shop"', '"dataset": "shot"'))
    refused(copy, older, tmp_path / "here", "its digest differs")
    (copy / "delta.json").unlink()
    refused(copy, older, tmp_path / "here", "no delta.json there")


def set_path(path: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["files"][0].update(path=path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (set_path("../outside"), "no path inside"),
        (set_path("/etc/passwd"), "no path inside"),
        (set_path(RUNS), "is named twice"),
        (lambda content: content.update(dataset="../shop"), "no name of a dataset"),
        (lambda content: content.update(version="../../x"), "version"),
        (lambda content: content.update(format=2), "format"),
        (lambda content: content.update(release="0" * 64), "has not the manifest of its release"),
        (lambda content: content.update(older="0" * 64), "not the release shop 0.1.0"),
        (lambda content: content.update(rebuilt=[]), "neither in the delta nor in"),
        (lambda content: content["rebuilt"][0].update(groups=[1]), "row groups"),
        (lambda content: content["rebuilt"][0].update(groups=[1 << 50]), "row groups"),
        (lambda content: content.update(files=[]), "has not the manifest"),
    ],
)
def test_a_hostile_list(
    copy: Path, older: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    edit(copy, change)
    refused(copy, older, tmp_path / "here", fault)


def write_runs(path: Path, *runs: tuple[int, int]) -> None:
    first, rows = (list(column) for column in zip(*runs, strict=True))
    pq.write_table(pa.table({"older_row": first, "rows": rows}).cast(rebuild.RUNS_SCHEMA), path)


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([(0, 600)], "has other rows"),
        ([(0, 601)], "do not have"),
        ([(-1, 1 << 62)], "do not have"),
        ([(0, 1 << 62), (0, 1 << 62)], "do not have"),
        ([(1 << 62, 1 << 62)], "do not have"),
        ([(5, 10), (3, 10)], "do not have"),
        ([(-1, 31)], "do not have"),
        ([(-1, 30), (0, 580)], "sha256|not in|item"),
        ([(-7, 30)], "-7"),
        ([(-1, 0)], "0"),
    ],
)
def test_hostile_runs(copy: Path, older: Path, tmp_path: Path, runs: list[tuple[int, int]], fault: str) -> None:
    write_runs(copy / RUNS, *runs)
    edit(copy, lambda content: None)
    refused(copy, older, tmp_path / "here", f"items.parquet: .*({fault})")


def test_rows_that_are_no_table(copy: Path, older: Path, tmp_path: Path) -> None:
    data = (copy / ROWS).read_bytes()
    table = pq.ParquetFile(copy / ROWS).read()
    damages: list[tuple[Callable[[Path], object], str]] = [
        (lambda path: path.write_bytes(b"PAR1 no PAR1"), ""),
        (lambda path: path.write_bytes(data[:200] + bytes(50) + data[250:]), ""),
        (lambda path: pq.write_table(table.drop_columns("vector"), path), "vector"),
        (lambda path: pq.write_table(table.slice(1), path), "do not have"),
        (lambda path: pq.write_table(pa.concat_tables([table, table]), path), "has other rows"),
        (lambda path: pq.write_table(table.take(pa.array(range(len(table))[::-1])), path), "another sha256"),
    ]
    for damage, fault in damages:
        damage(copy / ROWS)
        edit(copy, lambda content: None)
        refused(copy, older, tmp_path / "here", f"features-00000.parquet: .*{fault}")


def test_another_list_of_removed_items(copy: Path, older: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"asin": OLD[:5]}), copy / "removed.parquet")
    edit(copy, lambda content: None)
    refused(copy, older, tmp_path / "here", "removed.parquet: not the items")


def test_another_or_damaged_older_release(delta: Path, older: Path, newer: Path, tmp_path: Path) -> None:
    refused(delta, newer, tmp_path / "here", r"not the release shop 0\.1\.0")
    refused(delta, tmp_path, tmp_path / "here", "is this a release folder")
    other = shutil.copytree(older, tmp_path / "other")
    path = other / "items.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    refused(delta, other, tmp_path / "here", "release is damaged")
    path.unlink()
    path.symlink_to(older / "items.parquet")
    refused(delta, other, tmp_path / "here", "neither file nor folder")
    path.unlink()
    path.write_bytes(data)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        fetch_onto(str(delta), other, tmp_path / "here")


def test_releases_that_make_no_delta(older: Path, newer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the same release"):
        write_delta(newer, newer, tmp_path / "delta")
    other = shutil.copytree(older, tmp_path / "other")
    releases.edit(other, lambda content: content.update(dataset="books"))
    with pytest.raises(UserError, match="a release of books, not of shop"):
        write_delta(newer, other, tmp_path / "delta")
    (other / "README.md").write_text("?")
    with pytest.raises(UserError, match="release is damaged"):
        write_delta(newer, other, tmp_path / "delta")
    assert left(tmp_path) == ["other"]


def test_another_writer_is_named(delta: Path, older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io.tables, "PARQUET", {"compression": "snappy"})
    refused(delta, older, tmp_path / "here", f"another sha256.*install pyarrow {pa.__version__}, or fetch the whole")


# --- memory


def measure(what: str, *roots: Path) -> None:
    """Print the peak of Arrow, NumPy and Python for each root."""
    io.PART, stores.BYTES_PER_READ = SHARD_ROWS, 1 << 14
    # how many threads hold a buffer at once depends on how busy the machine is
    fetching.PARALLEL_FILES, os.cpu_count = 1, lambda: 1
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    for turn, root in enumerate([roots[0], *roots]):  # the first loads modules
        tracemalloc.start() if turn else None
        old, new, folder = root / "old/publish/shop/release", root / "new/publish/shop/release", root / "delta"
        if what == "make":
            write_delta(new, old, folder)
        else:
            fetch_onto(str(folder), old, root / f"here-{turn}")
        print("peak", tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
        tracemalloc.stop()


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    roots = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "WIDTH", 400)
        for n_items in SIZES:
            root = tmp_path_factory.mktemp("shop")
            asins = [f"P{number:05}" for number in range(n_items)]
            made(root / "old", asins, [], "0.1.0")
            made(root / "new", asins[5:], asins[::20], "0.2.0")
            roots.append(root)
    return roots


def test_memory_grows_by_identifiers_and_not_by_vectors(shops: list[Path]) -> None:
    for what in ("make", "fetch"):
        said, errors = processes.started(measure, what, *shops).communicate()
        peaks = [int(line.split()[1]) for line in said.splitlines() if line.startswith("peak ")]
        assert len(peaks) == 3, errors
        held = (peaks[2] - peaks[1]) / (SIZES[1] - SIZES[0])
        assert held < HELD, f"{what}: {held:.0f}"


# --- parts


def test_the_longest_increasing_rows_are_kept() -> None:
    rows = np.array([5, -1, 0, 1, 9, 2, 3, 2, 8])
    assert match.keep_increasing(rows).tolist() == [-1, -1, 0, 1, -1, 2, 3, -1, 8]
    for rows in (np.array([], int), np.array([-1, -1]), np.array([0, 4, -1, 7])):
        assert match.keep_increasing(rows).tolist() == rows.tolist()


def test_runs_come_back(tmp_path: Path) -> None:
    origins = np.array([-1, -1, 3, 4, 5, 9, -1, 10, 11])
    match.write_runs(tmp_path / "runs.parquet", origins)
    assert pq.read_metadata(tmp_path / "runs.parquet").num_rows == 5
    assert rebuild.read_origins(tmp_path / "runs.parquet", 9, 12, 3).tolist() == origins.tolist()


def test_edges_are_ranked_across_row_groups() -> None:
    ranks = rebuild.EdgeRanks()
    found = []
    for items in ([0, 0], [0], [], [0, 1], [1, 2, 3], [4]):
        edges = toy.filled(schemas.EDGES, item_id=items, cosine=[0.0] * len(items))
        found += ranks.number(edges)["rank"].to_pylist()
    assert found == [0, 1, 2, 3, 0, 1, 0, 0, 0]
