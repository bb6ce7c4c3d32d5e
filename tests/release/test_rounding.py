"""`publish.vectors`: releases with vectors in float16, which are read as float32."""

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
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.vectors.base import match_file

SMALLEST_COSINE = 0.999999


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
    for stored in ("float32", "float16"):
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
    assert "vectors" not in manifest.made_by["publish"].params
    assert Release(release_of["float16"]).manifest.made_by["publish"].params["vectors"] == "float16"


def test_a_file_documents_its_numbers(release_of: dict[str, Path]) -> None:
    verify(release_of["float16"])
    schema = pq.read_schema(release_of["float16"] / "features/g/features-00000.parquet")
    assert schema.field("vector").type.value_type == pa.float16()
    assert schema.field("vector").metadata[b"doc"].startswith(b"float16")
    assert "stored in float16" in (release_of["float16"] / "README.md").read_text()


@pytest.mark.parametrize("name", ["f", "g"])
def test_vectors_are_read_as_float32(release_of: dict[str, Path], name: str) -> None:
    exact = matrix(release_of["float32"], name)
    loaded = alignrec.load(release_of["float16"]).features[name]
    assert loaded.dtype == np.float32
    cosines = paired_cosines(exact, np.asarray(loaded))
    assert SMALLEST_COSINE < cosines.min() < 1 - 1e-9
    assert np.array_equal(exact.any(axis=1), np.asarray(loaded).any(axis=1))
    np.testing.assert_array_equal(
        np.concatenate([*io.read_vectors(release_of["float16"] / "features" / name, 7)]), loaded
    )

    theirs = match_file(release_of["float16"] / "features" / name, [f"i{i}" for i in range(tastes.ITEMS)])
    np.testing.assert_array_equal(theirs.rows(0, tastes.ITEMS), loaded)


def test_commands_read_rounded_vectors(release_of: dict[str, Path], tmp_path: Path) -> None:
    release = release_of["float16"]
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


def test_what_float16_cannot_hold_is_refused(made: Layout) -> None:
    vectors = io.matrix(io.read_features(made.features("f"))["vector"])
    for factor, fault in ((1e6, "float16 holds at most 65,504"), (1e-9, "so small that it is zero in float16")):
        table = pa.table({"vector": io.vectors(vectors * factor)})
        with pytest.raises(ValueError, match=fault):
            io.round_vectors(table)


def test_another_type_is_refused(release_of: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "release"
    command("fetch", release_of["float16"], "--to", copy)
    path = copy / "features/f/features-00000.parquet"
    table = pq.read_table(path, partitioning=None)
    rounded = pa.array(matrix(copy, "f").astype(np.int8).reshape(-1))
    kind = pa.list_(pa.field("element", pa.int8(), nullable=False), tastes.WIDTH)
    place = table.column_names.index("vector")
    vectors = pa.FixedSizeListArray.from_arrays(rounded, type=kind)
    pq.write_table(table.set_column(place, "vector", vectors), path)
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


def test_new_and_recomputed_items_fit_a_release_in_float16(tmp_path: Path) -> None:
    release = encoded(tmp_path / "release", ITEMS, vectors="float16")
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
    assert paired_cosines(new, matrix(release, "tfidf")).min() > SMALLEST_COSINE
