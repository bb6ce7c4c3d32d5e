"""`alignrec.load` reads releases from a folder, a web server or the Hub, caches them, and reports faults."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub import hub
from processes import started
from shop import tastes
from webserver import Folder, listening

import alignrec
from alignrec.pipeline.io import sha256
from alignrec.pipeline.release import fetch as fetching


@pytest.fixture
def release(made: Path) -> alignrec.Release:
    return alignrec.load(made)


@pytest.fixture
def server(made: Path, tmp_path: Path) -> Iterator[Folder]:
    """Serve a copy of the release that a test may damage."""
    with listening(Folder(shutil.copytree(made, tmp_path / "served"))) as server:
        yield server


def test_tables_features_graph_embeddings(release: alignrec.Release) -> None:
    assert release.info.dataset == "shop"
    assert repr(release) == "<Release shop 0.1.0: 50 items, 60 users, features beit3>"
    assert list(release.items.to_pandas()["title"][:2]) == ["red thing 0", "blue thing 1"]
    x = release.features["beit3"]
    assert isinstance(x, np.ndarray)
    assert x.dtype == np.float32
    assert np.array_equal(x, tastes.content())
    assert x.ids.tolist() == [f"i{i}" for i in range(tastes.ITEMS)]
    assert np.array_equal(release.vector("i7"), x[7])
    assert np.array_equal(x.of("i7"), x[7])
    assert not any(hasattr(moved, "ids") for moved in (x[::-1], x + 1, x[[2, 1]])), "rows may have moved"
    graph = release.graph["beit3"]
    assert graph.shape == (50, 50)
    assert np.all(np.diff(graph.indptr) == 4)
    unit = np.asarray(x[3] / np.linalg.norm(x[3])), np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    assert sorted(graph[[3]].data, reverse=True) == pytest.approx(np.sort(unit[1] @ unit[0])[::-1][:4], abs=1e-5)
    users, items = release.embeddings
    assert (users.shape, items.shape) == ((60, 3), (50, 3))
    assert (users.ids[1], items.ids[1]) == ("u1", "i1")


def test_mistakes_are_one_line(release: alignrec.Release, tmp_path: Path) -> None:
    for wrong, fault in {
        lambda: release.features["beit"]: "no feature set 'beit' .*; did you mean 'beit3'",
        lambda: release.graph["clip"]: "no feature set 'clip' .*: beit3",
        lambda: release.vector("i777"): "no id 'i777' .*; did you mean 'i7'",
        lambda: release.features["beit3"].of("z"): "no id 'z' .*; there are i0, i1, i2, i3, i4, ...",
        lambda: alignrec.load(release.folder, "beit"): "no feature set 'beit' .*; did you mean 'beit3'",
        lambda: alignrec.load(tmp_path): f"{tmp_path}/manifest.json: ",
        lambda: alignrec.load(tmp_path / "release.zip"): "release.zip: no such file",
        lambda: alignrec.load("ftp://x/y"): "'ftp'.*https://, s3:// or hf://datasets/",
        lambda: alignrec.load(release.folder, key=tmp_path / "key.pub"): f"{release.folder}: not signed",
    }.items():
        with pytest.raises(alignrec.UserError, match=fault) as e:
            wrong()
        assert "\n" not in str(e.value)
    assert "beit" not in release.features


def test_an_address_is_fetched_once(
    server: Folder, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    release = alignrec.load(server.address, cache=tmp_path / "cache")
    assert np.array_equal(release.features["beit3"], tastes.content())
    assert release.folder == tmp_path / "cache/releases" / sha256(made / "manifest.json")
    before = server.asked["/items.parquet"]
    again = alignrec.load(f"{server.address}/", cache=tmp_path / "cache")
    assert again.folder == release.folder
    assert server.asked["/items.parquet"] == before == 1
    assert server.asked["/manifest.json"] == 3, "an address may come to name another release, so it is asked each time"
    assert alignrec.load(server.address).folder.is_relative_to(tmp_path / "home"), "the user's cache is the default"


def test_one_feature_set_of_an_address(server: Folder, tmp_path: Path) -> None:
    release = alignrec.load(server.address, "beit3", cache=tmp_path / "cache")
    assert release.info.part_of == sha256(server.folder / "manifest.json")
    with pytest.raises(alignrec.UserError, match="did you mean 'beit3'"):
        alignrec.load(server.address, "../beit", cache=tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache/releases").glob("[!.]*")] == [release.folder.name]


def test_what_changes_meanwhile_is_not_believed(
    server: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = fetching.fetch

    def late(*given: object) -> Path:
        path = server.folder / "manifest.json"
        path.write_text(path.read_text() + "\n")
        return fetch(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(fetching, "fetch", late)
    with pytest.raises(alignrec.UserError, match="changed while it was fetched"):
        alignrec.load(server.address, cache=tmp_path / "cache")
    assert list((tmp_path / "cache/releases").glob("[!.]*")) == []


def test_the_hub_and_a_revision_that_is_not_there(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(tmp_path / "hub", monkeypatch) as server:
        files = {f"v1/{p.relative_to(made).as_posix()}": p.read_bytes() for p in made.rglob("*") if p.is_file()}
        server.dataset.commits.append(files)
        address = f"hf://datasets/owner/name@{server.dataset.sha()}/v1"
        assert len(alignrec.load(address, cache=tmp_path / "cache").items) == tastes.ITEMS
        with pytest.raises(alignrec.UserError, match=r"no manifest\.json"):
            alignrec.load("hf://datasets/owner/name@nowhere/v1", cache=tmp_path / "cache")


# --- the cache


def count_items(cache: Path) -> None:
    print(len(alignrec.load("sample", cache=cache).items))


def test_processes_that_load_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    loading = [started(count_items, tmp_path) for _ in range(2)]
    ended = [(*process.communicate(), process.returncode) for process in loading]
    assert [code for _, _, code in ended] == [0] * 2, ended
    assert len({counted for counted, _, _ in ended}) == 1


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    release = alignrec.load("sample", cache=tmp_path)
    for change in (lambda path: path.write_bytes(b"x"), Path.unlink):
        change(release.folder / "items.parquet")
        again = alignrec.load("sample", cache=tmp_path)
        assert (again.folder, len(again.items)) == (release.folder, release.info.counts.items)


def test_without_a_cache_the_package_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    release = alignrec.load("sample", cache=tmp_path / "file/cache")
    assert len(release.items) == release.info.counts.items
    assert not release.folder.is_relative_to(tmp_path)
