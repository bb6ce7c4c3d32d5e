"""`publish.align`: tomorrow's release lands in the space of today's."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shop import featured, releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.kinds import linear
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.rotation import paired_cosines
from alignrec.pipeline.release import manifest
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.manifest import AlignedVectors, Alignment
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters

COLOURS = ["red", "green", "blue", "grey", "white", "black", "brown", "pink"]
THINGS = ["lamp", "chair", "table", "sofa", "shelf", "mirror", "carpet", "clock", "vase"]
MATERIALS = ["oak", "steel", "glass", "wool", "paper", "leather", "cork"]


def item(asin: str, number: int) -> featured.Item:
    rng = np.random.default_rng(number)
    words = [str(rng.choice(of)) for of in (COLOURS, THINGS, MATERIALS, MATERIALS, COLOURS)]
    return featured.Item(asin, " ".join(words), None)


TODAY = [item(f"A{number}", number) for number in range(120)]
# one text is another, one item left, twelve are new
NEW = [item(f"B{number}", 1000 + number) for number in range(12)]
TOMORROW = [*TODAY[:3], item("A3", 7777), *TODAY[5:], *NEW]


def settings(align: Path | None = None, width: int = 8) -> Parameters:
    return toy.params(
        encode={"encoders": ["tfidf"], "shard_rows": 50},
        combine={"sets": {"linear": {"width": width}}, "controls": []},
        beit3={"sets": []},
        publish={"features": ["linear", "tfidf"], "align": str(align) if align else None},
    )


def make(root: Path, items: Sequence[featured.Item], width: int = 8) -> Layout:
    """Encode a catalogue, and imitate a recommender whose vectors a retraining turns."""
    layout = featured.catalogue(root, list(items))
    io.write_table(toy.filled(schemas.USERS, user_id=[0], user=["u"]), layout.users, schemas.USERS)
    io.write_table(schemas.INTERACTIONS.empty_table(), layout.interactions, schemas.INTERACTIONS)
    featured.stage(layout, settings(width=width))

    turn, _ = np.linalg.qr(np.random.default_rng(len(items)).normal(size=(4, 4)))
    tastes = np.array([np.random.default_rng(sum(map(ord, one.text))).normal(size=4) for one in items])
    item_ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
    vectors = item_ids.append_column("vector", io.vectors(tastes @ turn))
    io.write_table(vectors, layout.item_embeddings, schemas.item_embeddings(4))
    users = io.read_table(layout.users, schemas.USERS)
    vectors = users.append_column("vector", io.vectors(tastes[:1] @ turn))
    io.write_table(vectors, layout.user_embeddings, schemas.user_embeddings(4))
    index = faiss.IndexFlatIP(4)
    index.add((tastes @ turn).astype(np.float32))
    faiss.write_index(index, str(layout.items_index))
    io.write_json(layout.index_facts, {"kind": "flat", "width": 4, "recall": 1.0, "k": 1, "users": 1})
    return layout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = make(tmp_path_factory.mktemp("today"), TODAY)
    return releases.published(layout, settings()).release


@pytest.fixture(scope="module")
def tomorrow(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make(tmp_path_factory.mktemp("tomorrow"), TOMORROW)


@pytest.fixture(scope="module")
def plain(tomorrow: Layout) -> Path:
    release = releases.published(tomorrow, settings()).release
    return shutil.move(release, tomorrow.root / "plain")


@pytest.fixture(scope="module")
def aligned(tomorrow: Layout, plain: Path, older: Path) -> Path:
    return releases.published(tomorrow, settings(older)).release


def vectors(release: Path, name: str) -> dict[str, np.ndarray]:
    table = Release(release).features(name)
    return dict(zip(table["asin"].to_pylist(), io.matrix(table["vector"]), strict=True))


def median_cosine(release: Path, other: Path, name: str) -> float:
    new, old = vectors(release, name), vectors(other, name)
    unchanged = [one.asin for one in TOMORROW if one.asin in old and one.asin != "A3"]
    pairs = [np.array([of[asin] for asin in unchanged]) for of in (new, old)]
    return float(np.median(paired_cosines(*pairs)))


def alignment(release: Path) -> Alignment:
    found = Release(release).manifest.alignment
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["linear", "tfidf"])
def test_yesterdays_vectors_are_near_and_no_product_changes(older: Path, plain: Path, aligned: Path, name: str) -> None:
    assert median_cosine(plain, older, name) < 0.8
    assert median_cosine(aligned, older, name) > 0.98
    before, after = (np.array([*vectors(release, name).values()]) for release in (plain, aligned))
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-5)


def test_manifest_and_card_say_what_was_turned(older: Path, plain: Path, aligned: Path) -> None:
    found = alignment(aligned)
    assert (found.dataset, found.version) == ("shop", "0.1.0")
    assert found.manifest == io.sha256(older / manifest.MANIFEST_FILE)
    assert sorted(found.sets) == ["linear", "tfidf"]
    for name, of in found.sets.items():
        assert of.items == len(TODAY) - 2
        assert of.cosine_before == pytest.approx(median_cosine(plain, older, name), abs=0.02)
        assert of.cosine_after == pytest.approx(median_cosine(aligned, older, name), abs=0.01)
        assert len(of.changed) == 10
        assert of.changed[0].asin == "A3"
        assert of.changed[0].cosine < of.changed[1].cosine
    card = (aligned / "README.md").read_text()
    assert f"| `linear` | {len(TODAY) - 2} |" in card
    assert "A3 (" in card
    assert Release(plain).manifest.alignment is None
    assert "Aligned" not in (plain / "README.md").read_text()


def test_new_items_land_in_the_aligned_space(aligned: Path) -> None:
    verify(aligned)
    loaded = ReleasedEncoders(aligned).load_all(["linear", "tfidf"])
    for name, encoder in loaded.items():
        encoded = encode_items(encoder, [one.text for one in NEW], [None] * len(NEW))
        released = vectors(aligned, name)
        np.testing.assert_allclose(encoded, [released[one.asin] for one in NEW], atol=1e-5)


def test_the_recommender_answers_alike_in_the_older_space(older: Path, plain: Path, aligned: Path) -> None:
    found = alignment(aligned).recommender
    assert found is not None
    assert found.cosine_before < 0.9
    assert found.cosine_after > 0.999
    scores = []
    for release in (plain, aligned):
        opened = Release(release)
        user, items = (io.matrix(opened.embeddings(what)["vector"]) for what in ("users", "items"))
        scores.append(items @ user[0])
        near, _ = faiss.read_index(str(release / "embeddings/items.faiss")).search(user, len(items))
        np.testing.assert_allclose(near[0], np.sort(scores[-1])[::-1], atol=1e-5)
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_aligning_again_writes_the_same_bytes(tomorrow: Layout, older: Path, aligned: Path) -> None:
    before = toy.contents(aligned)
    releases.published(tomorrow, settings(older))
    assert toy.contents(aligned) == before


@pytest.mark.parametrize("width", [5, 12])
def test_another_width_is_padded(older: Path, tmp_path: Path, width: int) -> None:
    layout = make(tmp_path, TOMORROW, width)
    releases.published(layout, settings(older, width))
    (warning,) = io.read_json(layout.run_record("publish"))["notes"]["warnings"]
    assert warning.startswith(f"linear has another form than in shop 0.1.0 (width 8 -> {width}, columns 8 -> {width}")
    assert warning.endswith("would keep that one")
    achieved: AlignedVectors = alignment(layout.release).sets["linear"]
    assert achieved.cosine_after > achieved.cosine_before + 0.1
    assert len(next(iter(vectors(layout.release, "linear").values()))) == max(width, 8)
    verify(layout.release)


def test_another_form_is_said_in_a_line(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linear, "CHOICES", linear.CHOICES[-1:])  # as validation may choose another day
    layout = make(tmp_path, TOMORROW)
    capsys.readouterr()
    releases.published(layout, settings(older))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "another form" in line)
    assert "linear has another form than in shop 0.1.0 (" in line
    assert "reduced True -> False" in line


def test_a_set_that_was_not_fitted_again_is_left_alone(older: Path, tmp_path: Path) -> None:
    layout = make(tmp_path, TODAY)
    releases.published(layout, settings(older))
    assert alignment(layout.release).sets == {}
    for path in older.glob("features/*/*.parquet"):
        assert (layout.release / path.relative_to(older)).read_bytes() == path.read_bytes()


def test_too_few_common_items_are_refused(older: Path, tmp_path: Path) -> None:
    layout = make(tmp_path, [*TODAY[:7], *NEW])
    with pytest.raises(UserError, match=r"'publish.align': 7 items have the same text and image in both"):
        releases.published(layout, settings(older))


def test_another_encoder_of_that_name_is_refused(tomorrow: Layout, older: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(older, other)
    for path in (other / "features/linear").glob("*.parquet"):
        record = io.record(path)
        record["fingerprint"]["kind"] = "concat"
        io.write_table(io.read_table(path, schemas.features(8)), path, schemas.features(8), record)
        releases.relist(other, path.relative_to(other).as_posix())
    releases.drop(other, "encoders/linear")
    with pytest.raises(UserError, match="linear is of another encoder there"):
        releases.published(tomorrow, settings(other))


def test_a_damaged_older_release_is_refused(tomorrow: Layout, older: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(older, other)
    path = next(other.glob("features/linear/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="release is damaged"):
        releases.published(tomorrow, settings(other))
    with pytest.raises(UserError, match="is this a release folder"):
        releases.published(tomorrow, settings(tmp_path))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda x: x * 2, "not the rotation of this set"),
        (lambda x: x[:, :-1], "not the rotation of this set"),
        (lambda x: x.astype(np.float64), "expected float32"),
    ],
)
def test_a_hostile_rotation_is_refused(
    aligned: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], fault: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(aligned, copy)
    path = copy / "encoders/linear/rotation.safetensors"
    save_file({"rotation": np.ascontiguousarray(change(load_file(path)["rotation"]))}, path)
    releases.relist(copy, "encoders/linear/rotation.safetensors")
    with pytest.raises(UserError, match=fault):
        verify(copy)
    with pytest.raises(UserError, match=fault):
        ReleasedEncoders(copy).load("linear")
