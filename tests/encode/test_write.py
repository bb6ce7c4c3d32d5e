"""Encoders that the parameters define, through the stage: each by itself, whatever becomes of the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import featured
import networks
import numpy as np
import pyarrow.parquet as pq
import pytest
from coloured import Item, catalogue
from elsewhere import spread_without
from hub import hub as serving
from pipeline.features.sets import FeatureSets

from alignrec.commands.params import Params
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.release import card, statement

TEXTS = ["red apple", "", "a blue car", "", "green tree", "bus", "red car"]
COLOURS = ["red", "green", None, None, "blue", None, "red"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of networks."""
    base = tmp_path_factory.mktemp("models")
    for name in ("bert", "dinov2", "siglip"):
        getattr(networks, name)(base / name)
    return base


def write(root: Path, *texts: str) -> Path:
    """Write the inputs of the stage; fewer texts leave out the last items."""
    catalogue(root, [Item(f"A{i}", *both) for i, both in enumerate(zip(texts, COLOURS, strict=False))])
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "outputs", *TEXTS)


def params(models: Path, *names: str, **changed: dict[str, Any]) -> Params:
    """Return parameters that run the named of `text`, `image`, `two` and `both`, and of what `changed` adds."""
    defined = {
        "text": {"kind": "huggingface", "model": str(models / "bert"), "prompt": "item: ", "dim": 16},
        "image": {"kind": "huggingface", "model": str(models / "dinov2")},
        "two": {"kind": "huggingface", "model": str(models / "siglip"), "join": "concat"},
        "both": {"kind": "concat", "of": ["text", "image"]},
    }
    encode = {"encoders": list(names), "controls": ["shuffled"], "shard_rows": 3, "batch_size": 2}
    source = {"kind": "mmrec", "interactions": "x.inter"}
    return Params.model_validate(
        {"datasets": ["shop"], "sources": {"shop": source}, "encode": encode, "encoders": defined | changed}
    )


def run(root: Path, given: Params) -> dict[str, bytes]:
    return featured.stage(Layout(root, "shop"), given)


def made(root: Path) -> dict[str, bytes]:
    return featured.files(Layout(root, "shop", ("encode", "")))


def vectors(root: Path, name: str) -> np.ndarray:
    return featured.vectors(Layout(root, "shop"), name)


def times(root: Path) -> dict[str, int]:
    layout = Layout(root, "shop", ("encode", ""))
    return {n: io.shard(layout.features(n), "features", 0).stat().st_mtime_ns for n in layout.feature_sets()}


# --- what changes


def written(root: Path) -> dict[tuple[str, str], int]:
    """Return feature set and shard -> when it was written."""
    layout = Layout(root, "shop")
    return {
        (name, path.name): path.stat().st_mtime_ns
        for name in layout.feature_sets()
        for path in io.shards(layout.features(name), "features")
    }


SETS = ["text", "image", "two", "both", "beside"]
BESIDE = {"beside": {"kind": "concat", "of": ["text", "two-again"]}}
AGAIN = {"two-again": {"kind": "huggingface", "join": "mean"}}
REWORDED = [*TEXTS[:4], "a green bush", *TEXTS[5:]]


@pytest.fixture
def shown(root: Path, models: Path) -> Params:
    """All kinds of sets, of parts that are written and that are not."""
    AGAIN["two-again"]["model"] = str(models / "siglip")
    return params(models, *SETS, **BESIDE, **AGAIN)


def test_a_changed_text_makes_its_own_shards_again_and_they_are_those_of_a_new_run(
    root: Path, tmp_path: Path, shown: Params
) -> None:
    fresh = tmp_path / "fresh"
    shutil.copytree(root, fresh)
    run(root, shown)
    before = written(root)
    for one in (root, fresh):
        write(one, *REWORDED)
    assert run(root, shown) == run(fresh, shown)
    after = written(root)
    again = {key for key in after if after[key] != before[key]}
    hit = {(name, "features-00001.parquet") for name in ("text", "two", "both", "beside")}
    assert again == hit | {key for key in after if key[0] == "shuffled"}


# --- what fails


def test_an_encoder_that_fails_is_named_and_the_others_are_there(root: Path, models: Path) -> None:
    wrong = {"kind": "huggingface", "model": "./nowhere"}
    with pytest.raises(UserError) as e:
        run(root, params(models, "text", "bad", "image", bad=wrong))
    assert str(e.value) == (
        "encode shop: 1 of 4 feature sets failed: bad: 'encoders.bad.model': no folder './nowhere'; "
        "give a folder, or owner/name on the Hugging Face Hub"
    )
    before, stamps = made(root), times(root)
    assert before.keys() == {"text", "image", "shuffled"}
    assert not Layout(root, "shop").run_record("encode").exists()
    right = {"kind": "huggingface", "model": str(models / "siglip")}
    after = run(root, params(models, "text", "bad", "image", bad=right))
    assert after.keys() == {*before, "bad"}
    assert {name: times(root)[name] for name in stamps} == stamps  # nothing was made again


# --- concat


@pytest.mark.parametrize("listed", [("both", "image", "text"), ("both",), ("image", "both")])
def test_parts_stand_side_by_side_each_of_length_one(root: Path, models: Path, listed: tuple[str, ...]) -> None:
    run(root, params(models, *listed))
    assert Layout(root, "shop").feature_sets() == sorted({*listed, "shuffled"})
    joined = vectors(root, "both")
    table = io.read_features(Layout(root, "shop").features("both"))
    run(root, params(models, "text", "image"))
    parts = [vectors(root, name) for name in ("text", "image")]
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in parts]
    np.testing.assert_allclose(joined, np.hstack(units), atol=1e-6)
    assert table["has_text"].to_pylist() == [bool(t) for t in TEXTS]
    assert table["has_image"].to_pylist() == [c is not None for c in COLOURS]


# --- what is kept and what is about


def test_features_and_record_tell_of_the_network_and_of_no_path(root: Path, models: Path) -> None:
    run(root, params(models, "text", "image", "both", "minilm"))
    layout = Layout(root, "shop")
    notes = io.read_json(layout.run_record("encode"))["notes"]
    about = notes["text"]["encoder"]
    source = FeatureSets(layout, params(models).encode, params(models).encoders)["text"].context.origin
    assert source is not None
    assert about == {
        "kind": "huggingface", "dim": 16, "model": "bert", "revision": source.revision, "library": source.library,
        "modalities": ["text"], "prompt": "item: ",
    }  # fmt: skip
    assert [part["name"] for part in notes["both"]["encoder"]["parts"]] == ["text", "image"]
    assert notes["both"]["encoder"]["dim"] == 48
    assert "encoder" not in notes["minilm"]
    paths = {name: io.shards(layout.features(name), "features") for name in ("text", "both", "minilm")}
    for shards in paths.values():
        for path in shards:
            assert str(models).encode() not in path.read_bytes()
    record = json.loads(pq.read_schema(paths["text"][0]).metadata[b"alignrec"])
    assert record["encoder"] == about
    read = statement.networks(paths)
    assert read.keys() == {"text", "both"}
    assert read["text"].model_dump() == about | {"name": "", "parts": [], "map": ""}
    rows = card.network_rows(read)
    assert [row[0] for row in rows] == ["text", "both", "both: text", "both: image"]
    assert rows[0][2:5] == ["bert", source.revision, source.library]


# --- elsewhere


@pytest.fixture
def moving(root: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A repository of the Hub whose branch moves on."""
    with serving(tmp_path / "cache", monkeypatch) as hub:
        yield hub


def there(given: Params) -> Params:
    return given.model_copy(update={"encode": given.encode.model_copy(update={"engine": "ray"})})


def test_machines_that_see_no_folder_of_this_one_make_the_same_files(
    root: Path, models: Path, moving: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.publish("someone/net", models / "bert")
    local = shutil.copytree(models / "siglip", tmp_path / "siglip")
    more = {
        "hub": {"kind": "huggingface", "model": "someone/net"},
        "two": {"kind": "huggingface", "model": str(local), "join": "mean"},
        "pair": {"kind": "concat", "of": ["text", "hub"]},
    }
    given = params(models, "text", "both", "two", "two-image-masked", "tfidf", "pair", **more)
    here = run(root, given)
    shutil.rmtree(root / "encode")

    jobs = spread_without(monkeypatch, root, local, tmp_path / "cache")
    assert run(root, there(given)) == here
    networks = 1 + 1 + 1 + 1 + 1 + 1  # text, image of both, two, two without images, tfidf, hub of pair
    assert len(jobs) == networks * -(-len(TEXTS) // 3), "what is made of whole sets is made here"
