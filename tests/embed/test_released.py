"""`alignrec embed` encodes new items with the encoder of a release, without the project."""

import io as bytes_io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import releases
import toy
from PIL import Image
from typer.testing import CliRunner

from alignrec import schemas
from alignrec.commands.app import app
from alignrec.pipeline import io
from alignrec.pipeline.embed import command as embedding
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.encoder import image_sha256, text_sha256
from alignrec.pipeline.release.item_file import open_table


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release moved out of the outputs, which are deleted."""
    made = releases.with_encoders(tmp_path_factory.mktemp("made")).release
    return made.rename(tmp_path_factory.mktemp("alone") / "release")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four new items; one has an image by file name, one by its identifier."""
    rows = [
        {"asin": "n1", "title": "red ball", "image": "one.png"},
        {"item": "n2", "text": "a green tree"},
        {"id": 3, "title": "blue", "categories": ["cars"], "brand": "b"},
        {"asin": "n4"},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (300, 400), "red").save(images / "one.png")
    Image.new("RGB", (60, 50), "green").save(images / "n2.jpg")
    return tmp_path


def command(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output


def embedded(release: Path, folder: Path, to: str = "new", name: str = "beit3") -> tuple[int, str]:
    where = (
        folder / "items.jsonl",
        "--images",
        folder / "images",
        "--to",
        folder / to,
        "--root",
        folder.parent / "outputs",
    )
    return command("embed", "--release", release, "--encoder", name, *where)


def embed(release: Path, name: str, items: Path, images: Path | None, to: Path, rows: int = 16384) -> embedding.Summary:
    """Embed with a number of rows per file."""
    params = toy.params(datasets=["table"], sources={"table": {"kind": "sample"}}, encode={"shard_rows": rows})
    choice = embedding.choose_encoder(params, name, to.parent / "outputs", release)
    return embedding.embed(open_table(items, images), choice, to)


def test_items_of_the_release_get_their_released_vectors(release: Path, tmp_path: Path) -> None:
    items = io.read_table(release / "items.parquet", schemas.RELEASED_ITEMS).to_pylist()
    lines = [json.dumps({k: i[k] for k in ("asin", "text")}) + "\n" for i in items]
    (tmp_path / "items.jsonl").write_text("".join(lines))
    for name in releases.ENCODERS:
        summary = embed(release, name, tmp_path / "items.jsonl", None, tmp_path / name)
        assert summary[:2] == (toy.ITEMS, 0)
    vectors = io.read_features(release / "features/beit3-image-masked")["vector"]
    ours = pq.read_table(tmp_path / "beit3-image-masked")["vector"]
    np.testing.assert_allclose(io.matrix(ours), io.matrix(vectors), atol=1e-5)
    assert not io.matrix(pq.read_table(tmp_path / "beit3-text-masked")["vector"]).any()


def test_the_command_says_what_came_out_and_each_row_what_went_in(release: Path, folder: Path) -> None:
    code, output = embedded(release, folder)
    assert (code, output) == (0, f"embedded: {folder / 'new'}: 4 items, 2 with image, 3 with text\n")
    table = io.read_table(folder / "new/features-00000.parquet", schemas.embedded_items(64))
    assert table["asin"].to_pylist() == ["n1", "n2", "3", "n4"]
    assert table["has_image"].to_pylist() == [True, True, False, False]
    assert table["image_status"].to_pylist() == ["ok", "ok", "missing", "missing"]
    assert table["image_reason"].to_pylist()[2:] == ["no file 3.* among the images", "no file n4.* among the images"]
    texts = ("red ball.", "a green tree", "blue. b. cars.", "")
    assert table["input_text_sha256"].to_pylist() == [*map(text_sha256, texts)]
    hashes = table["input_image_sha256"].to_pylist()
    assert hashes[2:] == ["", ""]
    facts = json.loads((release / "encoders/beit3/encoder.json").read_text())
    stored = normalise_image(
        (folder / "images/one.png").read_bytes(), facts["image_size"], facts["image_quality"], 10**8
    ).image
    assert hashes[0] == image_sha256(stored)
    with Image.open(bytes_io.BytesIO(stored or b"")) as image:
        assert image.size == (256, 341)  # shrunk as the stage `images` does
    assert io.matrix(table["vector"])[:3].any(axis=1).all()
    assert not io.matrix(table["vector"])[3].any()
    assert not list(folder.glob(".*"))


def test_lines_that_cannot_be_used_are_stored_with_their_reasons(release: Path, folder: Path) -> None:
    with (folder / "items.jsonl").open("a") as f:
        f.write('\n{"asin": \n[]\n{"title": "nameless"}\n{"asin": "n1"}\n{"asin": "n5", "image": "../items.jsonl"}\n')
    (folder / "images/n6.png").write_bytes(b"no image")
    with (folder / "items.jsonl").open("a") as f:
        f.write('{"asin": "n6", "title": "broken"}\n')
    code, output = embedded(release, folder)
    assert code == 0
    assert output.splitlines()[1].startswith(f"not used: {folder / 'new.rejects.parquet'}: 4 rows: not JSON (1), ")
    rejects = io.read_table(folder / "new.rejects.parquet", schemas.REJECTS).to_pylist()
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (6, "not JSON"),
        (7, "not an object"),
        (8, "no identifier in a column of that name, such as asin, sku or id"),
        (9, "'n1' occurred before"),
    ]
    table = pq.read_table(folder / "new")
    assert table["image_status"].to_pylist()[4:] == ["blocked", "not_an_image"]


@pytest.mark.parametrize("text", ["", "\n\n", "not json\n", "[]\n"])
def test_a_file_of_0_items_is_one_line_and_leaves_nothing(release: Path, folder: Path, text: str) -> None:
    (folder / "items.jsonl").write_text(text)
    before = sorted(folder.iterdir())
    code, output = embedded(release, folder)
    assert code == 1
    assert output.startswith(f"error: {folder / 'items.jsonl'}: the file is empty, or neither JSON lines nor")
    assert len(output.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "biet3"}, "no encoder 'biet3' in this release; it has beit3, beit3-image-masked, beit3-text-masked"),
    ({"items": "none.jsonl"}, "none.jsonl: no such file"),
    ({"images": "pictures"}, "pictures: no such folder"),
    ({"images": None}, "item 'n1' names the image 'one.png'"),
    ({"to": "items.jsonl"}, "exists already"),
]


@pytest.mark.parametrize(("change", "fault"), MISTAKES)
def test_a_mistake_is_named_and_nothing_is_lost(release: Path, folder: Path, change: dict, fault: str) -> None:
    given = {"name": "beit3", "items": "items.jsonl", "images": "images", "to": "new"} | change
    before = (folder / "items.jsonl").read_bytes()
    images = given["images"] and folder / given["images"]
    with pytest.raises(UserError, match=fault):
        embed(release, given["name"], folder / given["items"], images, folder / given["to"])
    assert (folder / "items.jsonl").read_bytes() == before
    assert not (folder / "new").exists()
