"""Raw files are complete and checked or absent, resumed, retried, and listed without paths."""

import gzip
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import toy
from webserver import Server, body, ranged, serving

from alignrec.commands import new, own_data
from alignrec.commands.params import Params, load
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.amazon import FOLDERS, Amazon2023, AmazonSource
from alignrec.pipeline.sources.base import FEATURE, Download
from alignrec.pipeline.sources.download import (
    download_files,
    expected_hashes,
    fetch_source,
    file_names,
    local_hashes,
)
from alignrec.pipeline.web.download import Progress, fetch_file

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
        local_hashes({"reviews": str(tmp_path / "none"), "metadata": "https://e/x"})


@pytest.mark.parametrize(
    "address", ["http://e/", "http://e/..", "/a/.hidden", "http://e/a%2fb%00", "sources.json", "http://e/x?y=/../z/"]
)
def test_addresses_never_become_odd_file_names(address: str) -> None:
    try:
        actual = file_names({"reviews": address})["reviews"]
    except UserError:
        return
    assert "/" not in actual
    assert actual in ("x", "b")


def test_a_dataset_is_fetched_once_and_listed_without_secrets_or_paths(tmp_path: Path) -> None:
    (tmp_path / "meta.json.gz").write_bytes(DATA)
    with serving({"/r.json.gz": body(DATA)}) as server:
        host = server.address.removeprefix("http://")
        remote, near = f"http://me:pass@{host}/r.json.gz?key=1#x", str(tmp_path / "meta.json.gz")
        addresses = {"reviews": remote, "metadata": near}
        raw = tmp_path / "raw"
        rows = download_files("shop", addresses, raw, {}, [], ONCE, quiet)
        assert download_files("shop", addresses, raw, {}, rows, ONCE, quiet) == rows
        assert server.asked.total() == 1
    common = {"bytes": len(DATA), "sha256": io.sha256(tmp_path / "meta.json.gz")}
    assert rows == [
        {"role": "reviews", "name": "r.json.gz", "url": f"http://{host}/r.json.gz"} | common,
        {"role": "metadata", "name": "meta.json.gz", "url": "file:meta.json.gz"} | common,
    ]


def test_links_to_the_cache_of_dvc_become_copies_and_other_links_stay(tmp_path: Path) -> None:
    for name in ("r.csv", "i.csv"):
        (tmp_path / name).write_text("user,item\n")
        os.link(tmp_path / name, tmp_path / f"{name}-cached")
    (tmp_path / "r.csv").chmod(0o444)
    source = {"kind": "tabular", "interactions": str(tmp_path / "r.csv"), "items": str(tmp_path / "i.csv")}
    fetch_source(toy.run("download", toy.params(sources={"shop": source}), tmp_path / "project"))
    assert not os.path.samefile(tmp_path / "r.csv", tmp_path / "r.csv-cached")
    assert os.path.samefile(tmp_path / "i.csv", tmp_path / "i.csv-cached")


def test_folders_are_packed_if_they_are_features(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    pq.write_table(pa.table({"asin": ["a"], "vector": [[1.0]]}), folder / "part-0.parquet")
    (tmp_path / "other.npy").write_bytes(DATA)
    addresses = {f"{FEATURE}text": str(folder), f"{FEATURE}image": str(tmp_path / "other.npy")}
    rows = download_files("shop", addresses, tmp_path / "raw", {}, [], ONCE, quiet)
    assert [row["name"] for row in rows] == ["vectors.parquet", "other.npy"]
    assert (tmp_path / "raw/other.npy").read_bytes() == DATA
    with pytest.raises(UserError, match="not a plain file but a folder"):
        download_files("shop", {"items": str(folder)}, tmp_path / "other", {}, [], ONCE, quiet)


def test_a_damaged_list_of_files_is_made_again(tmp_path: Path) -> None:
    for name in ("r.csv", "i.csv"):
        (tmp_path / name).write_text("user,item\n")
    source = {"kind": "tabular", "interactions": str(tmp_path / "r.csv"), "items": str(tmp_path / "i.csv")}
    params = toy.params(sources={"shop": source})
    listed = toy.run("download", params, tmp_path).out / "sources.json"
    before = listed.read_bytes()
    with listed.open("rb+") as file:  # which is also the file of the work folder
        file.write(b"7")
    toy.run("download", params, tmp_path)
    assert listed.read_bytes() == before


def test_what_is_expected_comes_from_the_parameters_then_from_the_first_download() -> None:
    seen = [{"role": r, "url": f"http://e/{r}", "sha256": "first"} for r in "abc"]
    addresses = {"a": "http://e/a", "b": "http://me:x@e/b", "c": "http://other/c", "d": "local.gz"}
    assert expected_hashes(addresses, {"a": "pinned"}, seen) == {"a": "pinned", "b": "first"}
    with pytest.raises(UserError, match="sha256 of 'z': this source has a, b, c, d"):
        expected_hashes(addresses, {"z": "pinned"}, seen)


# --- Amazon's data


BYTES = random.Random(0).randbytes(200_000)
PACKED, OTHER = gzip.compress(BYTES, mtime=0), gzip.compress(BYTES[::-1], mtime=0)


def run(root: Path, reviews: str, **source: Any) -> list[dict[str, Any]]:
    """Run the stage on a source with this address of reviews; return sources.json."""
    declared = {"kind": "amazon2023", "reviews": reviews, **source}
    given = {"datasets": ["d"], "sources": {"d": declared}, "download": {"retries": 0, "timeout": 2.0}}
    toy.run("download", Params.model_validate(given), root, "d")
    rows: list[dict[str, Any]] = json.loads(Layout(root, "d").sources.read_text())
    return rows


def test_other_bytes_than_the_first_download_are_refused_in_one_line(tmp_path: Path) -> None:
    with serving({"/x.csv.gz": body(PACKED)}) as server:
        url = f"{server.address}/x.csv.gz"
        run(tmp_path, url)
        for stored in tmp_path.rglob("x.csv.gz"):
            stored.unlink()
        server.answers["/x.csv.gz"] = body(OTHER)
        with pytest.raises(UserError, match=r"/x\.csv\.gz: its sha256 is \w+") as e:
            run(tmp_path, url)
        assert "\n" not in str(e.value)
        assert not (Layout(tmp_path, "d").raw / "x.csv.gz").exists()
        server.answers["/x.csv.gz"] = body(PACKED)
        assert run(tmp_path, url)[0]["url"] == url


@pytest.mark.parametrize("version", FOLDERS)
def test_every_category_has_both_subsets(version: str) -> None:
    given = {"kind": version, "category": "Software"}
    five, every = (AmazonSource.model_validate(given | {"subset": subset}).files() for subset in ("5-core", "all"))
    assert five["metadata"] == every["metadata"]
    for found in (five, every):
        assert all("{" not in address and "Software" in address for address in found.values())
    assert five["reviews"] != every["reviews"]


def test_the_subset_is_a_key_of_the_source() -> None:
    def reviews(**given: Any) -> str | None:
        return Amazon2023.model_validate({"kind": "amazon2023", "category": "Software", **given}).reviews

    assert "5core" in (reviews() or "")
    assert reviews(subset="5-core") == reviews()
    assert "0core" in (reviews(subset="all") or "")
    with pytest.raises(ValueError, match="subset: applies"):
        reviews(subset="all", reviews="mine.csv")
    with pytest.raises(ValueError, match="5-core"):
        reviews(subset="3-core")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "x", "--amazon", "2015"], "'--amazon': no '2015'"),
        (["new", "x", "--amazon", "2014", "--category", "Babi"], "no 'Babi'; did you mean 'Baby'?"),
        (["new", "x", "--amazon", "2014"], "give --category too, such as Musical_Instruments"),
        (["new", "--amazon", "2014", "--category", "Baby"], "alignrec new baby --amazon 2014 --category Baby"),
        (["new", "--amazon", "2023"], "give the dataset a name: alignrec new "),
        (["new", "x"], "--interactions"),
    ],
)
def test_what_is_missing_or_misspelt_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    result = alignrec(*words, cwd=tmp_path)
    assert result.exit_code
    told = str(result.exception) if not isinstance(result.exception, SystemExit) else result.output
    assert said in " ".join(told.replace("│", " ").split())
    assert not (tmp_path / "params.yaml").exists()


def test_new_writes_a_project_for_a_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "has_gpu", lambda: False)
    said = alignrec("new", "baby", "--amazon", "2014", "--category", "Baby", cwd=tmp_path)
    assert said.exit_code == 0, said.output
    assert "Baby of 2014: 19,445 users, 7,050 items, 160,792 interactions" in said.output
    params = load(tmp_path / "params.yaml", "baby")
    source = params.source("baby")
    assert isinstance(source, AmazonSource)
    assert (source.kind, source.category, source.subset) == ("amazon2014", "Baby", "5-core")
    assert (tmp_path / "dvc.yaml").is_file()
    assert (params.beit3.sets, params.train.features) == ([], "linear")
    assert "--beit3 pre-trains it\n" in said.output
    assert params[TrainSettings].resolved().epochs == own_data.QUICK_TRAINING["epochs"]
    assert params[Benchmark].models == own_data.QUICK_MODELS


def test_without_a_category_new_lists_them_by_size(tmp_path: Path) -> None:
    said = alignrec("new", "x", "--amazon", "2023", cwd=tmp_path)
    assert said.exit_code
    listed = [line.split()[0] for line in said.output.splitlines() if line.strip()]
    assert listed.index("Subscription_Boxes") < listed.index("All_Beauty") < listed.index("Books")
    assert "94,762" in said.output  # users of Video_Games
    assert "~2,400" in said.output  # interactions of All_Beauty
