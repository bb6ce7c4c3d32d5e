"""Exports keep items, order, split, vectors and codes."""

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec, blocks
from PIL import Image
from shop import releases, toy
from shop.featured import vectors

import alignrec as api
from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.products import clean_text
from alignrec.pipeline.features import semantic_ids as coder
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export import content as contents
from alignrec.pipeline.release.export.content import ExportContent
from alignrec.pipeline.release.export.write import EXPORT_WRITERS, wants_codes, wants_map, write_export
from alignrec.pipeline.report import gallery
from alignrec.pipeline.report.similarity import find_neighbours
from alignrec.pipeline.runtime.layout import Layout

PLAIN = [form for form in EXPORT_WRITERS if not wants_codes(form) and not wants_map(form)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return releases.published(toy.outputs(tmp_path_factory.mktemp("shop")))


@pytest.fixture(scope="module")
def content(layout: Layout) -> ExportContent:
    return contents.of_dataset(layout, [])


def split_rows(layout: Layout, split: int) -> pd.DataFrame:
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    return table.filter(pc.equal(table["split"], split)).drop_columns(["split"]).to_pandas()


# --- MMRec


def imported(folder: Path, root: Path) -> Layout:
    """Run the first stages on the export, as its README says."""
    (block,) = blocks((folder / "README.md").read_text(), "yaml")
    source = yaml.safe_load(block)["sources"]["shop"]
    source |= {k: str(folder / source[k]) for k in ("interactions", "items")}
    source["features"] = {name: str(folder / path) for name, path in source["features"].items()}
    params = toy.params(sources={"shop": source}, benchmark={"ks": [5]})
    for stage in ("download", "interactions", "items"):
        toy.run(stage, params, root)
    return Layout(root, "shop")


def test_mmrec_is_imported_with_equal_split_ids_and_texts(
    content: ExportContent, layout: Layout, tmp_path: Path
) -> None:
    write_export(content, "mmrec", tmp_path / "mmrec")
    again = imported(tmp_path / "mmrec", tmp_path / "outputs")
    for path, schema in ((layout.interactions, schemas.INTERACTIONS), (layout.item_ids, schemas.ITEM_IDS)):
        ours, theirs = (
            io.read_table(p, schema).replace_schema_metadata()
            for p in (path, again.root / path.relative_to(layout.root))
        )
        assert theirs.equals(ours), path.name
    before, after = (io.read_table(x.items, schemas.ITEMS) for x in (layout, again))
    for name in ("title", "brand", "description", "categories"):
        assert [v for v, t in zip(after[name].to_pylist(), toy.TITLES, strict=True) if clean_text(t) == t] == [
            v for v, t in zip(before[name].to_pylist(), toy.TITLES, strict=True) if clean_text(t) == t
        ]
    assert after["image_urls"].to_pylist() == before["image_urls"].to_pylist()
    users = pd.read_csv(tmp_path / "mmrec/u_id_mapping.csv", sep="\t")
    assert users.to_dict("list") == {"user_id": ["U0", "U1", "U2", "U3"], "userID": [0, 1, 2, 3]}


def column(content: ExportContent, name: str, values: pa.Array) -> ExportContent:
    """Return the content with a replaced column of its interactions."""
    assert content.interactions is not None
    at = content.interactions.column_names.index(name)
    return replace(content, interactions=content.interactions.set_column(at, name, values))


def test_mmrec_keeps_unknown_values_and_positions(content: ExportContent, tmp_path: Path) -> None:
    table = content.interactions
    assert table is not None
    blank = column(content, "rating", pa.nulls(len(table), pa.float32()))
    write_export(column(blank, "timestamp", pa.nulls(len(table), pa.int64())), "mmrec", tmp_path / "mmrec")
    again = io.read_table(imported(tmp_path / "mmrec", tmp_path / "outputs").interactions, schemas.INTERACTIONS)
    assert again["rating"].null_count == again["timestamp"].null_count == len(table)
    order = ["user_id", "item_id", "split"]
    assert sorted(again.select(order).to_pylist(), key=str) == sorted(table.select(order).to_pylist(), key=str)
    ordered = table.replace_schema_metadata({"alignrec": '{"timestamps": "order"}'})
    write_export(replace(content, interactions=ordered), "mmrec", tmp_path / "ordered")
    assert "Timestamps are positions" in (tmp_path / "ordered/README.md").read_text()
    again = io.read_table(imported(tmp_path / "ordered", tmp_path / "more").interactions, schemas.INTERACTIONS)
    assert schemas.read_clock(again) == "order"


@pytest.mark.parametrize("form", ["mmrec", "cornac", "npy"])
def test_feature_files_are_in_item_order(content: ExportContent, layout: Layout, tmp_path: Path, form: str) -> None:
    write_export(content, form, tmp_path / "to")
    for name in toy.SETS:
        x = np.load(tmp_path / f"to/{name}.npy", allow_pickle=False)
        assert x.dtype == np.float32
        assert np.array_equal(x, vectors(layout, name))


@pytest.mark.parametrize("apart", ["", "masked", "alone"])
def test_mmrec_has_settings_with_a_file_of_images_and_one_of_texts(
    content: ExportContent, layout: Layout, tmp_path: Path, apart: str
) -> None:
    names = {"vision_feature_file": "random", "text_feature_file": "random"}
    features = {name: content.features[name] for name in ("random", "beit3", "minilm-cnn")}
    if apart == "alone":
        names = {"vision_feature_file": "cnn", "text_feature_file": "minilm"}
        without = pa.array([False] * toy.ITEMS)
        for name, modality in (("minilm", "image"), ("cnn", "text")):
            whole = content.features["minilm-cnn"]
            at = whole.column_names.index(f"has_{modality}")
            features[name] = whole.set_column(at, f"has_{modality}", without)
    if apart == "masked":
        names = {"vision_feature_file": "f-text-masked", "text_feature_file": "f-image-masked"}
        features = {"random": features["random"], "f": features["random"]} | {
            "f-text-masked": features["beit3"], "f-image-masked": features["minilm-cnn"],
        }  # fmt: skip
    said = write_export(replace(content, features=features), "mmrec", tmp_path / "to")
    assert [line.startswith("`random` is both") for line in said] == [True] * (not apart)
    settings = yaml.safe_load((tmp_path / "to/shop.yaml").read_text())
    header = (tmp_path / "to" / settings["inter_file_name"]).read_text().split("\n")[0]
    keys = ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "inter_splitting_label")
    assert {settings[key] for key in keys} <= set(header.split(settings["field_separator"]))
    files = sorted(path.name for path in (tmp_path / "to").glob("*_feat.npy"))
    assert files == ["image_feat.npy", "text_feat.npy"] == [settings[key] for key in names]
    for key, name in names.items():
        x = np.load(tmp_path / "to" / settings[key], allow_pickle=False)
        assert np.array_equal(x, io.matrix(features[name]["vector"])), key
        assert f"`{settings[key]}` is `{name}`" in (tmp_path / "to/README.md").read_text()
    own = {"beit3": features["random"], "text_feat": content.features["minilm-cnn"]}
    write_export(
        replace(content, features=own), "mmrec", tmp_path / "own"
    )  # a set of that very name stays its own file
    assert np.array_equal(np.load(tmp_path / "own/text_feat.npy"), content.matrix("minilm-cnn"))
    assert np.array_equal(np.load(tmp_path / "own/image_feat.npy"), content.matrix("random"))


# --- RecBole


def test_recbole_files_hold_the_split_and_exact_vectors(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    write_export(content, "recbole", tmp_path / "to")
    settings = yaml.safe_load((tmp_path / "to/shop.yaml").read_text())
    for number, split in enumerate(settings["benchmark_filename"]):
        read = pd.read_csv(tmp_path / f"to/shop/shop.{split}.inter", sep="\t")
        assert list(read) == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
        assert np.array_equal(read.to_numpy(), split_rows(layout, number).to_numpy())
    written = pd.read_csv(tmp_path / "to/shop/shop.beit3", sep="\t")
    assert list(written) == ["beit3_id:token", "beit3_emb:float_seq"]
    x = np.array([[float(v) for v in row.split(" ")] for row in written["beit3_emb:float_seq"]], np.float32)
    assert np.array_equal(x, vectors(layout, "beit3"))
    fields = pd.read_csv(tmp_path / "to/shop/shop.item", sep="\t", keep_default_na=False)
    assert fields["title:token_seq"].tolist() == toy.TITLES
    mapping = pd.read_csv(tmp_path / "to/items.tsv", sep="\t")
    assert mapping.to_dict("list") == {"item_id": list(range(6)), "asin": [f"A{i}" for i in range(6)]}


def test_recbole_leaves_out_a_column_that_is_unknown_everywhere(content: ExportContent, tmp_path: Path) -> None:
    write_export(column(content, "rating", pa.nulls(16, pa.float32())), "recbole", tmp_path / "to")
    header = (tmp_path / "to/shop/shop.train.inter").read_text().splitlines()[0]
    assert header.split("\t") == ["user_id:token", "item_id:token", "timestamp:float"]
    assert "rating" not in yaml.safe_load((tmp_path / "to/shop.yaml").read_text())["load_col"]["inter"]


# --- Cornac, Hugging Face


def test_cornac_gets_a_number_for_every_rating(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    write_export(column(content, "rating", pa.array([None, *[2.0] * 15], pa.float32())), "cornac", tmp_path / "to")
    read = pd.read_csv(tmp_path / "to/train.tsv", sep="\t", header=None)
    assert read[2].tolist() == [1.0] + [2.0] * (len(read) - 1)
    assert read[1].tolist() == split_rows(layout, 0)["item_id"].tolist()


def test_hugging_faces_library_loads_every_table(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_export(content, "hf", tmp_path / "to")

    def load(name: str) -> dict:
        return datasets.load_dataset(str(tmp_path / "to"), name, cache_dir=str(tmp_path / "cache"))

    code = "".join(blocks((tmp_path / "to/README.md").read_text(), "python"))  # as the README says
    code += "print(features['vector'][:].tolist())"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "to", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == vectors(layout, "beit3").tolist()
    loaded = load("beit3")["train"].with_format("numpy")
    assert np.array_equal(loaded["vector"][:], vectors(layout, "beit3"))
    assert loaded["item_id"][:].tolist() == list(range(toy.ITEMS))
    by_split = load("interactions")
    assert list(by_split) == ["train", "validation", "test"]
    for number, split in enumerate(by_split):
        assert by_split[split]["item_id"][:] == split_rows(layout, number)["item_id"].tolist()
    assert load("items")["train"]["title"][:] == toy.TITLES


# --- embedding-atlas


def atlas(layout: Layout, to: Path, order: Path | None = None) -> pa.Table:
    write_export(contents.arrange_rows(contents.of_dataset(layout, [], mapped=True), order), "atlas", to)
    return pq.read_table(to / "beit3.parquet")


def test_atlas_shows_the_reports_map_neighbours_and_pictures(layout: Layout, tmp_path: Path) -> None:
    table = atlas(layout, tmp_path / "to")
    assert {path.name for path in (tmp_path / "to").glob("*.parquet")} == {f"{name}.parquet" for name in toy.SETS}
    assert table["id"].to_pylist() == toy.ASINS
    assert table["title"].to_pylist() == [title or "A4" for title in toy.TITLES]
    assert table["category"][0].as_py() == "toys"

    edges = io.read_table(layout.edges("beit3"), schemas.EDGES)
    positions = np.reshape(gallery.map_positions(edges, toy.ITEMS, 0), (-1, 2))
    assert table["x"].to_pylist() == positions[:, 0].tolist()
    assert table["y"].to_pylist() == (gallery.MAP_HEIGHT - positions[:, 1]).tolist()
    for item, neighbours in enumerate(table["neighbors"].to_pylist()):
        of_item = edges.filter(pc.equal(edges["item_id"], item)).sort_by("rank")
        assert neighbours["ids"] == of_item["neighbour_id"].to_pylist()
        np.testing.assert_allclose(neighbours["distances"], 1 - of_item["cosine"].to_numpy(), atol=1e-6)

    for colour, picture in zip(toy.COLOURS, table["picture"].to_pylist(), strict=True):
        kind, _, data = picture.partition(",")
        if colour is None:  # not stored, but on the web
            assert picture == "https://pictures.example/A4.jpg"
            continue
        assert kind == "data:image/jpeg;base64"
        image = Image.open(BytesIO(base64.b64decode(data)))
        np.testing.assert_allclose(image.getpixel((40, 40)), colour, atol=12)
    assert "interactions" not in (tmp_path / "to/README.md").read_text()


def test_atlas_pads_the_neighbours_of_another_order(layout: Layout, tmp_path: Path) -> None:
    order = mapping(tmp_path / "order.csv", ["A5", "A9", "A0", "A2"])
    table = atlas(layout, tmp_path / "to", order)
    assert table["id"].to_pylist() == ["A5", "A9", "A0", "A2"]
    neighbours = table["neighbors"].to_pylist()
    lengths = {len(row[key]) for row in neighbours for key in ("ids", "distances")}
    assert len(lengths) == 1
    assert set(neighbours[1]["ids"]) == {-1}  # an item that the dataset lacks
    edges = io.read_table(layout.edges("beit3"), schemas.EDGES)
    near = edges.filter(pc.equal(edges["item_id"], 5)).sort_by("rank")["neighbour_id"].to_pylist()
    row_of = {5: 0, 0: 2, 2: 3}
    assert [row for row in neighbours[0]["ids"] if row >= 0] == [row_of[item] for item in near if item in row_of]


def test_atlas_of_a_release_names_pictures_on_the_web(layout: Layout, tmp_path: Path) -> None:
    result = alignrec("export", layout.release, "--format", "atlas", "--features", "beit3", "--to", tmp_path / "to")
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "to/beit3.parquet")
    assert set(map(type, table["picture"].to_pylist())) <= {str, type(None)}
    assert not any((address or "").startswith("file:") for address in table["picture"].to_pylist())
    assert table["neighbors"].equals(atlas(layout, tmp_path / "whole")["neighbors"])


def test_atlas_has_no_map_of_large_catalogues(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MAX_MAPPED", 5)
    with pytest.raises(UserError, match=r"6 items, and a map has at most 5; .* --order"):
        write_export(contents.of_dataset(layout, [], mapped=True), "atlas", tmp_path / "to")
    assert not (tmp_path / "to").exists()


# --- all of them


def test_two_maps_are_the_same_bytes(layout: Layout, tmp_path: Path) -> None:
    for name in "ab":
        atlas(layout, tmp_path / name)
    assert toy.contents(tmp_path / "a") == toy.contents(tmp_path / "b")


@pytest.mark.parametrize("form", PLAIN)
def test_two_exports_are_the_same_bytes(content: ExportContent, tmp_path: Path, form: str) -> None:
    for name in "ab":
        write_export(content, form, tmp_path / name)
    assert toy.contents(tmp_path / "a") == toy.contents(tmp_path / "b")


# --- zero rows


def with_zero_rows(content: ExportContent) -> ExportContent:
    """Return the content with zeros in row 4 of beit3, and in rows 1 and 4 of minilm-cnn."""
    features = dict(content.features)
    for name, zero in (("beit3", [4]), ("minilm-cnn", [1, 4])):
        x = content.matrix(name).copy()
        x[zero] = 0
        features[name] = features[name].set_column(4, "vector", io.vectors(x))
    return replace(content, features=features)


@pytest.mark.parametrize("form", PLAIN)
def test_zero_rows_are_filled_and_the_readme_says_so(content: ExportContent, tmp_path: Path, form: str) -> None:
    write_export(contents.arrange_rows(with_zero_rows(content), None), form, tmp_path / "to")
    readme = (tmp_path / "to/README.md").read_text()
    assert "`minilm-cnn`: 2 dimensions; zero rows filled with drawn numbers: 2" in readme
    assert "`random`: 2 dimensions\n" in readme
    assert "the mean and the standard deviation of its column over the other items" in readme
    filled = pd.read_csv(tmp_path / "to/filled.tsv", sep="\t")
    assert filled.to_numpy().tolist() == [["beit3", 4], ["minilm-cnn", 1], ["minilm-cnn", 4]]


def test_filled_rows_differ_and_are_an_items_own_in_every_order(content: ExportContent, tmp_path: Path) -> None:
    filled = contents.arrange_rows(with_zero_rows(content), None)
    x, rest = filled.matrix("minilm-cnn"), [0, 2, 3, 5]
    assert np.array_equal(x[rest], content.matrix("minilm-cnn")[rest])
    assert x[[1, 4]].any(axis=1).all()
    assert not np.allclose(x[1], x[4])
    assert filled.features["random"] is content.features["random"]
    schemas.check(filled.features["beit3"], schemas.features(2))
    theirs = mapping(tmp_path / "order.csv", ["A5", "A4", "A0", "A1", "A3", "A2"])
    other = contents.arrange_rows(with_zero_rows(content), theirs).matrix("minilm-cnn")
    assert other[[3, 1]] == pytest.approx(x[[1, 4]], rel=1e-6)


def set_of(content: ExportContent, x: np.ndarray) -> ExportContent:
    """Return a content with one feature set, and as many items as it has rows."""
    table = toy.feature_table(x, has_image=x.any(axis=1), has_text=x.any(axis=1))
    return replace(content, items=table.select(["item_id", "asin"]), features={"f": table}, interactions=None)


@pytest.mark.parametrize("masked", [1, 60])
def test_a_filled_row_is_no_hub_and_filled_rows_no_clique(content: ExportContent, masked: int) -> None:
    rng = np.random.default_rng(0)
    kinds = 0.8 * rng.normal(size=(60, 64))  # of items, around a mean far from zero, as in a set that is not centred
    x = (1 + kinds[rng.integers(0, 60, 600)] + rng.normal(size=(600, 64))).astype(np.float32)
    zero = np.isin(np.arange(600), rng.permutation(600)[:masked])
    x[zero] = 0
    near = find_neighbours(contents.arrange_rows(set_of(content, x), None).matrix("f"), 10)
    lists = np.bincount(near.ravel(), minlength=600)
    mean = np.bincount(find_neighbours(np.where(zero[:, None], x[~zero].mean(axis=0), x), 10).ravel(), minlength=600)
    assert mean[zero].max() > 10 * mean[~zero].max()  # else the set could not tell
    assert lists[zero].max() <= lists[~zero].max()
    assert zero[near[zero]].mean() <= 1.5 * masked / 600
    assert zero[near[~zero]].mean() <= 1.5 * masked / 600


def test_a_set_of_huge_numbers_is_filled_with_finite_ones(content: ExportContent) -> None:
    x = np.array([[3e38, 1], [-3e38, 1], [3e38, 2]] * 20 + [[0, 0]] * 20, np.float32)
    assert np.isfinite(contents.arrange_rows(set_of(content, x), None).matrix("f")).all()


def test_a_set_of_zeros_is_refused_and_one_around_zero_is_not(content: ExportContent) -> None:
    with pytest.raises(UserError, match="'f' holds nothing but zeros"):
        contents.arrange_rows(set_of(content, np.zeros((6, 2), np.float32)), None)
    opposite = set_of(content, np.array([[1, 0], [-1, 0], [0, 0]] * 2, np.float32))
    assert contents.arrange_rows(opposite, None).matrix("f")[[2, 5]].any(axis=1).all()


# --- a given order


def mapping(path: Path, asins: list[str]) -> Path:
    path.write_text("asin\titemID\n" + "".join(f"{asin}\t{row}\n" for row, asin in sorted(enumerate(asins), key=str)))
    return path


def test_rows_take_the_order_of_a_mapping_file(content: ExportContent, tmp_path: Path) -> None:
    theirs = ["A5", "A3", "A0", "A1", "A4", "A2"]
    write_export(contents.arrange_rows(content, mapping(tmp_path / "order.csv", theirs)), "mmrec", tmp_path / "to")
    at = [int(asin[1]) for asin in theirs]
    assert np.array_equal(np.load(tmp_path / "to/beit3.npy"), content.matrix("beit3")[at])
    items = pd.read_csv(tmp_path / "to/i_id_mapping.csv", sep="\t")
    assert items.to_dict("list") == {"asin": theirs, "itemID": list(range(6))}
    inter = pd.read_csv(tmp_path / "to/shop.inter", sep="\t")
    assert content.interactions is not None
    assert [at[i] for i in inter["itemID"]] == content.interactions["item_id"].to_pylist()
    assert "Items are numbered as in order.csv, not as in the dataset." in (tmp_path / "to/README.md").read_text()


def test_items_of_one_side_only_are_counted(content: ExportContent, tmp_path: Path) -> None:
    order = mapping(tmp_path / "order.csv", ["A5", "B7", "A0"])
    exported = contents.arrange_rows(content, order)
    assert exported.items["asin"].to_pylist() == ["A5", "B7", "A0"]
    assert exported.items["title"].to_pylist() == [toy.TITLES[5], "", toy.TITLES[0]]
    assert exported.filled["beit3"] == [1]
    assert exported.matrix("beit3")[1].any()
    assert exported.features["beit3"]["has_text"].to_pylist()[1] is False
    assert exported.notes[1:3] == [
        "Items of it that the dataset lacks, and that have no content: 1.",
        "Items of the dataset left out, as it does not name them: 4.",
    ]
    with pytest.raises(UserError, match="expected a column of this dataset's identifiers"):
        contents.arrange_rows(content, mapping(tmp_path / "other.csv", ["B1", "B2"]))


# --- releases


def test_a_release_exports_its_interactions(layout: Layout, tmp_path: Path) -> None:
    write_export(contents.of_release(layout.release, []), "mmrec", tmp_path / "to")
    write_export(contents.of_dataset(layout, []), "mmrec", tmp_path / "whole")
    assert (tmp_path / "to/shop.inter").read_bytes() == (tmp_path / "whole/shop.inter").read_bytes()


@pytest.mark.parametrize("form", PLAIN)
def test_a_release_by_itself_exports_what_it_holds(layout: Layout, tmp_path: Path, form: str) -> None:
    exported = replace(contents.of_release(layout.release, ["minilm-cnn"]), interactions=None)
    write_export(exported, form, tmp_path / "to")
    text = (tmp_path / "to/README.md").read_text()
    assert "Interactions are not here" in text
    settings = "".join(path.read_text() for path in (tmp_path / "to").glob("*.y*ml"))
    for split in ("inter_file_name", "train.tsv", "benchmark_filename", "train_path: "):  # names of absent files
        assert split not in text + settings
    assert ("add your own as `shop/shop.inter`" in text) == (form == "recbole")
    assert "`minilm-cnn`: 2 dimensions" in text
    assert "beit3" not in text
    assert exported.users is not None
    assert exported.users["user"].to_pylist() == ["U0", "U1", "U2", "U3"]


def test_no_address_of_this_machine_gets_out(layout: Layout, tmp_path: Path) -> None:
    urls = [["file:///home/me/1.png", "https://p/1.png"], ["file:///home/me/2.png"]] + [[]] * 4
    copy = Layout(shutil.copytree(layout.root, tmp_path / "outputs"), "shop")
    releases.rewrite(copy.items, "image_urls", lambda _: urls)
    assert contents.of_dataset(copy, []).items["image_url"].to_pylist() == ["https://p/1.png", *[""] * 5]


def test_mistakes_are_named(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'csv'; .*mmrec, recbole, cornac, npy, hf"):
        wants_codes("csv")
    with pytest.raises(UserError, match=r"'clip'; .*beit3, minilm-cnn, random"):
        contents.of_dataset(layout, ["clip"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        write_export(content, "npy", tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_command(layout: Layout, tmp_path: Path) -> None:
    toy.ended(layout)
    order = mapping(tmp_path / "order.csv", ["A5", "B7", "A0"])
    for number, what in enumerate(("shop", layout.release)):
        given = ["export", what, "--root", layout.root, "--format", "npy", "--features", "beit3", "--to"]
        plain, theirs = tmp_path / f"{number}", tmp_path / f"{number}-theirs"
        done = alignrec(*given, plain)
        assert done.output == f"exported: {plain}\n"
        assert sorted(p.name for p in plain.glob("*.npy")) == ["beit3.npy"]
        done = alignrec(*given, theirs, "--order", order)
        assert f"beit3: zero rows filled with drawn numbers: 1\nexported: {theirs}\n" in done.output
        assert len(np.load(theirs / "beit3.npy")) == 3


# --- semantic IDs for MiniOneRec, read back as the tool's documents say


EMPTY = 4
"""the item without content, which exports leave out, shifting later ones"""
ASINS = ["A0", "A1", "A2", "A3", "A5"]


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    coded = toy.outputs(tmp_path_factory.mktemp("coded"))
    x = np.random.default_rng(1).normal(size=(toy.ITEMS, toy.WIDTH))
    x[EMPTY], x[5] = 0, 3 * x[0]
    toy.write_features(coded, "beit3", x)
    return releases.released_with_codes(coded, releases.coded_params(levels=3, features=["beit3"]))


@pytest.fixture
def with_ids(coded: Layout) -> ExportContent:
    return contents.arrange_rows(contents.of_dataset(coded, [], coded=True), None)


def test_index_texts_and_sequences_are_the_datasets(with_ids: ExportContent, coded: Layout, tmp_path: Path) -> None:
    write_export(with_ids, "minionerec", tmp_path / "to")
    there = [row for row in pq.read_table(coded.codes("beit3"), partitioning=None).to_pylist() if row["codes"]]
    assert [row["asin"] for row in there] == ASINS
    index = json.loads((tmp_path / "to/shop.index.json").read_text())
    ids = [[int(token.strip("<>").split("_")[1]) for token in tokens] for tokens in index.values()]
    assert [codes[:2] for codes in ids] == [row["codes"][:2] for row in there]
    assert ids[0][:2] == ids[4][:2]  # of two equal vectors
    assert ids[0][2] < ids[4][2]
    assert {"".join(token[1] for token in tokens) for tokens in index.values()} == {"abc"}
    readme = (tmp_path / "to/README.md").read_text()
    assert "Items left out for a row of zeros: 1; the others are renumbered." in readme
    items = json.loads((tmp_path / "to/shop.item.json").read_text())
    assert items["2"] == {"title": toy.TITLES[2], "description": "", "brand": "", "categories": "<b>odd</b>"}
    table = io.read_table(coded.interactions, schemas.INTERACTIONS).to_pandas()
    table = table[table["item_id"] != EMPTY].sort_values(["user_id", "timestamp"])
    number = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4}
    assert json.loads((tmp_path / "to/shop.inter.json").read_text()) == {
        str(user): [number[item] for item in group["item_id"]] for user, group in table.groupby("user_id")
    }


def test_a_title_is_one_line_and_an_absent_one_says_so(with_ids: ExportContent, tmp_path: Path) -> None:
    at = with_ids.items.column_names.index("title")
    items = with_ids.items.set_column(at, "title", pa.array(["a\tb\nc", *["x"] * 3, "  "]))
    notes = write_export(replace(with_ids, items=items, interactions=None), "minionerec", tmp_path / "to")
    assert notes[-1].endswith("says so: 1.")
    titles = [row["title"] for row in json.loads((tmp_path / "to/shop.item.json").read_text()).values()]
    assert (titles[0], titles[4]) == ("a b c", "[item 4 has no title]")
    assert "Bring sequences of your own" in (tmp_path / "to/README.md").read_text()
    assert not (tmp_path / "to/shop.inter.json").exists()


def read_by_minionerec(folder: Path, name: str) -> dict[str, str]:
    """Return title by ID, as its datasets read them: by the first three tokens, where there are three."""
    index = json.loads((folder / f"{name}.index.json").read_text())
    items = json.loads((folder / f"{name}.item.json").read_text())
    titles = {}
    for item, tokens in index.items():
        if len(tokens) >= 3:
            titles["".join(tokens[:3])] = items[item]["title"]
    return titles


def with_codes(content: ExportContent, features: Path, params: SemanticIds) -> ExportContent:
    coding = coder.code_items(features, params, seed=0)
    return replace(content, codes=coder.as_table(content.items, coding))


def test_minionerec_reads_every_item_of_sample(tmp_path: Path) -> None:
    release = api.load("sample")
    params = SemanticIds(levels=3, codes=64)
    plain = contents.of_release(release.folder, ["linear"])
    coded = with_codes(plain, release.folder / "features/linear", params)
    content = contents.arrange_rows(coded, None)
    assert content.codes is not None
    distinct = {tuple(codes) for codes in content.codes["codes"].to_pylist()}
    assert len(distinct) < 0.9 * len(content.items)  # three levels collide

    note, *_ = write_export(content, "minionerec", tmp_path / "to")

    titles = read_by_minionerec(tmp_path / "to", "sample")
    assert len(titles) == len(content.items)
    for title, item in zip(titles.values(), content.items.to_pylist(), strict=True):
        assert title == " ".join(item["title"].split()) or not item["title"].strip()
    thirds = {token.partition("<c_")[2] for token in titles}
    assert "codes of the first 2 of 3 levels" in note
    assert f"a third token ({len(thirds)} values) that separates items of equal codes" in note
    assert note in (tmp_path / "to/README.md").read_text()


def test_levels_after_the_second_change_no_token(coded: Layout, tmp_path: Path) -> None:
    indexes = []
    for levels in (2, 3):
        params = SemanticIds(levels=levels, codes=4)
        plain = contents.of_dataset(coded, ["beit3"])
        content = with_codes(plain, coded.features("beit3"), params)
        to = tmp_path / str(levels)
        write_export(contents.arrange_rows(content, None), "minionerec", to)
        indexes.append((to / "shop.index.json").read_bytes())
    assert indexes[0] == indexes[1]


def test_one_level_is_refused(coded: Layout, tmp_path: Path) -> None:
    plain = contents.of_dataset(coded, ["beit3"])
    content = with_codes(plain, coded.features("beit3"), SemanticIds(levels=1, codes=4))
    with pytest.raises(UserError, match=r"these have 1; set semantic_ids\.levels"):
        write_export(contents.arrange_rows(content, None), "minionerec", tmp_path / "to")


def test_a_release_exports_the_same_bytes(with_ids: ExportContent, coded: Layout, tmp_path: Path) -> None:
    write_export(with_ids, "minionerec", tmp_path / "a")
    done = alignrec("export", coded.release, "--format", "minionerec", "--to", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert toy.contents(tmp_path / "a") == toy.contents(tmp_path / "b")


def test_mistakes_are_one_line(with_ids: ExportContent, coded: Layout, tmp_path: Path) -> None:
    toy.ended(coded)

    def said(*arguments: object) -> str:
        given = ["export", "shop", "--root", coded.root, "--to", tmp_path / "to", "--format", "minionerec", *arguments]
        done = alignrec(*given)
        assert done.exit_code == 1, done.output
        return done.output.removeprefix("error: ").removesuffix("\n")

    assert said("--features", "random") == (
        "shop: no semantic IDs of these feature sets; name one under semantic_ids.features and run "
        "`alignrec semantic_ids shop`"
    )
    assert said("--order", mapping(tmp_path / "order.csv", toy.ASINS)) == (
        "items without a semantic ID are left out, which leaves gaps in the given order; omit --order"
    )
    with pytest.raises(UserError, match="no timestamps"):
        write_export(column(with_ids, "timestamp", pa.nulls(13, pa.int64())), "minionerec", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_codes_of_other_items_and_several_coded_sets_are_refused(coded: Layout, tmp_path: Path) -> None:
    both = releases.coded(tmp_path)
    with pytest.raises(UserError, match="choose one with --features: beit3, minilm-cnn"):
        contents.of_dataset(both, [], coded=True)
    table = io.read_codes(both.codes("beit3"))
    names = pa.array([f"B{i}" for i in range(toy.ITEMS)])
    io.write_table(table.set_column(1, "asin", names), both.codes("beit3"), schemas.semantic_ids(2))
    with pytest.raises(UserError, match="of other items; run `alignrec semantic_ids shop`"):
        contents.of_dataset(both, ["beit3"], coded=True)
