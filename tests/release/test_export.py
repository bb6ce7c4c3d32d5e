"""Exports keep items, order, split and vectors."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from commands import alignrec, blocks
from shop import releases, toy
from shop.featured import vectors

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.products import clean_text
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export import content as contents
from alignrec.pipeline.release.export.content import ExportContent
from alignrec.pipeline.release.export.write import EXPORT_WRITERS, wants_all, write_export
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.pipeline.report.similarity import find_neighbours
from alignrec.pipeline.runtime.layout import Layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return releases.published(toy.outputs(tmp_path_factory.mktemp("shop")))


@pytest.fixture(scope="module")
def content(layout: Layout) -> ExportContent:
    return contents.read_content(layout, [])


def released(layout: Layout, features: Sequence[str] = ()) -> ExportContent:
    with unpack_release(Release(layout.release), ["items"]) as unpacked:
        return contents.read_content(unpacked, [*features])


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


# --- Cornac


def test_cornac_gets_a_number_for_every_rating(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    write_export(column(content, "rating", pa.array([None, *[2.0] * 15], pa.float32())), "cornac", tmp_path / "to")
    read = pd.read_csv(tmp_path / "to/train.tsv", sep="\t", header=None)
    assert read[2].tolist() == [1.0] + [2.0] * (len(read) - 1)
    assert read[1].tolist() == split_rows(layout, 0)["item_id"].tolist()


# --- all of them


@pytest.mark.parametrize("form", EXPORT_WRITERS)
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


@pytest.mark.parametrize("form", EXPORT_WRITERS)
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
    write_export(released(layout), "mmrec", tmp_path / "to")
    write_export(contents.read_content(layout, []), "mmrec", tmp_path / "whole")
    assert (tmp_path / "to/shop.inter").read_bytes() == (tmp_path / "whole/shop.inter").read_bytes()


@pytest.mark.parametrize("form", EXPORT_WRITERS)
def test_a_release_by_itself_exports_what_it_holds(layout: Layout, tmp_path: Path, form: str) -> None:
    exported = replace(released(layout, ["minilm-cnn"]), interactions=None)
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
    assert contents.read_content(copy, []).items["image_url"].to_pylist() == ["https://p/1.png", *[""] * 5]


def test_mistakes_are_named(content: ExportContent, layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no format 'csv'; there are mmrec, recbole, cornac, npy$"):
        wants_all("csv")
    with pytest.raises(UserError, match=r"no format 'atlas'; .*; it was removed: pandas"):
        wants_all("atlas")
    with pytest.raises(UserError, match=r"'clip'; .*beit3, minilm-cnn, random"):
        contents.read_content(layout, ["clip"])
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
