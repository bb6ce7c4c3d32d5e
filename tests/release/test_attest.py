"""`alignrec attest`: rows of a release recomputed from their inputs; a changed text, image or vector is noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
import toy
from PIL import Image
from typer.testing import CliRunner

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.release import attest, manifest
from stages.cli import app


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return releases.outputs(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(made.root, tmp_path / "outputs")
    return Layout(tmp_path / "outputs", "shop")


def command(layout: Layout, *args: object) -> tuple[int, list[str]]:
    given = ["attest", layout.release, "--root", layout.root, *args]
    result = CliRunner().invoke(app, [str(arg) for arg in given])
    return result.exit_code, result.output.splitlines()


def rewrite(path: Path, column: str, change: Callable[[list], list]) -> None:
    table = pq.read_table(path, partitioning=None)
    at = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), table.schema.field(column).type)
    pq.write_table(table.set_column(at, table.schema.field(column), values), path)


def relisted(release: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as somebody would who wants to deceive."""
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    at = next(i for i, f in enumerate(content["files"]) if f["path"] == name)
    content["files"][at] = manifest.describe(release, release / name, content["files"][at]["table"]).model_dump()
    path.write_text(json.dumps(manifest.with_digest(content)))


def test_a_true_release_is_attested_by_its_dataset(made: Layout) -> None:
    code, lines = command(made, "--data", "shop")
    assert code == 0
    assert len(lines) == toy.ITEMS + 1
    assert lines[0] == (
        "A0: text agrees, image agrees, beit3 agrees (cosine 1.00000), beit3-image-masked agrees (cosine 1.00000), "
        "beit3-text-masked agrees (cosine 1.00000)"
    )
    assert lines[-1] == (f"{made.release}: attested; text, image and vector of 6 rows agree, lowest cosine 1.00000")


def test_a_changed_text_is_noticed(layout: Layout) -> None:
    rewrite(layout.items, "text", lambda texts: ["a wholly other text", *texts[1:]])
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert lines[0].startswith("A0: text DIFFERS, image agrees, beit3 DIFFERS")
    assert "beit3-text-masked agrees" in lines[0]
    assert "NOT attested; 1 of 6 rows differ (text of 1, vector of 1)" in lines[-1]


def test_a_changed_image_is_noticed(layout: Layout) -> None:
    rewrite(io.shard(layout.images, "images", 0), "image", lambda images: [toy.jpeg((1, 2, 3)), *images[1:]])
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert lines[0].startswith("A0: text agrees, image DIFFERS")
    assert "image of 1" in lines[-1]


def test_a_vector_that_the_encoder_does_not_make_is_noticed(layout: Layout) -> None:
    name = "features/beit3/features-00000.parquet"
    rewrite(layout.release / name, "vector", lambda vectors: [vectors[1], vectors[0], *vectors[2:]])
    relisted(layout.release, name)
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert ["beit3 DIFFERS" in line for line in lines[:-1]] == [True, True, False, False, False, False]
    assert lines[-1].split("lowest cosine")[0].endswith("NOT attested; 2 of 6 rows differ (vector of 2), ")


def test_a_sample_is_the_same_each_time_and_as_large_as_asked(made: Layout) -> None:
    first = command(made, "--data", "shop", "--sample", 3, "--encoder", "beit3")
    assert first[0] == 0
    assert len(first[1]) == 3 + 1
    assert first == command(made, "--data", "shop", "--sample", 3, "--encoder", "beit3")


def test_files_attest_too_from_stored_or_original_images(made: Layout, tmp_path: Path) -> None:
    images = io.read_table(io.shard(made.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    items = io.read_table(made.items, schemas.ITEMS).to_pylist()
    (tmp_path / "images").mkdir()
    for item, image in zip(items, images, strict=True):
        if image:
            (tmp_path / "images" / f"{item['asin']}.jpg").write_bytes(image)
    rows = [{"asin": item["asin"], "text": item["text"]} for item in reversed(items[:4])]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"asin": "new"}]))
    given = ("--data", tmp_path / "items.jsonl", "--images", tmp_path / "images")
    code, lines = command(made, *given, "--json", tmp_path / "attested.json")
    assert code == 0
    assert [line.split(":")[0] for line in lines[:4]] == ["A0", "A1", "A2", "A3"]
    assert lines[4] == "the data has 4 of the release's 6 items"
    attested = json.loads((tmp_path / "attested.json").read_text())
    assert (attested["agrees"], attested["covered"], len(attested["rows"])) == (True, 4, 4)
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "images/A1.jpg")
    assert command(made, *given)[0] == 1


def test_originals_are_shrunk_as_the_pipeline_shrinks_them(tmp_path: Path) -> None:
    """The stage `images` on a large original, and the original itself, attest the same release."""
    from pipeline.images.decode import normalise

    original = tmp_path / "images/A0.png"
    original.parent.mkdir()
    Image.effect_noise((600, 500), 60).convert("RGB").save(original)
    layout = toy.outputs(tmp_path / "outputs")
    stored = normalise(original.read_bytes(), 256, 90, 10**8).image
    path = io.shard(layout.images, "images", 0)
    table = io.read_table(path, schemas.IMAGES)
    changed = pa.array([stored, *table["image"].to_pylist()[1:]], pa.binary())
    io.write_table(table.set_column(5, table.schema.field("image"), changed), path, schemas.IMAGES)
    releases.released(layout)
    (tmp_path / "items.jsonl").write_text(json.dumps({"asin": "A0", "text": toy.TITLES[0]}))
    code, lines = command(layout, "--data", tmp_path / "items.jsonl", "--images", original.parent)
    assert (code, lines[0].split(", beit3 ")[0]) == (0, "A0: text agrees, image agrees")


def test_feature_sets_without_an_encoder_are_named(tmp_path: Path) -> None:
    layout = releases.outputs(
        tmp_path, releases.params(publish={"features": ["beit3", "random"]}, encode={"controls": ["random"]})
    )
    code, lines = command(layout, "--data", "shop")
    assert code == 0
    assert lines[-2] == "not attested, their encoder is not in the release: random"


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("--data", "shp"), "'shp': neither a file of items nor a dataset with items under"),
        (("--data", "../shop"), "'../shop': neither a file of items nor a dataset"),
        (("--data", "shop", "--encoder", "biet3"), "no encoder 'biet3' in this release; it has beit3"),
    ],
)
def test_a_mistake_is_one_line(made: Layout, args: tuple[str, ...], fault: str) -> None:
    code, lines = command(made, *args)
    assert code == 1
    assert len(lines) == 1
    assert fault in lines[0]


def test_images_of_other_items_are_refused(layout: Layout) -> None:
    rewrite(io.shard(layout.images, "images", 0), "asin", lambda asins: asins[::-1])
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert "images of other items; run `alignrec images shop`" in lines[0]


def test_data_of_another_shop_attests_nothing(made: Layout, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"asin": "elsewhere", "text": "x"}\n')
    code, lines = command(made, "--data", tmp_path / "items.jsonl")
    assert code == 1
    assert "has none of the items of" in lines[0]


def test_a_release_without_encoders_cannot_be_attested(tmp_path: Path) -> None:
    layout = releases.outputs(tmp_path)
    shutil.rmtree(layout.release / "encoders")
    path = layout.release / "manifest.json"
    content = json.loads(path.read_text())
    content["files"] = [f for f in content["files"] if not f["path"].startswith("encoders/")]
    path.write_text(json.dumps(manifest.with_digest(content)))
    with pytest.raises(UserError, match="carries no encoder; publish it again"):
        attest.attest(layout.release, attest.Dataset(layout), 5)
