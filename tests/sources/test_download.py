"""Raw files are complete and checked or absent, resumed, retried, and listed without local paths."""

import gzip
import random
import re
from pathlib import Path

import pytest
from webserver import Server, body, first, hang, ranged, serving, status

from alignrec.pipeline import io
from alignrec.pipeline.http.fetch import Progress, fetch_file
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.base import Download
from alignrec.pipeline.sources.download import (
    download_files,
    expected_hashes,
    file_names,
    local_hashes,
)

ONCE = Download(timeout=2.0, retries=0)
DATA = gzip.compress(random.Random(0).randbytes(300_000), mtime=0)
HTML = b"<!DOCTYPE html><html>not found</html>"


def get(address: str, target: Path, retries: int = 2, timeout: float = 2.0, expected: str | None = None) -> Path:
    fetch_file(address, target, expected, timeout, retries, lambda done, total: None)
    return target


def quiet(name: str) -> Progress:
    return lambda done, total: None


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for headers in server.headers]


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving({"/x.gz": ranged(DATA, cut_at=120_000)}) as server:
        target = get(f"{server.address}/x.gz", tmp_path / "x.gz")
        asked = ranges(server)
    assert target.read_bytes() == DATA
    assert asked == [None, "bytes=120000-", "bytes=240000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.gz"]


def test_a_later_run_continues_what_an_earlier_one_left(tmp_path: Path) -> None:
    with serving({"/x.gz": ranged(DATA, cut_at=50_000)}) as server:
        address = f"{server.address}/x.gz"
        with pytest.raises(UserError, match="run again to continue"):
            get(address, tmp_path / "x.gz", retries=0)
        assert not (tmp_path / "x.gz").exists()
        server.answers["/x.gz"] = ranged(DATA)
        assert get(address, tmp_path / "x.gz").read_bytes() == DATA
        assert ranges(server)[-1] == "bytes=50000-"


def test_a_file_that_changed_meanwhile_starts_over(tmp_path: Path) -> None:
    new = gzip.compress(b"new", mtime=0)
    with serving({"/x.gz": ranged(DATA, cut_at=50_000)}) as server:
        address = f"{server.address}/x.gz"
        with pytest.raises(UserError):
            get(address, tmp_path / "x.gz", retries=0)
        server.answers["/x.gz"] = ranged(new, etag='"v2"')
        assert get(address, tmp_path / "x.gz").read_bytes() == new


def test_failures_that_may_pass_are_tried_again_and_others_are_not(tmp_path: Path) -> None:
    answers = {"/a": first(2, status(503, Retry_After="0"), body(b"a")), "/b": status(403), "/c": hang}
    with serving(answers) as server:
        assert get(f"{server.address}/a", tmp_path / "a").read_bytes() == b"a"
        with pytest.raises(UserError, match=r"/b: access denied \(HTTP 403\)"):
            get(f"{server.address}/b", tmp_path / "b")
        with pytest.raises(UserError, match=r"/c: ReadTimeout.*after 1 tries"):
            get(f"{server.address}/c", tmp_path / "c", retries=0, timeout=0.2)
        with pytest.raises(UserError, match=r"/d: no such file \(HTTP 404\)$"):
            get(f"{server.address}/d", tmp_path / "d")
    assert server.asked == {"/a": 3, "/b": 1, "/c": 1, "/d": 1}
    with pytest.raises(UserError, match=r"ConnectError.*after 1 tries"):
        get(f"{server.address}/a", tmp_path / "e", retries=0)


FAULTS = [(HTML, "web page"), (b"\n <HTML>", "web page"), (b"plain", "not gzip"), (b"", "not gzip")]


@pytest.mark.parametrize(("data", "fault"), FAULTS)
@pytest.mark.parametrize("kind", ["http", "path", "file"])
def test_what_is_not_the_file_is_a_line_with_its_cause(tmp_path: Path, data: bytes, fault: str, kind: str) -> None:
    (tmp_path / "in.gz").write_bytes(data)
    with serving({"/in.gz": body(data)}) as server:
        folder = {"http": server.address, "path": str(tmp_path), "file": f"file://{tmp_path}"}[kind]
        with pytest.raises(UserError, match=rf"^{folder}/in\.gz: .*{fault}") as e:
            get(f"{folder}/in.gz", tmp_path / "out.gz")
    assert "\n" not in str(e.value)
    assert {p.name for p in tmp_path.iterdir()} == {"in.gz"}


def test_local_files_and_odd_addresses(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"x")
    assert get(f"file://{tmp_path}/a%20b", tmp_path / "c").read_bytes() == b"x"
    assert get(str(tmp_path / "a b"), tmp_path / "d").read_bytes() == b"x"
    for address in ("ftp://e/x", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(UserError, match=re.escape(address)):
            get(address, tmp_path / "e")
    with pytest.raises(UserError, match="none: no such file"):
        local_hashes({"reviews": [str(tmp_path / "none"), "https://e/x"]})


@pytest.mark.parametrize(
    "address", ["http://e/", "http://e/..", "/a/.hidden", "http://e/a%2fb%00", "sources.json", "http://e/x?y=/../z/"]
)
def test_addresses_never_become_odd_file_names(address: str) -> None:
    try:
        actual = file_names({"reviews": [address]})["reviews"]
    except UserError:
        return
    assert "/" not in actual
    assert actual in ("x", "b")


def test_a_dataset_is_fetched_once_and_listed_without_secrets_or_paths(tmp_path: Path) -> None:
    (tmp_path / "meta.json.gz").write_bytes(DATA)
    with serving({"/r.json.gz": body(DATA)}) as server:
        host = server.address.removeprefix("http://")
        remote, near = f"http://me:pass@{host}/r.json.gz?key=1#x", str(tmp_path / "meta.json.gz")
        addresses = {"reviews": [remote], "metadata": [near]}
        raw = tmp_path / "raw"
        rows = download_files("shop", addresses, raw, {}, [], ONCE, quiet)
        assert download_files("shop", addresses, raw, {}, rows, ONCE, quiet) == rows
        assert server.asked.total() == 1
    common = {"bytes": len(DATA), "sha256": io.sha256(tmp_path / "meta.json.gz")}
    assert rows == [
        {"role": "reviews", "name": "r.json.gz", "url": f"http://{host}/r.json.gz"} | common,
        {"role": "metadata", "name": "meta.json.gz", "url": "file:meta.json.gz"} | common,
    ]


def test_what_is_expected_comes_from_the_parameters_then_from_the_first_download() -> None:
    seen = [{"role": r, "url": f"http://e/{r}", "sha256": "first"} for r in "abc"]
    addresses = {"a": ["http://e/a"], "b": ["http://me:x@e/b"], "c": ["http://other/c"], "d": ["local.gz"]}
    assert expected_hashes(addresses, {"a": "pinned"}, seen) == {"a": "pinned", "b": "first"}
    with pytest.raises(UserError, match="sha256 of 'z': this source has a, b, c, d"):
        expected_hashes(addresses, {"z": "pinned"}, seen)
