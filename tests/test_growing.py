"""`alignrec new --from`: a project of a catalogue that grew, in the spaces of an older release."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shop import featured, releases, toy

from alignrec.commands import new as command
from alignrec.commands.own_data import Given
from alignrec.commands.params import load
from alignrec.commands.project import dvc_yaml
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from tests.realdata import growth
from tests.release.test_align import NEW, TODAY

OLDER = Path("older")
USERS = 60


def write_shop(items: Sequence[featured.Item]) -> Given:
    """Write items with titles, each bought by six users, and their interactions."""
    Path("items.jsonl").write_text("\n".join(json.dumps({"sku": one.asin, "title": one.text}) for one in items))
    with Path("ratings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "sku"])
        for number, one in enumerate(items):
            rows.writerows([f"u{(7 * number + 11 * n) % USERS}", one.asin] for n in range(6))
    return Given("shop", Path("ratings.csv"), Path("items.jsonl"))


def project(items: Sequence[featured.Item], older: Path | None = None) -> Parameters:
    """Write params.yaml as `new` does; return its parameters."""
    text, _ = command.describe_files(write_shop(items), older=older)
    written = yaml.safe_load(text)
    written.setdefault("semantic_ids", {"features": ["linear"], "levels": 2, "codes": 8})
    Path("params.yaml").write_text(yaml.safe_dump(written))
    return load(Path("params.yaml"), "shop")


def make(root: Path, params: Parameters) -> Layout:
    for stage in ("download", "interactions", "items", "images"):
        toy.run(stage, params, root)
    layout = Layout(root, "shop")
    featured.stage(layout, params)
    for stage in ("graph", "semantic_ids", "publish"):
        toy.run(stage, params, root)
    return layout


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "has_gpu", lambda: False)


def _write_today(root: Path) -> None:
    root.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make(root / "outputs", project(TODAY))


@pytest.fixture
def older() -> None:
    """Copy a release of today's catalogue."""
    shutil.copytree(Layout(toy.made(_write_today) / "outputs", "shop").release, OLDER)


def table(folder: Path, read: Any) -> dict[str, Any]:
    rows = read(folder)
    values = io.matrix(rows["vector"]) if "vector" in rows.column_names else rows["codes"].to_pylist()
    return dict(zip(rows["asin"].to_pylist(), values, strict=True))


@pytest.mark.usefixtures("older")
def test_a_grown_catalogue_stays_in_the_spaces_of_the_release(tmp_path: Path) -> None:
    assert RELEASED in project(TODAY)[Benchmark].models
    params = project([*NEW, *TODAY], OLDER)
    assert params[Encode].encoders == ["minilm", "tfidf"]
    assert params[Encode].reuse
    assert params[Benchmark].models == ["ease", "l3ae"]  # compared by AlignRec for the older release
    assert params[ProbeParams].features == params[Benchmark].features == ["linear", "tfidf", "shuffled"]
    assert params.encoders == {"tfidf": {"kind": "released", "model": "older", "encoder": "tfidf"}}
    layout = make(tmp_path / "grown", params)

    for name in ("minilm", "tfidf", "linear"):
        now, before = (table(of / name, io.read_features) for of in (layout.release / "features", OLDER / "features"))
        assert len(now) == len(before) + len(NEW)
        for asin, vector in before.items():
            np.testing.assert_allclose(now[asin], vector, atol=1e-5)
    path = Path("semantic_ids/linear/codes.parquet")
    now, before = (table(of / path, io.read_codes) for of in (layout.release, OLDER))
    assert {asin: now[asin] for asin in before} == before

    # and so does the catalogue after that
    shutil.copytree(layout.release, "next")
    assert project(TODAY, Path("next"))[SemanticIds].codebooks == "next"


@pytest.mark.usefixtures("older")
def test_dvc_compares_the_manifest_of_the_release() -> None:
    stages = yaml.safe_load(dvc_yaml(project(TODAY, OLDER)))["stages"]
    reading = [name for name, stage in stages.items() if "older/manifest.json" in stage.get("deps", [])]
    assert reading == ["encode", "combine", "semantic_ids"]


def test_releases_that_cannot_be_grown_from_are_refused(tmp_path: Path) -> None:
    layout = releases.outputs(tmp_path / "outputs")
    given = write_shop(TODAY)
    with pytest.raises(UserError, match="the next `dvc repro` replaces it; copy it out of outputs first"):
        command.describe_files(given, older=layout.release)
    without = shutil.copytree(layout.release, OLDER)
    releases.drop(without, "encoders/")
    with pytest.raises(UserError, match="carries no encoder"):
        command.describe_files(given, older=without)


def test_the_table_of_the_docs_compares_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GROWTH", (50,))
    found = {way: figures for _, way, figures in growth.compare(growth.TOY, tmp_path)}
    assert found["fixed"].cosine > 0.999
    assert found["fresh"].cosine < 0.5 < found["aligned"].cosine
    # a rotation changes no neighbour
    assert found["aligned"].warm == pytest.approx(found["fresh"].warm, abs=1e-3)
    assert found["fixed"].warm != found["fresh"].warm
