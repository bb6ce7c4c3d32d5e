"""croissant.json for mlcroissant and dataset reviewers: all required terms and records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import releases, toy

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import croissant, manifest
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.section import validate

KEYS = {"licence": "CC-BY-4.0", "creator": "The shop's group", "date": "2026-11-28"}
RESPONSIBLE = (
    "dataLimitations", "dataBiases", "personalSensitiveInformation", "dataUseCases", "dataSocialImpact",
    "hasSyntheticData",
)  # fmt: skip


def published(root: Path, **keys: Any) -> Path:
    """Return a release whose feature set beit3 has two files."""
    layout = toy.outputs(root)
    toy.write_set(layout.features("beit3"), io.read_features(layout.features("beit3")), rows=4)
    return releases.published(layout, toy.params(publish=keys)).release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep mlcroissant's downloads out of the user's folder; the variable is read on import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def described(release: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((release / croissant.CROISSANT).read_text())
    return content


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return list(map(plain, value)) if isinstance(value, list) else None if value != value else value


def test_reviewers_terms_are_there_from_the_facts_of_the_manifest(release: Path) -> None:
    said = described(release)
    assert said["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    for term in RESPONSIBLE:
        assert f"rai:{term}" in said, term
    assert said["rai:hasSyntheticData"] is True  # the kind of the toy's source is sample
    assert [one["name"] for one in said["prov:wasGeneratedBy"]] == list(manifest.load(release).made_by)
    inputs = manifest.load(release).inputs
    assert [(one["name"], one["sha256"]) for one in said["prov:wasDerivedFrom"]] == [(i.name, i.sha256) for i in inputs]
    assert "Of 6 items, 1 (16.7%) have no image, 1 (16.7%) no text" in said["rai:dataLimitations"][0]
    assert "alignrec-shop-0.1.0" in said["citeAs"]
    assert "liu2024alignrec" in said["citeAs"]


@pytest.mark.filterwarnings("ignore::Warning")  # the library's own, of its dependencies
def test_every_record_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    release = published(tmp_path, url="https://shop.example/data", **KEYS)
    dataset = mlcroissant.Dataset(release / croissant.CROISSANT)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == []
    assert dataset.metadata.url == "https://shop.example/data"
    assert [one.name for one in dataset.metadata.creators] == ["The shop's group"]
    assert dataset.metadata.date_published.date().isoformat() == "2026-11-28"
    assert dataset.metadata.data_limitations
    assert dataset.metadata.personal_sensitive_information
    for name, files in manifest.record_sets(manifest.load(release).files).items():
        tables = [pq.read_table(release / file.path, partitioning=None) for file in files]
        rows = pa.concat_tables(tables, promote_options="default").to_pylist()
        records = list(dataset.records(name))
        assert len(records) == len(rows), name
        for ours, theirs in zip(rows, records, strict=True):
            assert ours == {column.rpartition("/")[2]: plain(value) for column, value in theirs.items()}, name


def test_every_file_is_listed_with_its_hash_and_every_column_with_its_meaning(release: Path) -> None:
    said = described(release)
    listed = {f["contentUrl"]: f["sha256"] for f in said["distribution"] if f["@type"] == "cr:FileObject"}
    rest = ("README.md", croissant.CROISSANT)
    assert listed == {f.path: f.sha256 for f in manifest.load(release).files if f.path not in rest}
    fields = [f for r in said["recordSet"] for f in r["field"]]
    assert all(f["description"] for f in fields)
    vector = next(f for f in fields if f["@id"] == "features-beit3/vector")
    assert (vector["isArray"], vector["arrayShape"], vector["dataType"]) == (True, str(toy.WIDTH), "sc:Float")
    assert said["license"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert "usageInfo" not in said


def test_the_card_states_the_same(tmp_path: Path) -> None:
    release = published(tmp_path, url="https://shop.example/data", cite="@misc{mine,\n}", **KEYS)
    card, said = (release / "README.md").read_text(), described(release)
    for term in RESPONSIBLE[:-1]:
        sentences = said[f"rai:{term}"]
        for sentence in [sentences] if isinstance(sentences, str) else sentences:
            assert sentence in card
    assert said["citeAs"] in card
    assert said["citeAs"].startswith("@misc{mine,")
    assert said["license"] == "CC-BY-4.0"
    assert "Licence of this release: CC-BY-4.0." in card
    assert "license: cc-by-4.0" in card
    assert "Made by The shop's group, published 2026-11-28." in card


def test_a_licence_that_is_unknown_is_said_in_usage_info_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignrec.pipeline.runtime.source import OWN
    from alignrec.pipeline.sources.sample import SampleSource

    monkeypatch.setattr(SampleSource, "licence", OWN)
    said = described(published(tmp_path, interactions=False))
    assert said["usageInfo"] == OWN.text
    assert said["rai:hasSyntheticData"] is False
    assert "the licence of the data is unknown: set publish.licence, such as cc-by-4.0" in capsys.readouterr().err
    published(tmp_path / "stated", interactions=False, licence="cc-by-4.0")
    assert "licence" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"license": "MIT"}, "did you mean 'licence'"),
        ({"date": "2026-13-01"}, "'publish.date'"),
        ({"date": "yesterday"}, "'publish.date'"),
        ({"url": "ftp://x/y"}, "'publish.url'"),
        ({"creator": []}, "'publish.creator'"),
    ],
)
def test_a_key_that_cannot_be_is_one_line(keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault) as e:
        validate(Publish, keys, "publish")
    assert "\n" not in str(e.value)
