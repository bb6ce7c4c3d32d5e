"""A release's terms and carried files follow the source's terms unless overridden."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import releases
import toy
import yaml

from alignrec import schemas
from alignrec.commands.params import read
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.release import verify
from alignrec.pipeline.report.gallery import item_titles
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
