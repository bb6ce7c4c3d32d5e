"""`publish.vectors`: releases with vectors in float16 or int8, which are read as float32."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec as command
from shop import featured, releases, tastes, toy

import alignrec
from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.release.rounding import measure_loss
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.vectors.base import match_file

TYPES = ["float16", "int8"]
SMALLEST_COSINE = {"float16": 0.999999, "int8": 0.9999}


def settings(stored: str) -> Parameters:
    publish = {"features": ["f", "g"], "vectors": stored, "interactions": True}
    return toy.params(train={"features": "f"}, publish=publish)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Outputs with two judged feature sets, the second of two files and with a row of zeros."""
    layout = tastes.outputs(tmp_path_factory.mktemp("made"))
    asin = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    toy.write_items(layout, toy.item_table(tastes.TITLES, asin=asin))
    io.write_json(layout.sources, [])
    vectors = 300 * tastes.content(seed=1)
    vectors[3] = 0
    tastes.write_set(layout, "g", vectors)
    table = io.read_features(layout.features("g"))
    toy.write_set(layout.features("g"), table, rows=30, record=toy.record("encode"))
    for name in ("f", "g"):
        facts = {"encoder": name, "reads": ["text"], "settings": {}, "portable": False}
        images = {"batch_size": 1, "image_size": 1, "image_quality": 1}
        io.write_json(layout.features(name) / "set.json", facts | images)
    toy.write_embeddings(layout)
    toy.run("probe", settings("float32"), layout.root)
    return layout


@pytest.fixture(scope="module")
def release_of(made: Layout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for stored in ("float32", *TYPES):
        folder = tmp_path_factory.mktemp(stored) / "release"
        releases.published(made, settings(stored)).release.rename(folder)
        folders[stored] = folder
    return folders


def matrix(release: Path, name: str) -> np.ndarray:
    return io.matrix(Release(release).features(name)["vector"])


def test_float32_is_copied_byte_for_byte(made: Layout, release_of: dict[str, Path]) -> None:
    for path in made.features("g").glob("*.parquet"):
        assert (release_of["float32"] / "features/g" / path.name).read_bytes() == path.read_bytes()
    manifest = Release(release_of["float32"]).manifest
    assert manifest.rounding is None
    assert "vectors" not in manifest.made_by["publish"].params
    assert Release(release_of["int8"]).manifest.made_by["publish"].params["vectors"] == "int8"


@pytest.mark.parametrize("stored", TYPES)
def test_a_file_documents_its_numbers(release_of: dict[str, Path], stored: str) -> None:
    verify(release_of[stored])
    schema = pq.read_schema(release_of[stored] / "features/g/features-00000.parquet")
    assert schema.field("vector").type.value_type == schemas.VECTOR_TYPES[stored]
    assert schema.field("vector").metadata[b"doc"].startswith(stored.encode())
    assert ("scale" in schema.names) == (stored == "int8")


def test_a_reader_without_alignrec_multiplies_by_the_scale(release_of: dict[str, Path]) -> None:
    table = pq.read_table(release_of["int8"] / "features/f/features-00000.parquet")
    rows = np.array(table["vector"].to_pylist())
    assert np.abs(rows).max(axis=1).tolist() == [127] * tastes.ITEMS
    decoded = rows * table["scale"].to_numpy()[:, None]
    np.testing.assert_allclose(decoded, matrix(release_of["int8"], "f"), rtol=1e-6)


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("name", ["f", "g"])
def test_vectors_are_read_as_float32(release_of: dict[str, Path], stored: str, name: str) -> None:
    exact = matrix(release_of["float32"], name)
    loaded = alignrec.load(release_of[stored]).features[name]
    assert loaded.dtype == np.float32
    cosines = paired_cosines(exact, np.asarray(loaded))
    assert SMALLEST_COSINE[stored] < cosines.min() < 1 - 1e-9
    assert np.array_equal(exact.any(axis=1), np.asarray(loaded).any(axis=1))
    np.testing.assert_array_equal(np.concatenate([*io.read_vectors(release_of[stored] / "features" / name, 7)]), loaded)

    theirs = match_file(release_of[stored] / "features" / name, [f"i{i}" for i in range(tastes.ITEMS)])
    np.testing.assert_array_equal(theirs.rows(0, tastes.ITEMS), loaded)


@pytest.mark.parametrize("stored", TYPES)
def test_commands_read_rounded_vectors(release_of: dict[str, Path], stored: str, tmp_path: Path) -> None:
    release = release_of[stored]
    assert command("export", release, "--format", "npy", "--features", "f", "--to", tmp_path / "npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "npy/f.npy"), matrix(release, "f"))
    compared = command("compare", release, "f", release_of["float32"] / "features/f", "--to", tmp_path / "compared")
    assert compared.exit_code == 0, compared.output

    result = command("diff", release_of["float32"], release, "--json", tmp_path / "diff.json")
    assert result.exit_code == 0, result.output
    difference = json.loads((tmp_path / "diff.json").read_text())
    assert difference["bump"] == "major"  # readers of the files see another type
    assert difference["features"]["f"]["same_space"]
    assert difference["features"]["f"]["overlap"] > 0.9


@pytest.mark.parametrize("stored", TYPES)
def test_the_loss_is_what_the_probes_of_the_release_give(
    made: Layout, release_of: dict[str, Path], stored: str, tmp_path: Path
) -> None:
    release = release_of[stored]
    rounding = Release(release).manifest.rounding
    assert rounding is not None
    assert command("compare", release, *rounding.sets, "--to", tmp_path / "compared").exit_code == 0
    before = json.loads(made.probes.read_text())
    after = json.loads((tmp_path / "compared/compare.json").read_text())["probes"]
    assert rounding.stored == stored
    card = (release / "README.md").read_text()
    for name, loss in rounding.sets.items():
        assert {"item_cf", "content_knn"} <= loss.probes.keys()
        for probe, probed in loss.probes.items():
            assert probed.before == before[probe][name][probed.figure]
            assert probed.after == after[probe][name][probed.figure]
            assert f"{probed.before:.4f} → {probed.after:.4f}" in card
        exact, rounded = matrix(release_of["float32"], name), matrix(release, name)
        assert loss.cosine == pytest.approx(paired_cosines(exact, rounded).min(), abs=1e-6)
        assert loss.overlap is not None
        assert 0.9 < loss.overlap <= 1
    assert f"fixed-size lists\nof {stored}" in card


@pytest.mark.parametrize(("items", "overlap"), [(2, None), (3, 1.0)])
def test_neighbours_are_compared_from_three_items_on(items: int, overlap: float | None) -> None:
    vectors = np.random.default_rng(0).normal(size=(items, 4)).astype(np.float32)
    assert measure_loss(vectors, vectors).overlap == overlap


def test_a_crude_type_loses_more(release_of: dict[str, Path]) -> None:
    lowest = [Release(release_of[stored]).manifest.rounding.sets["f"].cosine for stored in TYPES]  # type: ignore[union-attr]
    assert lowest[0] > lowest[1]


def test_what_float16_cannot_hold_is_refused(made: Layout) -> None:
    vectors = io.matrix(io.read_features(made.features("f"))["vector"])
    for factor, fault in ((1e6, "float16 holds at most 65,504"), (1e-9, "so small that it is zero in float16")):
        table = pa.table({"vector": io.vectors(vectors * factor)})
        with pytest.raises(ValueError, match=fault):
            io.round_vectors(table, "float16")
        decoded = io.matrix(io.decode_vectors(io.round_vectors(table, "int8"))["vector"])
        assert paired_cosines(vectors, decoded).min() > SMALLEST_COSINE["int8"]


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("scale", float("nan"), "not finite"),
        ("scale", -1.0, "below 0"),
        ("scale", 3e38, "above"),
        ("scale", 0.0, "zero"),
    ],
)
def test_a_hostile_scale_is_refused(
    release_of: dict[str, Path], tmp_path: Path, column: str, value: float, fault: str
) -> None:
    copy = tmp_path / "release"
    command("fetch", release_of["int8"], "--to", copy)
    path = copy / "features/f/features-00000.parquet"
    releases.rewrite(path, column, lambda rows: [value] * len(rows))
    releases.relist(copy, "features/f/features-00000.parquet")
    with pytest.raises(UserError, match=fault):
        verify(copy)


def test_int8_without_its_scale_is_refused(release_of: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "release"
    command("fetch", release_of["int8"], "--to", copy)
    path = copy / "features/f/features-00000.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["scale"]), path)
    releases.relist(copy, "features/f/features-00000.parquet")
    with pytest.raises(UserError, match=r"column 'vector' is fixed_size_list<element: int8"):
        verify(copy)


# --- with an encoder

COLOURS = ("red", "green", "blue", "grey")
TEXTS = [f"{colour} {thing}" for colour in COLOURS for thing in ("lamp", "chair", "table", "sofa", "shelf")]
ITEMS = [featured.Item(f"A{number}", thing, None) for number, thing in enumerate(TEXTS)]


def encoded(root: Path, items: list[featured.Item], **publish: object) -> Path:
    """Publish a catalogue whose set `tfidf` can encode new items."""
    layout = featured.catalogue(root, items)
    io.write_table(toy.filled(schemas.USERS, user_id=[0], user=["u"]), layout.users, schemas.USERS)
    io.write_table(schemas.INTERACTIONS.empty_table(), layout.interactions, schemas.INTERACTIONS)
    params = toy.params(
        encode={"encoders": ["tfidf"]},
        combine={"sets": {}, "controls": []},
        beit3={"sets": []},
        publish={"features": ["tfidf"], **publish},
    )
    featured.stage(layout, params)
    return releases.published(layout, params).release


def test_new_and_recomputed_items_fit_a_release_in_int8(tmp_path: Path) -> None:
    release = encoded(tmp_path / "release", ITEMS, vectors="int8")
    rows = "".join(json.dumps({"asin": item.asin, "text": item.text}) + "\n" for item in ITEMS)
    (tmp_path / "items.jsonl").write_text(rows)
    attested = command("verify", release, "--data", tmp_path / "items.jsonl")
    assert attested.exit_code == 0, attested.output
    assert float(attested.output.rsplit("lowest cosine ")[-1].split()[0]) > 1 - 1e-4

    to = tmp_path / "new"
    embedded = command("embed", tmp_path / "items.jsonl", "--release", release, "--encoder", "tfidf", "--to", to)
    assert embedded.exit_code == 0, embedded.output
    new = io.matrix(pq.read_table(to)["vector"])
    assert new.dtype == np.float32
    assert paired_cosines(new, matrix(release, "tfidf")).min() > SMALLEST_COSINE["int8"]
