"""`chosen`: candidates tried on valid alone within a budget; the winner is released, and what was tried is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.features import search
from pipeline.features.search import Candidate
from pipeline.features.sets import FeatureSets
from pipeline.layout import Layout
from pipeline.run import running
from stages.encode import main
from stages.params import Params
from tests.probe.test_cold_items import GOOD, ITEMS, NOISE, PAIRS, data

ASINS = [f"A{i}" for i in range(ITEMS)]


def shop(root: Path) -> Layout:
    """A shop whose words tell the tastes of test_cold_items, beside a file of noise."""
    layout = Layout(root, "shop")
    ids = {"item_id": pa.array(range(ITEMS), pa.int32()), "asin": ASINS}
    io.write_table(pa.table(ids), layout.item_ids, schemas.ITEM_IDS)
    io.write_table(data().interactions, layout.interactions, schemas.INTERACTIONS)
    words = [" ".join(f"word{j}{int(10 * abs(v))}" for j, v in enumerate(row)) for row in GOOD]
    blank = pa.array([""] * ITEMS)
    texts = {"title": words, "brand": blank, "categories": pa.array([[]] * ITEMS, pa.list_(pa.string()))}
    texts |= {"description": blank, "text": words, "text_status": ["ok"] * ITEMS}
    texts |= {"image_urls": texts["categories"], "tokens": pa.array([6] * ITEMS, pa.int32()), "extra": ["{}"] * ITEMS}
    io.write_table(pa.table(ids | texts), layout.items, schemas.ITEMS)
    noise = root / "noise.npy"
    np.save(noise, NOISE)
    facts = {"name": noise.name, "url": f"file:{noise}", "bytes": noise.stat().st_size, "sha256": io.sha256(noise)}
    (layout.raw / noise.name).parent.mkdir(parents=True, exist_ok=True)
    (layout.raw / noise.name).write_bytes(noise.read_bytes())
    io.write_json(layout.sources, [{"role": "features/noise", **facts}])
    return layout


def params(seconds: int = 1, **own: Any) -> Params:
    encode = {"encoders": ["tfidf", "best"], "controls": [], "shard_rows": 128}
    best = {"kind": "chosen", "of": ["tfidf"], "width": 8, "seconds": seconds, **own}
    return toy.params(encode=encode, encoders={"best": best})


def stage(layout: Layout, given: Params) -> bytes:
    """Run the stage; return the files of the set."""
    with running("encode", "shop", given, layout.root) as run:
        main(run)
    return b"".join(p.read_bytes() for p in sorted(layout.features("best").glob("*.parquet")))


def tried(layout: Layout) -> list[dict[str, Any]]:
    return io.read_table(layout.tried("best"), schemas.TRIED).to_pylist()


def test_candidates_begin_with_linear_and_each_is_there_once() -> None:
    found = search.candidates(["tfidf", "cnn"], ["beit3"], images=True)
    assert found[0] == Candidate(("tfidf", "cnn"), 0.5, 0.6, "none")
    assert len(set(found)) == len(found)
    assert {one.of for one in found} == {("tfidf", "cnn"), ("tfidf", "cnn", "beit3"), ("beit3",), ("tfidf",), ("cnn",)}
    assert {one.image for one in search.candidates(["tfidf"], [], images=False)} == {0.6}


def test_the_budget_decides_how_many_are_tried_and_valid_which_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECOND", 5e6)
    layout = shop(tmp_path)
    first = stage(layout, params())
    rows = tried(layout)
    assert 1 < len(rows) < 12
    scores = [row["score"] for row in rows]
    assert [row["chosen"] for row in rows] == [i == int(np.argmax(scores)) for i in range(len(rows))]
    for row in rows:
        assert row["score"] == pytest.approx(np.sqrt(row["warm"] * row["cold"]), abs=2e-6)
    again = shop(tmp_path / "again")
    assert stage(again, params()) == first  # the same choice twice
    assert stage(layout, params(seconds=2)) != first
    assert len(tried(layout)) > len(rows)


def test_a_killed_search_goes_on_with_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, figures, calls = shop(tmp_path), search.Trial.figures, list[Candidate]()

    def killed(self: search.Trial, candidate: Candidate) -> tuple[float, float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(candidate)
        return figures(self, candidate)

    monkeypatch.setattr(search.Trial, "figures", killed)
    with pytest.raises(KeyboardInterrupt):
        stage(layout, params())
    calls.append(calls[0])
    done = stage(layout, params())
    monkeypatch.undo()
    assert done == stage(shop(tmp_path / "whole"), params())
    assert not (layout.features("best") / ".tried.json").exists()


def test_test_rows_choose_nothing(tmp_path: Path) -> None:
    layout, other = shop(tmp_path), shop(tmp_path / "other")
    table = data().interactions
    split = table["split"].to_numpy()
    io.write_table(table.filter(split != schemas.TEST), other.interactions, schemas.INTERACTIONS)
    stage(layout, params(mapped=True))
    stage(other, params(mapped=True))
    assert tried(layout) == tried(other)
    assert {row["map"] for row in tried(layout)} > {"none"}


def test_by_default_nothing_learns_from_interactions_and_the_record_names_the_winners_parts(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    given = params()
    stage(layout, given)
    rows = tried(layout)
    assert {row["map"] for row in rows} == {"none"}
    won = next(row for row in rows if row["chosen"])
    said = io.record(io.shards(layout.features("best"), "features")[0])["encoder"]
    assert [part["name"] for part in said["parts"]] == won["of"]
    assert "map" not in said
    assert not FeatureSets.of(layout, given.encode, given.encoders)["best"].learned


def test_a_map_learns_again_without_cold_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = shop(tmp_path)
    monkeypatch.setattr(search, "MAPS", ("alone",))
    given = params(mapped=True)
    stage(layout, given)
    node = FeatureSets.of(layout, given.encode, given.encoders)["best"]
    cold = np.unique(PAIRS[1])[::5]
    whole = io.matrix(io.read_features(layout.features("best"))["vector"])
    np.testing.assert_array_equal(node.relearned(cold[:0]), whole)
    without = node.relearned(cold)
    assert np.abs(without - whole).max() > 1e-3
    table = data().interactions
    kept = ~np.isin(table["item_id"].to_numpy(), cold) | (table["split"].to_numpy() != schemas.TRAIN)
    io.write_table(table.filter(kept), layout.interactions, schemas.INTERACTIONS)
    np.testing.assert_array_equal(node.relearned(cold[:0]), without)  # no interaction of theirs goes in


def same_words(layout: Layout) -> None:
    """Give all items one text."""
    items = io.read_table(layout.items, schemas.ITEMS)
    text = pa.array(["thing number 3 of kind 3"] * ITEMS)
    for name in ("title", "text"):
        items = items.set_column(items.column_names.index(name), name, text)
    io.write_table(items, layout.items, schemas.ITEMS)


@pytest.mark.parametrize("name", ["best", "linear"])
def test_a_set_that_tells_no_items_apart_is_left_out_and_said(tmp_path: Path, name: str) -> None:
    layout = shop(tmp_path)
    same_words(layout)
    io.write_json(layout.sources, [one | {"role": "feature:noise"} for one in io.read_json(layout.sources)])
    own = {"kind": "chosen" if name == "best" else "linear", "of": ["tfidf", "noise"], "width": 8}
    encode = {"encoders": ["tfidf", name], "controls": [], "shard_rows": 128}
    given = toy.params(encode=encode, encoders={name: own})
    with running("encode", "shop", given, tmp_path) as run:
        main(run)
        assert f"{name}: made without tfidf, whose vectors are all the same" in run.warnings
    assert np.linalg.matrix_rank(io.matrix(io.read_features(layout.features(name))["vector"])) > 1
    assert all("tfidf" not in row["of"] for row in (tried(layout) if name == "best" else ()))
    nothing = toy.params(encode=encode, encoders={name: own | {"of": ["tfidf"]}})
    with (
        pytest.raises(UserError, match=f"'encoders.{name}': none of tfidf"),
        running("encode", "shop", nothing, tmp_path) as run,
    ):
        main(run)
