"""A release's terms and carried files follow the source's terms unless overridden."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from shop import releases, toy

import alignrec
from alignrec import schemas
from alignrec.commands.params import read
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.report.gallery import item_titles
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.base import SOURCES

MMREC = {"kind": "mmrec", "interactions": "a.inter", "items": "a.jsonl", "features": {"theirs": "a.npy"}}
AMAZON = {"kind": "amazon2014", "category": "Baby", "features": {"cnn4096": "a.b"}}
TEXTS = ("title", "brand", "categories", "description", "text", "image_url")


def published(root: Path, source: dict[str, Any] | None = None, **keys: object) -> Layout:
    """Publish the tiny shop as if from a source."""
    sections = {"sources": {"shop": source or {"kind": "sample"}}, "publish": {"features": ["beit3"]} | keys}
    layout = releases.published(toy.outputs(root), toy.params(**sections))
    assert list(verify(layout.release))
    return layout


@pytest.mark.parametrize(
    ("source", "given", "shown"),
    [
        ({"kind": "sample"}, None, {*TEXTS}),
        (MMREC, None, set()),
        (AMAZON, None, set()),
        (AMAZON, "titles", {"title", "categories"}),
        (AMAZON, "all", {*TEXTS}),
        ({"kind": "sample"}, "none", set()),
        ({"kind": "tabular", "interactions": "a.csv"}, None, {*TEXTS}),
    ],
)
def test_texts_are_released_as_the_key_says_or_the_source_allows(
    tmp_path: Path, source: dict[str, Any], given: str | None, shown: set[str]
) -> None:
    layout = published(tmp_path, source, **({"texts": given} if given else {}))
    table, items = pq.read_table(layout.release / "items.parquet"), io.read_table(layout.items, schemas.ITEMS)
    filled = {name for name in TEXTS if any(table[name].to_pylist())}
    assert filled == {name for name in shown if name in ("image_url",) or any(items[name].to_pylist())}
    assert table["asin"].to_pylist() == items["asin"].to_pylist()
    assert table["text_status"].to_pylist() == items["text_status"].to_pylist()
    assert any(table["input_text_sha256"].to_pylist()), "what was encoded can be checked all the same"
    card = (layout.release / "README.md").read_text()
    assert ("(`publish.texts`)" in card) == (shown != {*TEXTS})
    assert ("Item texts are not part of the release" in card) == (not shown)


def test_interactions_and_texts_of_others_are_not_released_by_default() -> None:
    assert [kind for kind in SOURCES if SOURCES[kind].licence.interactions] == ["sample"]
    assert {kind for kind in SOURCES if SOURCES[kind].licence.texts != "none"} == {"sample", "tabular"}


def test_the_card_names_a_contact_and_the_language(plain: Path, tmp_path: Path) -> None:
    layout = published(tmp_path, contact="removal@shop.example", language="de")
    for release, contact, code in (
        (layout.release, "write to removal@shop.example.\n", "de"),
        (plain, "ask who published this release", None),
    ):
        card = (release / "README.md").read_text()
        assert f"\nTo have something removed, {contact}" in card
        assert yaml.safe_load(card.split("---\n")[1]).get("language") == (code and [code])


def test_others_files_are_released_only_when_they_are_named(tmp_path: Path) -> None:
    def features(source: dict[str, Any], encoders: list[str], **keys: object) -> list[str]:
        path = tmp_path / "params.yaml"
        sections = {"encode": {"encoders": encoders}, "beit3": {"sets": []}, "combine": {"sets": {}}, **keys}
        path.write_text(yaml.safe_dump({"datasets": ["shop"], "sources": {"shop": source}, **sections}))
        return read(path, "shop").publish.features

    assert features(AMAZON, ["minilm", "tfidf"]) == ["minilm", "tfidf"]
    assert features(MMREC, ["tfidf"]) == ["tfidf"]
    assert features(MMREC, []) == []
    assert features(MMREC, [], publish={"features": ["theirs"]}) == ["theirs"]
    assert features(AMAZON, ["minilm"], publish={"features": ["minilm-cnn4096"]}) == ["minilm-cnn4096"]


def test_titles_fall_back_to_identifiers_and_only_others_features_release_nothing(tmp_path: Path) -> None:
    layout = published(tmp_path, texts="none")
    assert item_titles(pq.read_table(layout.release / "items.parquet")) == [f"A{i}" for i in range(toy.ITEMS)]
    releases.published(layout, toy.params(sources={"shop": MMREC}, publish={"features": []}))
    assert not layout.release.exists()
    (warning,) = io.read_json(layout.run_record("publish"))["notes"]["warnings"]
    assert "publish.features" in warning


# --- users in a release: none, numbers or names, as most of a user's items can be inferred from the vector


NAMES = [f"U{u}" for u in range(toy.USERS)]
VECTORS, USERS = "embeddings/users.parquet", "users.parquet"


def says(release: Path) -> bytes:
    """Return all bytes of a release, with tables decompressed."""
    tables = [
        json.dumps(pq.read_table(p, partitioning=None).to_pylist(), default=str) for p in release.rglob("*.parquet")
    ]
    return "".join(tables).encode() + b"".join(p.read_bytes() for p in release.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("without"), interactions=False).release


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("numbered"), interactions=False, users="numbers").release


def test_without_interactions_nothing_of_single_users_goes_out(without: Path) -> None:
    assert not any((without / name).exists() for name in (VECTORS, USERS, "interactions.parquet"))
    assert manifest.load(without).counts.interactions == 16
    assert not any(f'"{name}"'.encode() in says(without) for name in NAMES)
    card = " ".join((without / "README.md").read_text().split())
    assert "not part of the release. The release has no data of single users" in card
    assert "user_embeddings" not in (without / "croissant.json").read_text()


def test_numbers_release_vectors_without_names(numbered: Path) -> None:
    assert pq.read_schema(numbered / VECTORS).names == ["user_id", "vector"]
    assert not any(f'"{name}"'.encode() in says(numbered) for name in NAMES)
    card = " ".join((numbered / "README.md").read_text().split())
    assert "Users have numbers here, no names. A user's vector reveals many of the items" in card
    assert "numbered_user_embeddings/vector" in (numbered / "croissant.json").read_text()


def test_numbers_replace_names_next_to_interactions(tmp_path: Path) -> None:
    layout = published(tmp_path, users="numbers")
    assert not any(f'"{name}"'.encode() in says(layout.release) for name in NAMES)
    release = Release(layout.release).verify()
    assert release.users["user"].to_pylist() == ["0", "1", "2", "3"]
    assert len(release.interactions) == 16


def test_names_are_released_on_request(tmp_path: Path) -> None:
    layout = published(tmp_path, interactions=False, users="names")
    assert pq.read_table(layout.release / VECTORS)["user"].to_pylist() == NAMES
    assert "Users are named. A user's vector reveals" in (layout.release / "README.md").read_text()


def test_interactions_without_users_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"publish\.users is none, .*numbers"):
        published(tmp_path, users="none")


def test_a_user_number_that_is_not_in_order_is_named(numbered: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(numbered, tmp_path / "copy")
    table = pq.read_table(copy / VECTORS)
    pq.write_table(table.take([1, 0, 2, 3]).replace_schema_metadata(table.schema.metadata), copy / VECTORS)
    releases.relist(copy, VECTORS)
    with pytest.raises(UserError, match=r"users\.parquet, row 0: user_id 1, expected 0"):
        list(verify(copy))


def test_what_reads_a_release_does_without_users(without: Path, numbered: Path) -> None:
    release = alignrec.load(without)
    assert release.item_embeddings.shape == (toy.ITEMS, 3)
    with pytest.raises(UserError, match=r"publish\.users"):
        release.embeddings  # noqa: B018
    assert Release(without).embeddings("items").num_rows == toy.ITEMS
    with pytest.raises(UserError, match="no vectors of users"):
        Release(without).embeddings("users")
    users = alignrec.load(numbered).embeddings.users
    assert users.ids.tolist() == [0, 1, 2, 3]
    assert np.array_equal(users, io.matrix(Release(numbered).embeddings("users")["vector"]))
