"""A shop that grows as docs/growing.md says: each release is in the space of the one before."""

import csv
import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec, blocks
from shop import featured, toy

from alignrec.commands.params import Params
from alignrec.commands.project import dvc_yaml
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.runtime.code import ROOT
from alignrec.pipeline.runtime.layout import Layout

COLOURS, MATERIALS = ["red", "green", "blue", "white", "black"], ["oak", "steel", "glass", "wool", "paper"]
WORDS = [*COLOURS, *MATERIALS, "lamp", "chair", "table", "sofa", "shelf", "mirror"]
USERS = 60
NAMES = ["both", "linear", "tfidf"]


def item(number: int) -> dict[str, str]:
    words = np.random.default_rng(number).choice(WORDS, 5)
    return {"sku": f"A{number}", "title": " ".join(map(str, words))}


TODAY = [item(number) for number in range(110)]
TOMORROW = [item(number) for number in range(120)]  # 9 % are new
NEXT = [item(number) for number in range(130)]


def write_shop(items: Sequence[dict[str, str]]) -> None:
    """Write items, each bought by six users, and their interactions."""
    Path("items.jsonl").write_text("\n".join(map(json.dumps, items)))
    with Path("ratings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "sku"])
        for number, one in enumerate(items):
            rows.writerows([f"u{(7 * number + 11 * n) % USERS}", one["sku"]] for n in range(6))


def fresh() -> Params:
    files = {"interactions": "ratings.csv", "items": "items.jsonl", "columns": {"item": "sku"}}
    sets = {
        "both": {"kind": "concat", "of": ["minilm", "tfidf"]},
        "linear": {"of": ["both", "tfidf"], "width": 8},
    }
    return toy.params(
        sources={"shop": {"kind": "tabular", **files}},
        encode={"encoders": ["minilm", "tfidf"]},
        combine={"sets": sets, "controls": []},
        beit3={"sets": []},
        semantic_ids={"features": ["linear"], "levels": 2, "codes": 8},
        publish={"features": NAMES},
    )


def grown() -> Params:
    """Return what docs/growing.md says, with a second chain, and a `tfidf` of its own."""
    (block,) = blocks((ROOT / "docs/growing.md").read_text(), "yaml")
    sections = yaml.safe_load(block)
    sections["encode"]["encoders"] += ["both", "tfidf"]
    sections["encoders"]["both"] = sections["encoders"]["linear"] | {"encoder": "both"}
    sections["combine"]["controls"] = []
    sources = fresh().model_dump()["sources"]
    return toy.params(sources=sources, publish={"features": NAMES}, **sections)


def release(items: Sequence[dict[str, str]], given: Params) -> Path:
    """Make a release in this folder."""
    write_shop(items)
    layout = Layout(Path("outputs").absolute(), "shop")
    for stage in ("download", "interactions", "items", "images"):
        toy.run(stage, given, layout.root)
    featured.stage(layout, given)
    for stage in ("graph", "semantic_ids", "publish"):
        toy.run(stage, given, layout.root)
    return layout.release


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return three releases, each of more items, and the later two by nothing but the one before."""
    releases: list[Path] = []
    for items in (TODAY, TOMORROW, NEXT):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("shop"))
            if releases:
                shutil.copytree(releases[-1], "older")
            releases.append(release(items, grown() if releases else fresh()))
    return releases


def vectors(folder: Path, name: str, asins: Sequence[str]) -> np.ndarray:
    table = Release(folder).features(name)
    of = dict(zip(table["asin"].to_pylist(), io.matrix(table["vector"]), strict=True))
    return np.array([of[asin] for asin in asins])


def codes(folder: Path) -> dict[str, Any]:
    rows = io.read_codes(folder / "semantic_ids/linear/codes.parquet").to_pylist()
    return {row["asin"]: (row["codes"], row["suffix"]) for row in rows}


@pytest.mark.parametrize("name", ["both", "linear"])
def test_the_vectors_of_older_items_stay(shop: list[Path], name: str) -> None:
    kept = [one["sku"] for one in TODAY]
    before, *later = (vectors(folder, name, kept) for folder in shop)
    for now in later:
        assert np.median(paired_cosines(now, before)) >= 0.9999
    new = vectors(shop[-1], name, [one["sku"] for one in NEXT[len(TODAY) :]])
    assert new.any(axis=1).all()


def test_the_codes_of_older_items_stay(shop: list[Path]) -> None:
    for older, newer in pairwise(shop):
        before, now = codes(older), codes(newer)
        assert {asin: now[asin] for asin in before} == before
        assert len(now) > len(before)


def test_each_release_carries_the_parts_beside_its_own_encoder_of_that_name(shop: list[Path]) -> None:
    words = "tfidf/words.json"
    for folder in shop[1:]:
        verify(folder)
        assert ReleasedEncoders(folder).names == NAMES
        encoders = folder / "encoders"
        carried = (encoders / "linear/parts" / words).read_bytes()
        assert carried == (shop[0] / "encoders" / words).read_bytes()
        assert sorted(path.name for path in (encoders / "linear/parts").iterdir()) == ["both", "minilm", "tfidf"]


def test_the_third_release_encodes_alone(shop: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = shutil.copytree(shop[-1], tmp_path / "release")
    monkeypatch.chdir(tmp_path)
    write_shop(TODAY[:9])
    attested = alignrec("verify", alone, "--data", "items.jsonl")
    assert attested.exit_code == 0, attested.output
    assert "linear agrees (cosine 1.00000)" in attested.output
    done = alignrec("embed", "items.jsonl", "--release", alone, "--encoder", "linear", "--to", "vectors")
    assert done.exit_code == 0, done.output
    embedded = io.matrix(pq.read_table("vectors")["vector"])
    before = vectors(shop[0], "linear", [one["sku"] for one in TODAY[:9]])
    assert np.min(paired_cosines(embedded, before)) >= 0.9999


def test_carried_parts_are_checked(shop: list[Path], tmp_path: Path) -> None:
    damaged = shutil.copytree(shop[-1], tmp_path / "release")
    path = damaged / "encoders/linear/parts/tfidf/encoder.json"
    path.write_text(path.read_text().replace('"tfidf"', '"other"'))
    with pytest.raises(UserError, match="release is damaged"):
        list(verify(damaged))
    with pytest.raises(UserError, match="of 'other', not of 'tfidf'"):
        ReleasedEncoders(damaged).load("linear")


def test_dvc_compares_the_manifest_of_the_older_release() -> None:
    stages = yaml.safe_load(dvc_yaml(grown()))["stages"]
    reading = [name for name, stage in stages.items() if "older/manifest.json" in stage.get("deps", [])]
    assert reading == ["encode", "semantic_ids"]
