"""Credentials and endpoint of S3, and its failures, on a loopback server."""

import json
import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec as command
from commands import script
from shop import releases
from toyproject import committed
from webserver import Folder, body, listening, serving, status

import alignrec
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest, stores
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.release.stores import BYTES_PER_READ, open_store
from alignrec.pipeline.runtime.code import ROOT
from alignrec.pipeline.web.retries import TransientError

ADDRESS = "s3://bucket/below"
DATA = os.urandom(BYTES_PER_READ + 70_000)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a setter of AWS_* variables, which clears all others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return lambda **values: [monkeypatch.setenv(f"AWS_{name}", value) for name, value in values.items()]


@pytest.fixture
def server(tmp_path: Path, environment: Callable[..., None]) -> Iterator[Folder]:
    """Serve a folder as a bucket."""
    below = tmp_path / "served/bucket/below"
    below.mkdir(parents=True)
    (below / "file").write_bytes(DATA)
    with listening(Folder(tmp_path / "served")) as server:
        environment(ENDPOINT_URL=server.address)
        yield server


def read(start: int = 0) -> bytes:
    return b"".join(open_store(ADDRESS).read("file", start))


@pytest.mark.parametrize(
    ("values", "signer"),
    [
        ({}, ""),
        ({"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "a-secret"}, "key"),
        ({"SKIP_SIGNATURE": "true"}, ""),
    ],
)
def test_requests_are_signed_by_keys_of_variables_or_anonymous(
    server: Folder, environment: Callable[..., None], values: dict[str, str], signer: str
) -> None:
    environment(**values)
    assert read() == DATA
    (signed,) = {headers.get("Authorization") or "" for headers in server.headers}
    assert signed.partition("Credential=")[2].partition("/")[0] == signer


def test_half_a_key_is_one_line(environment: Callable[..., None]) -> None:
    environment(ACCESS_KEY_ID="key")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY right"):
        open_store(ADDRESS)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://me:a-secret@host:99999", "ftp://host", "http://[::1"])
def test_an_invalid_endpoint_is_one_line_without_its_password(environment: Callable[..., None], endpoint: str) -> None:
    environment(ENDPOINT_URL=endpoint)
    with pytest.raises(UserError, match=r"^AWS_ENDPOINT_URL: ") as e:
        open_store(ADDRESS)
    assert "secret" not in str(e.value)


def test_without_encryption_only_where_the_endpoint_says_so(server: Folder, environment: Callable[..., None]) -> None:
    environment(ENDPOINT_URL=server.address.replace("http:", "https:"))
    with pytest.raises(TransientError):
        read()
    assert not server.asked


@pytest.mark.parametrize("start", [0, 1, BYTES_PER_READ, len(DATA) - 1, len(DATA), len(DATA) + 1])
def test_reading_begins_anywhere(server: Folder, start: int) -> None:
    assert read(start) == DATA[start:]


def test_a_silent_server_is_given_up_and_a_region_is_named(server: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "S3_READ_SECONDS", 0.1)
    server.held = True
    with pytest.raises(TransientError):
        read()
    server.status = 301
    with pytest.raises(UserError, match=r"the bucket is in another region; set AWS_REGION$"):
        read()


def test_a_redirect_to_another_host_is_refused_and_gets_no_token(environment: Callable[..., None]) -> None:
    with serving({"/bucket/below/file": body(b"theirs")}) as other:
        there = other.address.replace("127.0.0.1", "localhost")
        with serving({"/bucket/below/file": status(307, Location=f"{there}/bucket/below/file")}) as server:
            environment(ENDPOINT_URL=server.address, ACCESS_KEY_ID="key", SECRET_ACCESS_KEY="a", SESSION_TOKEN="b")
            with pytest.raises(UserError, match="redirects to another host, which is refused"):
                read()
        assert server.asked
        assert not other.asked


# --- the embedded release: small, complete, offline, and equal to the recorded run's


ARCHIVE = ROOT / "alignrec" / "sample.zip"


@pytest.fixture
def tool() -> ModuleType:
    return script("embedded")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return releases.outputs(tmp_path_factory.mktemp("whole")).release


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_release_is_reduced_to_some_sets_in_half_precision(whole: Path, tmp_path: Path, tool: ModuleType) -> None:
    tool.reduce(whole, tmp_path / "small")
    small = manifest.load(tmp_path / "small")
    assert small.part_of == io.sha256(whole / "manifest.json")
    paths = {file.path for file in small.files}
    assert not any(path.startswith(("encoders/", "semantic_ids/")) for path in paths)
    assert {file.feature_set for file in small.files if file.table == "features"} == {"beit3"}
    for path in paths & {file.path for file in manifest.load(whole).files if file.table}:
        before, after = (pq.read_table(folder / path, partitioning=None) for folder in (whole, tmp_path / "small"))
        assert before.schema.equals(after.schema, check_metadata=True), path
        if "vector" in before.column_names:
            rounded = io.matrix(before["vector"]).astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(io.matrix(after["vector"]), rounded)
            before, after = before.drop_columns(["vector"]), after.drop_columns(["vector"])
        assert before.equals(after), path


def test_equal_releases_are_equal_bytes(whole: Path, tmp_path: Path, tool: ModuleType) -> None:
    for name in "ab":
        tool.reduce(whole, tmp_path / name)
        tool.pack(tmp_path / name, tmp_path / f"{name}.zip", "run")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_only_the_release_of_the_recorded_run_is_taken(whole: Path, tmp_path: Path, tool: ModuleType) -> None:
    lock = {"stages": {"publish@sample": {"outs": [{"path": "outputs/publish/sample", "md5": "ab12.dir"}]}}}
    with pytest.raises(SystemExit, match=r"ab/12\.dir: not there; run `dvc repro` first"):
        tool.recorded(lock, tmp_path, whole)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/12.dir").write_text(json.dumps([{"relpath": "release/manifest.json", "md5": "0" * 32}]))
    with pytest.raises(SystemExit, match=r"not the release that dvc\.lock records"):
        tool.recorded(lock, tmp_path, whole)


def test_the_first_line_works_offline(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    release = alignrec.load("sample", cache=tmp_path / "cache")
    assert repr(release).startswith("<Release sample ")
    x = release.features["beit3"]
    assert len(x) == release.info.counts.items == len(release.items) > 1000
    assert release.vector(x.ids[0]).shape == (x.shape[1],)
    assert release.embeddings.users.shape[0] == release.info.counts.users
    again = alignrec.load("sample", "linear", cache=tmp_path / "cache")
    assert list(again.features) == ["linear"]


def test_fetch_makes_a_folder_of_it(offline: None, tmp_path: Path) -> None:
    for words in (("fetch", "sample", "--to", "release"), ("verify", "release")):
        said = command(*words, cwd=tmp_path)
        assert said.exit_code == 0, said.output
    assert not list((tmp_path / "release").rglob("*.jpg"))


def test_it_is_small_and_of_the_recorded_run(tool: ModuleType) -> None:
    assert ARCHIVE.stat().st_size <= tool.MOST
    (out,) = yaml.safe_load(committed("dvc.lock"))["stages"][tool.STAGE]["outs"]
    with zipfile.ZipFile(ARCHIVE) as file:
        assert file.comment.decode() == f"{tool.STAGE} {out['md5']}", "python .ci/embedded.py makes it of the new run"


def test_its_figures_are_those_that_git_keeps_of_the_run(tmp_path: Path) -> None:
    folder = fetch(str(ARCHIVE), tmp_path / "release")
    verify(folder)
    kept = json.loads(committed("outputs/figures/sample/metrics.json"))
    results, probes = (json.loads((folder / f"{name}.json").read_text()) for name in ("results", "probes"))
    (mean,) = (
        row["mean"]
        for row in results["results"]
        if (row["model"], row["metric"], row["k"], row["features"], row["ablation"], row["split"])
        == ("alignrec", "recall", 20, "beit3", "", "test")
    )
    assert round(mean, 4) == kept["recall@20"]
    assert round(probes["zero_shot"]["beit3"]["hit@20"], 4) == kept["zero_shot"]
