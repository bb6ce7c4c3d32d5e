"""Releases are fetched completely or not at all, from any store, and faults are named."""

import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from shop.toy import contents
from webserver import Folder, listening

from alignrec.pipeline.io import sha256
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest, stores
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.read import verify

FEATURES = "features/beit3/features-00000.parquet"


@pytest.fixture
def server(plain: Path, tmp_path: Path) -> Iterator[Folder]:
    """Serve a copy of the release that a test may damage."""
    with listening(Folder(shutil.copytree(plain, tmp_path / "served"))) as server:
        yield server


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "served")


def test_from_the_web_and_from_a_folder_byte_for_byte(server: Folder, plain: Path, tmp_path: Path) -> None:
    seen = []
    addresses = [*(server.address + ending for ending in ("", "/")), str(plain)]
    for number, address in enumerate([*addresses, plain.as_uri()]):
        to = tmp_path / str(number)
        fetch(address, to, progress=lambda done, total: seen.append((done, total)))
        assert contents(to) == contents(plain), address
    assert left(tmp_path) == ["0", "1", "2", "3"]
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("top", ["", "release"])
def test_from_a_zip_file(plain: Path, tmp_path: Path, top: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "shop-0.1.0"), "zip", plain.parent if top else plain, top)
    assert contents(fetch(archive, tmp_path / "a")) == contents(plain)
    fetch(archive, tmp_path / "b", encoder="minilm-cnn")
    assert set(contents(tmp_path / "b")) == {n for n in contents(plain) if "/beit3/" not in n}
    assert left(tmp_path) == ["a", "b", "shop-0.1.0.zip"]


BAD_ZIPS = {
    "absent": "no such file", "cut": "not a zip file", "page": "not a zip file", "empty": "no manifest.json there",
    "damaged": "Bad CRC-32",
}  # fmt: skip


@pytest.mark.parametrize(("name", "says"), BAD_ZIPS.items())
def test_what_is_no_zip_file_says_so_and_nothing_is_left(plain: Path, tmp_path: Path, name: str, says: str) -> None:
    path = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.write(plain / "manifest.json", "manifest" if name == "empty" else "manifest.json")
    data = path.read_bytes()
    damages = {"cut": data[:-30], "page": b"<!DOCTYPE html><html>", "damaged": data.replace(b"shop", b"shot", 1)}
    path.write_bytes(damages.get(name, data))
    if name == "absent":
        path.unlink()
    with pytest.raises(UserError, match=says) as e:
        fetch(str(path), tmp_path / "here")
    assert str(e.value).startswith(f"{path}: ")
    assert {*left(tmp_path)} <= {path.name}


def test_a_misspelt_address_gets_the_name_that_it_is_like(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(plain, tmp_path / "shop-release")
    monkeypatch.chdir(tmp_path)
    for misspelt, meant in (("sampel", "sample"), ("shop-relese", "shop-release")):
        with pytest.raises(UserError, match=f"{misspelt}: no manifest.json there; did you mean {meant}\\?"):
            fetch(misspelt, tmp_path / "here")
    with pytest.raises(UserError, match=r"manifest.json: no such file; did you mean shop-release\?"):
        manifests.load(Path("shop-relese"))
    with pytest.raises(UserError, match=r"unlike: no manifest.json there; is this a release folder\?"):
        fetch("unlike", tmp_path / "here")


def test_one_feature_set_verifies_and_names_the_whole(server: Folder, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'clip' .*beit3, minilm-cnn"):
        fetch(server.address, tmp_path / "here", encoder="clip")
    fetch(server.address, tmp_path / "here", encoder="minilm-cnn")
    names = set(contents(tmp_path / "here"))
    assert names == {n for n in contents(plain) if "/beit3/" not in n}
    assert len(list(verify(tmp_path / "here"))) == 4
    assert manifest.load(tmp_path / "here").part_of == sha256(plain / "manifest.json")
    assert server.asked[f"/{FEATURES}"] == 0
    again = fetch(str(tmp_path / "here"), tmp_path / "again", encoder="minilm-cnn")
    assert manifest.load(again).part_of == sha256(plain / "manifest.json"), "a part of a part is one of the whole"


def test_a_connection_cut_every_few_bytes_is_continued(server: Folder, plain: Path, tmp_path: Path) -> None:
    server.cut_after = 701
    fetch(server.address, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(plain)
    size = (plain / "items.parquet").stat().st_size
    assert server.asked["/items.parquet"] == -(-size // 701)


@pytest.mark.parametrize("ranges", [False, True])
def test_a_beginning_is_continued_without_ranges_and_thrown_away_if_of_another_file(
    server: Folder, plain: Path, tmp_path: Path, ranges: bool
) -> None:
    server.ranges = ranges
    part = tmp_path / ".here.fetch" / sha256(plain / "manifest.json") / FEATURES
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 1000 if ranges else (plain / FEATURES).read_bytes()[:1000])
    fetch(server.address, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(plain)


def test_killed_it_goes_on_and_two_at_once_do_not_mix(server: Folder, plain: Path, tmp_path: Path) -> None:
    server.held = True
    child = processes.alignrec("fetch", server.address, "--to", tmp_path / "here")
    parts = tmp_path / ".here.fetch" / sha256(plain / "manifest.json")
    deadline = time.monotonic() + 120
    while not (len(kept := sizes(parts)) > 3 and all(kept)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, kept
        time.sleep(0.05)
    with pytest.raises(UserError, match="another fetch is filling it"):
        fetch(server.address, tmp_path / "here")
    child.kill()
    child.wait()
    assert not (tmp_path / "here").exists()
    assert sum(sizes(parts)) > 0
    server.held = False
    fetch(server.address, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(plain)
    assert left(tmp_path) == ["here"]


def sizes(parts: Path) -> list[int]:
    return [p.stat().st_size for p in parts.rglob("*") if p.is_file()]


def damage(server: Folder, how: str) -> None:
    path = server.folder / FEATURES
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        changed = data[:50] + bytes([data[50] ^ 1]) + data[51:]
        path.write_bytes({"tampered": changed, "truncated": data[:-7], "longer": data + b"more"}[how])


@pytest.mark.parametrize("how", ["missing", "tampered", "truncated", "longer"])
def test_a_bad_file_is_named_and_nothing_appears(server: Folder, plain: Path, tmp_path: Path, how: str) -> None:
    damage(server, how)
    with pytest.raises(UserError, match=f"{FEATURES}: {'tampered' if how == 'longer' else how}"):
        fetch(server.address, tmp_path / "here")
    assert left(tmp_path) == [".here.fetch"]
    with pytest.raises(UserError, match=f"{FEATURES}: {'tampered' if how == 'longer' else how}"):
        fetch(str(server.folder), tmp_path / "there")
    shutil.copy(plain / FEATURES, server.folder / FEATURES)
    before = server.asked["/items.parquet"]
    fetch(server.address, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(plain)
    assert server.asked["/items.parquet"] == before, "what was whole is not fetched again"


def test_no_release_or_server(plain: Path, server: Folder, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 3)
    absent = dict.fromkeys((f"{server.address}/nothing", str(plain.parent)), r"no manifest\.json there")
    for address, says in (absent | {"http://127.0.0.1:9": "cannot be reached", "ftp://host/release": "'ftp'"}).items():
        with pytest.raises(UserError, match=says):
            fetch(address, tmp_path / "here")
    assert left(tmp_path) == []
    server.status = 503
    with pytest.raises(UserError, match=r"HTTP 503.*run again later"):
        fetch(server.address, tmp_path / "here")
    assert server.asked["/manifest.json"] == 3


def test_wrong_credentials_are_named_and_never_printed(server: Folder, plain: Path, tmp_path: Path) -> None:
    server.password = "Basic dXNlcjpyaWdodA=="  # user:right
    host = server.address.removeprefix("http://")
    with pytest.raises(UserError, match="access denied") as e:
        fetch(f"http://user:wrong@{host}?sig=secret", tmp_path / "here")
    assert "wrong" not in str(e.value)
    assert "secret" not in str(e.value)
    fetch(f"http://user:right@{host}?sig=secret", tmp_path / "here")
    assert contents(tmp_path / "here") == contents(plain)
    assert server.queries == {"sig=secret"}, "a signature goes with every request"


def test_a_folder_that_holds_something_is_left_alone(server: Folder, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        fetch(server.address, tmp_path / "here")
    assert contents(tmp_path / "here").keys() == {"mine.txt"}
    assert left(tmp_path) == ["here"]


def test_the_same_release_again_fetches_nothing_and_checks_it(server: Folder, tmp_path: Path) -> None:
    fetch(server.address, tmp_path / "here")
    before = server.asked["/items.parquet"]
    fetch(server.address, tmp_path / "here")
    assert server.asked["/items.parquet"] == before
    (tmp_path / "here/README.md").write_text("changed")
    with pytest.raises(UserError, match=r"README\.md"):
        fetch(server.address, tmp_path / "here")


def test_a_planted_work_folder_is_not_written_to(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for target in ("theirs", "nowhere"):
        (tmp_path / ".to.fetch").unlink(missing_ok=True)
        (tmp_path / ".to.fetch").symlink_to(tmp_path / target)
        with pytest.raises(UserError, match=r"\.to\.fetch: not a folder of yours"):
            fetch(str(plain), tmp_path / "to")
    assert not [*(tmp_path / "theirs").iterdir()]
