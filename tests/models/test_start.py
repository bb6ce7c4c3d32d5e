"""`train.start`: training goes on from the vectors of an earlier release."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shop import releases, tastes, toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.training.inputs import read_inputs
from alignrec.pipeline.models.training.start import Start, match_start
from alignrec.pipeline.release import manifest
from alignrec.pipeline.release.start import read_start
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout

TRAIN = {"features": "f", "dim": 8, "batch_size": 64, "epochs": 4, "lr": 0.01, "checkpoint_every": 1}


def settings(start: Path | None = None, **train: Any) -> Params:
    given = {} if start is None else {"start": str(start)}
    return toy.params(train=TRAIN | given | train)


def trained(root: Path, params: Params) -> Layout:
    layout = tastes.outputs(root)
    toy.run("train", params, root)
    return layout


def files(layout: Layout) -> dict[str, bytes]:
    made = toy.contents(layout.out("train"))
    return {path: data for path, data in made.items() if not path.endswith("cost.json")}


def history(layout: Layout) -> list[dict[str, float]]:
    return list(io.read_json(layout.history("train")))


def notes(layout: Layout) -> dict[str, Any]:
    return dict(io.read_json(layout.run_record("train"))["notes"])


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of a recommender that was trained for twenty epochs."""
    folder = tmp_path_factory.mktemp("yesterday")
    layout = trained(folder / "outputs", settings(epochs=20))
    set_files = {"f": io.shard(layout.features("f"), "features", 0)}
    tastes.write_release(folder / "release", layout, set_files, interactions=True)
    return folder / "release"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return trained(tmp_path_factory.mktemp("fresh"), settings())


@pytest.fixture(scope="module")
def started(yesterday: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return trained(tmp_path_factory.mktemp("started"), settings(yesterday))


def vectors(*rows: list[float]) -> pa.ChunkedArray:
    return pa.chunked_array([io.vectors(np.array(rows, np.float32))])


def test_each_user_and_item_starts_from_a_vector_of_the_release(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "shop")
    # user 0 bought items 0 and 1 in train, user 1 item 1, user 2 nothing
    tastes.write_catalogue(layout, [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 1), (2, 0, 2)], 3, 4)
    items, neighbours = [0, 1, 2, 2, 2, 3], [0, 1, 2, 1, 3, 3]
    rank = [0, 0, 0, 1, 2, 0]
    edges = toy.filled(schemas.EDGES, item_id=items, neighbour_id=neighbours, rank=rank, cosine=[1.0] * 6)
    data = read_inputs(layout, None)
    known = pa.table({"asin": ["i1", "gone", "i0"], "vector": vectors([4, 0], [9, 9], [0, 2])})
    users = pa.table({"user": ["u1", "left"], "vector": vectors([5, 5], [7, 7])})
    pairs = pa.table({"user": ["u1", "u2", "left"], "asin": ["i2", "i3", "i0"]})

    matched = match_start(Start("", known, users, pairs), layout, data.split, edges)
    nothing = [np.nan, np.nan]
    # item 2 is next to item 1; item 3 has no neighbour but itself
    np.testing.assert_array_equal(matched.item, np.array([[0, 2], [4, 0], [4, 0], nothing], np.float32))
    np.testing.assert_array_equal(matched.user, np.array([[2, 1], [5, 5], nothing], np.float32))
    found = {"items": 2, "items_by_neighbours": 1, "users": 1, "users_by_items": 1}
    assert matched.facts == found | {"held_out": 1}, "u1 has i2 in valid, and the release was trained on it"

    unnamed = match_start(Start("", known, None, None), layout, data.split, edges)
    np.testing.assert_array_equal(unnamed.user, np.array([[2, 1], [4, 0], nothing], np.float32))
    assert unnamed.facts == found | {"users": 0, "users_by_items": 2}


def test_it_begins_where_yesterday_ended(yesterday: Path, fresh: Layout, started: Layout) -> None:
    first, random, last = history(started)[0], history(fresh)[0], history(fresh)[-1]
    assert first["valid_recall@20"] >= last["valid_recall@20"] > random["valid_recall@20"]
    assert first["bpr"] < random["bpr"]

    digest = io.sha256(yesterday / manifest.MANIFEST_FILE)
    expected = {"items": 50, "items_by_neighbours": 0, "users": 60, "users_by_items": 0, "held_out": 0}
    assert notes(started)["start"] == {"manifest": digest} | expected
    spaces = [io.fingerprint_of(io.record(layout.item_embeddings)) for layout in (fresh, started)]
    assert spaces[1] == spaces[0] | {"start": digest}


def test_the_place_of_the_release_does_not_matter_and_null_is_no_start(
    yesterday: Path, fresh: Layout, started: Layout, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(yesterday, tmp_path / "moved"))
    assert files(trained(tmp_path / "elsewhere", settings(moved))) == files(started)
    assert files(trained(tmp_path / "null", toy.params(train=TRAIN | {"start": None}))) == files(fresh)


def test_killed_and_resumed_is_as_if_undisturbed(
    yesterday: Path, started: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoint.save
    saved = []

    def killed(self: Checkpoint, *state: Any) -> None:
        save(self, *state)
        saved.append(self.path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", settings(yesterday))
    monkeypatch.setattr(Checkpoint, "save", save)
    toy.run("train", settings(yesterday), tmp_path / "killed")
    assert files(Layout(tmp_path / "killed", "shop")) == files(started)


def test_an_unfinished_run_begins_again_from_another_release(
    yesterday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(yesterday, tmp_path / "other"))
    releases.edit(other, lambda content: content.update(version="0.2.0"))
    whole = trained(tmp_path / "whole", settings(other))
    save = Checkpoint.save

    def killed(self: Checkpoint, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", settings(yesterday))
    monkeypatch.setattr(Checkpoint, "save", save)
    toy.run("train", settings(other), tmp_path / "killed")
    assert files(Layout(tmp_path / "killed", "shop")) == files(whole)


def flip_byte(release: Path) -> None:
    path = release / "embeddings" / "items.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


REFUSED = {
    "damaged": (flip_byte, {}, r"embeddings/items.parquet: changed, its sha256 is another"),
    "absent": (shutil.rmtree, {}, r"manifest\.json"),
    "of-another-width": (
        lambda release: None,
        {"dim": 16},
        r"'train\.start': .* has vectors of 8 numbers, and train\.dim is 16; give 'train\.dim: 8'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_release_that_does_not_fit_is_refused_in_a_line(yesterday: Path, tmp_path: Path, what: str) -> None:
    change, train, message = REFUSED[what]
    release = Path(shutil.copytree(yesterday, tmp_path / "release"))
    change(release)
    with pytest.raises(UserError, match=message) as refused:
        trained(tmp_path / "outputs", settings(release, **train))
    assert "\n" not in str(refused.value)
    assert not Layout(tmp_path / "outputs", "shop").out("train").exists()


def test_a_release_without_vectors_is_refused(tmp_path: Path) -> None:
    layout = releases.outputs(tmp_path)
    shutil.rmtree(layout.out("train"), ignore_errors=True)
    releases.published(layout, releases.params())
    with pytest.raises(UserError, match="this release has no embeddings of a trained recommender"):
        read_start(layout.release, 8)


def test_a_release_that_was_trained_on_todays_valid_pairs_is_reported(
    yesterday: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = tastes.outputs(tmp_path)
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
    part = rows["split"].to_numpy().copy()
    train, valid = (np.flatnonzero(part == kind) for kind in (schemas.TRAIN, schemas.VALID))
    part[train[::8]] = schemas.VALID  # another draw of the split
    part[valid] = schemas.TRAIN
    place = rows.schema.get_field_index("split")
    redrawn = rows.set_column(place, rows.schema.field(place), pa.array(part, pa.int8()))
    io.write_table(redrawn, layout.interactions, schemas.INTERACTIONS)

    toy.run("train", settings(yesterday), tmp_path)
    assert notes(layout)["start"]["held_out"] == len(train[::8])
    said = f"train.start was trained on {len(train[::8])} of {len(train[::8]) + 60} valid and test interactions"
    assert said in capsys.readouterr().err


def test_cells_of_the_benchmark_have_the_settings_but_not_the_start(yesterday: Path) -> None:
    started, plain = (model_settings(settings(start), RELEASED) for start in (yesterday, None))
    assert started == plain
