"""Amazon's data by name; mirrors of a file are tried in order and never mixed."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from commands import alignrec
from webserver import body, ranged, serving, status

from alignrec.commands import new
from alignrec.commands.params import Params, load
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.amazon import MIRRORS, Amazon2023, AmazonSource, category_addresses
from alignrec.stages.download import main

DATA = random.Random(0).randbytes(200_000)
PACKED, OTHER = gzip.compress(DATA, mtime=0), gzip.compress(DATA[::-1], mtime=0)
HTML = b"<!DOCTYPE html><html>gone</html>"


def run(root: Path, reviews: list[str], retries: int = 0, **source: Any) -> list[dict[str, Any]]:
    """Run the stage on a source with these addresses of reviews; return sources.json."""
    declared = {"kind": "amazon2023", "reviews": reviews, **source}
    given = {"datasets": ["d"], "sources": {"d": declared}, "download": {"retries": retries, "timeout": 2.0}}
    with running("download", "d", Params.model_validate(given), root) as stage:
        main(stage)
    rows: list[dict[str, Any]] = json.loads(Layout(root, "d").sources.read_text())
    return rows


def stored(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Layout(root, "d").raw.iterdir() if p.name.endswith((".gz", ".part"))}


@pytest.mark.parametrize("first", [status(404), status(503), body(HTML), ranged(PACKED, cut_at=1000)])
def test_the_next_address_is_tried_and_named(tmp_path: Path, first: Any) -> None:
    with serving({"/a/x.csv.gz": first, "/b/x.csv.gz": body(PACKED)}) as server:
        urls = [f"{server.address}/{mirror}/x.csv.gz" for mirror in "ab"]
        (row,) = run(tmp_path, urls)
    assert (row["url"], row["name"]) == (urls[1], "x.csv.gz")
    assert stored(tmp_path) == {"x.csv.gz": PACKED}, "nothing of the first address is left"


def test_bytes_of_two_mirrors_are_never_joined(tmp_path: Path) -> None:
    """Both have the same ETag; the first always breaks off, and the second has other bytes and supports ranges."""
    answers = {"/a/x.csv.gz": ranged(PACKED, '"same"', cut_at=1000), "/b/x.csv.gz": ranged(OTHER, '"same"')}
    with serving(answers) as server:
        run(tmp_path, [f"{server.address}/{mirror}/x.csv.gz" for mirror in "ab"], retries=1)
    assert stored(tmp_path) == {"x.csv.gz": OTHER}


def test_a_mirror_with_other_bytes_than_the_first_download_is_refused_in_one_line(tmp_path: Path) -> None:
    with serving({"/a/x.csv.gz": body(PACKED), "/b/x.csv.gz": body(OTHER)}) as server:
        urls = [f"{server.address}/{mirror}/x.csv.gz" for mirror in "ab"]
        run(tmp_path, urls)
        for stored in tmp_path.rglob("x.csv.gz"):
            stored.unlink()
        server.answers["/a/x.csv.gz"] = status(404)
        with pytest.raises(UserError, match=r"b/x\.csv\.gz: its sha256 is \w+") as e:
            run(tmp_path, urls)
        assert "\n" not in str(e.value)
        assert not (Layout(tmp_path, "d").raw / "x.csv.gz").exists()
        server.answers["/b/x.csv.gz"] = body(PACKED)
        assert run(tmp_path, urls)[0]["url"] == urls[1]


@pytest.mark.parametrize("version", MIRRORS)
def test_every_category_has_several_addresses_and_both_subsets(version: str) -> None:
    five, every = (category_addresses(version, "Software", subset) for subset in ("5-core", "all"))
    assert five["metadata"] == every["metadata"]
    for found in (five, every):
        assert all(len(mirrors) >= 2 for mirrors in found.values())
        assert all("{" not in address and "Software" in address for mirrors in found.values() for address in mirrors)
    assert not set(five["reviews"]) & set(every["reviews"])


def test_the_subset_is_a_key_of_the_source() -> None:
    def reviews(**given: Any) -> list[str]:
        return Amazon2023.model_validate({"kind": "amazon2023", "category": "Software", **given}).reviews

    assert "5core" in reviews()[0]
    assert reviews(subset="5-core") == reviews()
    assert "0core" in reviews(subset="all")[0]
    with pytest.raises(ValueError, match="subset: applies"):
        reviews(subset="all", reviews="mine.csv")
    with pytest.raises(ValueError, match="5-core"):
        reviews(subset="3-core")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "x", "--amazon", "2015"], "'--amazon': no '2015'"),
        (["new", "x", "--amazon", "2014", "--category", "Babi"], "no 'Babi'; did you mean 'Baby'?"),
        (["new", "x", "--amazon", "2014"], "give --category too, one of Amazon_Instant_Video"),
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
    assert "--beit3 pre-trains it, in about " in said.output
