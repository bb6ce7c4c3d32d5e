"""`alignrec new` on a folder in MMRec's format: its files, their faults, and a project that runs."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import alignrec
from ratings import write_inter
from toyproject import run

from alignrec import schemas
from alignrec.commands import new as command
from alignrec.commands.own_data import Given
from alignrec.commands.params import load
from alignrec.commands.size import read_size
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.mmrec import MmrecSource
from tests.vectors import formats

USERS = 12
ITEMS = 30
ASINS = [f"B{7 * i % ITEMS:09d}" for i in range(ITEMS)]
LABELS = (0, 0, 0, 1, 2)
PAIRS = [(n % USERS, (7 * n + n // ITEMS) % ITEMS, LABELS[n // USERS % 5]) for n in range(120)]
PARAMS = Path("params.yaml")
FOLDER = Path("data/toy")
INTER = FOLDER / "toy.inter"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory with a small folder as MMRec publishes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    monkeypatch.setattr(command, "has_gpu", lambda: False)
    FOLDER.mkdir(parents=True)
    write_inter(INTER, PAIRS)
    rng = np.random.default_rng(0)
    for name, width in (("image_feat", 9), ("text_feat", 5)):
        np.save(FOLDER / f"{name}.npy", rng.normal(size=(ITEMS, width)).astype(np.float32))
    graph = np.array({0: [1]}, dtype=object)
    np.save(FOLDER / "user_graph_dict.npy", graph, allow_pickle=True)
    formats.mapping(FOLDER, ASINS)
    users = "".join(f"A{u}\t{u}\n" for u in range(USERS))
    (FOLDER / "u_id_mapping.csv").write_text(f"user_id\tuserID\n{users}")


def new(interactions: Path = FOLDER, **options: Any) -> list[str]:
    """Return the messages of `alignrec new`, and write params.yaml without git and DVC."""
    text, seen = command.describe_files(Given("mine", interactions, **options))
    PARAMS.write_text(text)
    return seen


def source() -> dict[str, Any]:
    return dict(yaml.safe_load(PARAMS.read_text())["sources"]["mine"])


def write_items(**fields: object) -> None:
    lines = [json.dumps({"itemID": i} | fields) for i in range(ITEMS)]
    (FOLDER / "items.jsonl").write_text("\n".join(lines))


def refused(interactions: Path = FOLDER, **options: Any) -> str:
    with pytest.raises(UserError) as e:
        new(interactions, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("given", [FOLDER, INTER])
def test_the_folder_or_its_inter_file_becomes_a_source_with_its_features(given: Path) -> None:
    seen = new(given)
    assert source() == {
        "kind": "mmrec",
        "interactions": "data/toy/toy.inter",
        "item_mapping": "data/toy/i_id_mapping.csv",
        "user_mapping": "data/toy/u_id_mapping.csv",
        "features": {
            "image_feat": "data/toy/image_feat.npy", "text_feat": "data/toy/text_feat.npy"
        },
    }  # fmt: skip
    assert seen[0] == "data/toy/toy.inter: 12 users, 30 items, 120 interactions; its split is kept"
    assert "data/toy/text_feat.npy: feature set text_feat, 5 numbers per item" in seen
    params = load(PARAMS, "mine")
    assert (params.encode.encoders, params.beit3.sets) == ([], [])
    assert [*params.combine.sets] == ["linear"]
    assert params.benchmark.features == ["linear", "image_feat", "text_feat", "shuffled"]
    assert (params.train.features, params.publish.features) == ("linear", ["linear"])


def test_the_folder_itself_and_a_gzipped_inter_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    Path("toy.inter.gz").write_bytes(gzip.compress(Path("toy.inter").read_bytes()))
    Path("toy.inter").unlink()
    new(Path("."))
    assert source()["interactions"] == "toy.inter.gz"
    assert source()["features"] == {"image_feat": "image_feat.npy", "text_feat": "text_feat.npy"}


def test_an_item_file_with_texts_is_encoded_and_names_the_items() -> None:
    write_items(asin="x", title="red bottle", imUrl=[])
    new()
    assert source()["items"] == "data/toy/items.jsonl"
    assert "item_mapping" not in source()
    judged = ["linear", "image_feat", "text_feat", "tfidf", "shuffled"]
    assert load(PARAMS).benchmark.features == judged
    write_items(title="red bottle")  # without identifiers, which the mapping has
    new()
    assert {"items", "item_mapping"} <= source().keys()
    write_items(asin="x", title="", imUrl=[])  # as exports without texts
    new()
    assert "items" not in source()
    assert load(PARAMS, "mine").encode.encoders == []
    assert "no row has one of title" in refused(items=FOLDER / "items.jsonl")
    write_items(title="red bottle")
    (FOLDER / "more.jsonl").write_text((FOLDER / "items.jsonl").read_text())
    assert refused() == "data/toy: the items may be items.jsonl or more.jsonl; give one by --items"
    new(items=FOLDER / "more.jsonl")
    assert source()["items"] == "data/toy/more.jsonl"


def test_images_are_found_by_the_identifiers_of_the_mapping() -> None:
    Path("covers").mkdir()
    for asin in ASINS[:4]:
        Path(f"covers/{asin}.png").touch()
    seen = new(images="covers")
    assert "4 of 30 items have a picture below covers" in seen
    params = load(PARAMS, "mine")
    assert params.images.pattern == ["{item}.png"]
    assert params.encode.encoders == ["cnn", "descriptors"]


def test_mistakes_are_one_line_that_says_what_to_do() -> None:
    assert refused(Path("data")).startswith("data: a folder without an .inter file; give MMRec's")
    assert refused(Path("data/tooy")) == "data/tooy: no such file; did you mean toy?"
    assert refused(columns=["item=itemID"]).startswith("--column item=itemID: the columns of MM")
    np.save(FOLDER / "image_feat.npy", np.ones((ITEMS + 1, 9), np.float32))
    assert "image_feat.npy: 31 rows, and toy.inter has 30 items; row i" in refused()
    (FOLDER / "image_feat.npy").rename(FOLDER / "my image_feat.npy")
    assert "my image_feat.npy: no name of a feature set; use letters" in refused()
    text = INTER.read_text()
    INTER.write_text(text.replace("x_label", "x_lable"))
    assert "toy.inter, line 1: no column x_label; expected" in refused()
    INTER.write_text(text)
    (FOLDER / "other.inter").write_text(text)
    assert "the interactions may be other.inter or toy.inter; give one" in refused()
    assert not PARAMS.exists()


def test_without_features_and_content_interactions_only_is_needed() -> None:
    for path in FOLDER.glob("*_feat.npy"):
        path.unlink()
    assert "no features (such as image_feat.npy), texts or images" in refused()
    new(interactions_only=True)
    assert load(PARAMS, "mine").train.features == "random"


def test_the_plan_counts_the_published_split() -> None:
    (FOLDER / "i_id_mapping.csv").unlink()
    new()
    size = read_size(load(PARAMS, "mine"), Layout(Path("outputs"), "mine"))
    counted = (size.users, size.items, size.interactions, size.pieces)
    assert counted == (USERS, ITEMS, len(PAIRS), 0)


@pytest.mark.usefixtures("shims")
def test_dvc_runs_what_new_wrote() -> None:
    done = alignrec("new", "mine", "--interactions", str(FOLDER))
    assert done.exit_code == 0, done.output
    assert alignrec("plan").exit_code == 0
    run("dvc", "repro", "-q", "combine@mine", cwd=Path())
    layout = Layout(Path("outputs"), "mine")
    names = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    assert names == ASINS
    assert io.read_table(layout.users, schemas.USERS)["user"].to_pylist()[:2] == ["A0", "A1"]
    assert {"linear", "image_feat", "text_feat"} <= {*layout.feature_sets()}


def test_items_have_images_if_their_file_has_addresses() -> None:
    found = []
    for fields in (None, {"title": "x"}, {"imUrl": "x.jpg"}):
        if fields is not None:
            write_items(**fields)
        files = {} if fields is None else {"items": str(FOLDER / "items.jsonl")}
        found.append(MmrecSource(kind="mmrec", interactions=str(INTER), **files).has_images)
    assert found == [False, False, True]
