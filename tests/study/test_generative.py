"""Codes in use as a part of the study: who is trained, what is tested, and that a kill changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shipped
import shops
import yaml
from sequential_toys import CYCLE, STEP, table

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.experiment.sequences import codes
from pipeline.experiment.tables import generative
from pipeline.facts import study
from pipeline.graph import neighbours
from pipeline.layout import Layout
from pipeline.run import Run, running
from pipeline.semantic_ids import files
from pipeline.sequential import loop
from stages import semantic_ids
from stages.params import Params, load, read
from stages.study import main

pytestmark = pytest.mark.usefixtures("one_process")

USERS = 36
OWN = {"features": ["f"], "seeds": 2, "dim": 16, "epochs": 6, "batch_size": 64, "length": 6, "ks": [1, 3], "beams": 8}


def params(**keys: Any) -> Params:
    sections = {
        "datasets": ["shop"],
        "sources": {"shop": {"kind": "sample"}},
        "train": {"features": "f"},
        "semantic_ids": {"features": ["f"], "levels": 2, "codes": 4, "methods": ["residual-kmeans", "random"]},
        "study": {"mask": {"ratios": []}, "tail": False, "workers": 1, "generative": OWN | keys},
    }
    return Params.model_validate(sections)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a shop whose users go round a cycle of items, one of which has no content, with semantic IDs."""
    layout = shops.outputs(tmp_path)
    rows = [(u, (u + STEP * t) % CYCLE, t) for u in range(USERS) for t in range(9)]
    io.write_table(table(rows), layout.interactions, schemas.INTERACTIONS)
    names = {"user_id": np.arange(USERS, dtype=np.int32), "user": [f"u{i}" for i in range(USERS)]}
    io.write_table(pa.table(names), layout.users, schemas.USERS)
    ids = {"item_id": np.arange(CYCLE, dtype=np.int32), "asin": [f"i{i}" for i in range(CYCLE)]}
    io.write_table(pa.table(ids), layout.item_ids, schemas.ITEM_IDS)
    known = {"has_image": pa.nulls(CYCLE, pa.bool_()), "has_text": pa.nulls(CYCLE, pa.bool_())}
    content = shops.content()[:CYCLE]
    content[3] = 0
    vectors = pa.table(ids | known | {"vector": io.vectors(content)})
    io.write_table(vectors, io.shard(layout.features("f"), "features", 0), schemas.features(shops.WIDTH))
    io.write_table(neighbours.neighbours(content, 4), layout.edges("f"), schemas.EDGES)
    io.write_table(untitled(ids), layout.items, schemas.ITEMS)
    semantic_ids.main(Run("semantic_ids", "shop", params(), layout.root))
    return layout


def untitled(ids: dict[str, Any]) -> pa.Table:
    """Return table ITEMS of items without any text."""
    n = len(ids["asin"])
    filled = ids | {"text_status": ["empty"] * n, "tokens": np.zeros(n, np.int32)}
    others = [field for field in schemas.ITEMS if field.name not in filled]
    return pa.table(filled | {f.name: pa.array([[] if pa.types.is_list(f.type) else ""] * n, f.type) for f in others})


def studied(layout: Layout, **keys: Any) -> tuple[pa.Table, pa.Table]:
    """Run the stage; return tables GENERATIVE and GENERATIVE_TESTS."""
    with running("study", "shop", params(**keys), layout.root) as run:
        main(run)
    own, tests = (io.read_table(layout.study(part), schemas.STUDY[part]) for part in ("generative", "generative_tests"))
    return own, tests


def test_every_contender_has_test_figures_of_every_seed_and_is_tested_against_the_others(layout: Layout) -> None:
    own, tests = studied(layout, epochs=2)
    rows = [row for row in own.to_pylist() if (row["split"], row["metric"], row["k"]) == ("test", "recall", 3)]
    assert [(row["model"], row["method"], row["seed"]) for row in rows] == [
        ("tiger", "residual-kmeans", 0), ("tiger", "random", 0), ("sasrec", "none", 0),
        ("tiger", "residual-kmeans", 1), ("tiger", "random", 1), ("sasrec", "none", 1), ("popularity", "none", 0),
    ]  # fmt: skip
    assert {row["protocol"] for row in rows} == {"strict, leave-one-out"}
    sides = [(row["method_a"], row["method_b"]) for row in tests.to_pylist() if row["metric"] == "recall"]
    assert sides == [("residual-kmeans", "random"), ("residual-kmeans", "none"), ("random", "none")]
    for row in tests.to_pylist():
        mean = {side: np.mean([
            one["value"] for one in own.to_pylist()
            if (one["split"], one["metric"], one["k"]) == ("test", row["metric"], row["k"])
            and (one["model"], one["method"]) == (row[f"model_{side}"], row[f"method_{side}"])
        ]) for side in "ab"}  # fmt: skip
        assert (row["mean_a"], row["mean_b"]) == pytest.approx((mean["a"], mean["b"]))
        assert row["n"] == USERS


def test_networks_read_ids_features_or_both(layout: Layout) -> None:
    keys = {"methods": ["random"], "networks": ["sasrec", "bsarec"], "reads": ["ids", "features"], "seeds": 1}
    own, tests = studied(layout, **keys)
    rows = [row for row in own.to_pylist() if (row["split"], row["metric"], row["k"]) == ("test", "recall", 3)]
    assert [(row["model"], row["features"], row["method"]) for row in rows] == [
        ("tiger", "f", "random"), ("bsarec", "f", "features"), ("sasrec", "f", "features"),
        ("bsarec", "none", "none"), ("sasrec", "none", "none"), ("popularity", "none", "none"),
    ]  # fmt: skip
    assert len({row["value"] for row in rows}) > 2
    assert len(tests) == 2 * (3 + 6 + 1)  # two metrics; one feature set, each of it beside ids, ids
    words = [study.contender(row) for row in rows]
    assert words[:4] == ["tiger, random codes of f", "bsarec, features of f", "sasrec, features of f", "bsarec"]


def test_a_killed_study_goes_on_and_ends_the_same(layout: Layout) -> None:
    whole = studied(layout, rates=[0.01, 0.001], epochs=2)
    records = sorted(layout.cells("study").glob("*.json"))
    assert len(records) == 3 * 2 + 3 * 2 + 1
    for path in records[::3]:
        path.unlink()
    layout.study("generative").unlink()
    assert studied(layout, rates=[0.01, 0.001], epochs=2) == whole
    assert sorted(layout.cells("study").glob("*.json")) == records
    assert [*layout.cells("study").rglob("*.safetensors")] == []  # what only a killed run needs


def test_a_run_that_opens_test_goes_on_where_its_trial_ended(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, rankings = list[str](), loop.rankings
    monkeypatch.setattr(loop, "rankings", lambda *given: judged.append("an epoch") or rankings(*given))
    studied(layout, rates=[0.01, 0.001], seeds=1)
    records = [io.read_json(path) for path in layout.cells("study").glob("*.json")]
    assert len(judged) == sum(record["epochs"] for record in records if record["cell"]["opens"] == "valid")


def test_valid_chooses_the_rate_and_test_stays_closed_for_the_others(layout: Layout) -> None:
    own, _ = studied(layout, rates=[1e-6, 0.01], seeds=1)
    chosen = {row["rate"] for row in own.to_pylist() if row["split"] == "test" and row["model"] == "sasrec"}
    assert chosen == {0.01}
    assert {row["split"] for row in own.to_pylist() if row["rate"] == 1e-6 and row["model"] == "sasrec"} == {"valid"}


def test_a_seed_more_trains_itself_alone(layout: Layout) -> None:
    studied(layout, seeds=1)
    before = {path: path.stat().st_mtime_ns for path in layout.cells("study").glob("*.json")}
    studied(layout, seeds=2)
    assert len([*layout.cells("study").glob("*.json")]) == len(before) + 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_empty_it_trains_nothing_and_reads_no_codes(layout: Layout) -> None:
    own, tests = studied(layout, features=[])
    assert len(own) == len(tests) == 0
    assert not layout.cells("study").exists()


def test_ids_that_collide_are_told_apart_and_items_without_content_have_none(layout: Layout) -> None:
    kept = params().model_copy(update={"semantic_ids": params().semantic_ids.model_copy(update={"collisions": "keep"})})
    for given in (params(), kept):
        semantic_ids.main(Run("semantic_ids", "shop", given, layout.root))
        rows, ids = codes(layout.semantic_ids("f", "residual-kmeans"))
        assert rows.tolist() == [i for i in range(CYCLE) if i != 3]
        assert len(np.unique(ids, axis=0)) == CYCLE - 1


def test_absent_codes_and_times_are_one_line(layout: Layout) -> None:
    (layout.semantic_ids("f", "random") / files.IDS).unlink()
    assert [one.method for one in generative.contenders(params().study.generative, layout)] == [
        "residual-kmeans",
        "none",
    ]
    with pytest.raises(UserError, match="run `alignrec semantic_ids shop` first"):
        studied(layout, methods=["random"])
    timeless = io.read_table(layout.interactions, schemas.INTERACTIONS)
    at = timeless.schema.get_field_index("timestamp")
    none = pa.nulls(len(timeless), pa.int64())
    io.write_table(timeless.set_column(at, "timestamp", none), layout.interactions, schemas.INTERACTIONS)
    with pytest.raises(UserError, match=r"study\.generative needs times"):
        studied(layout)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"feature": ["f"]}, r"unknown key 'study.generative.feature'; did you mean 'features'\?"),
        ({"features": ["g"]}, "'study.generative.features'"),
        ({"methods": ["rqvea"]}, "'study.generative.methods'"),
        ({"beams": 5}, "5 beams cannot rank 20 items"),
        ({"dim": 63}, "dim 63 must be a multiple of heads, 2"),
    ],
)
def test_what_is_misspelt_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = tmp_path / "params.yaml"
    written = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}, "study": {"generative": given}}
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(UserError, match=message):
        read(path)


def test_the_profile_is_sample_with_codes_in_use() -> None:
    root = shipped.root()
    profile, sample = load(root / "profiles" / "generative.yaml"), load(root / "params.yaml")
    for section in ("interactions", "pretrain", "encode", "encoders", "graph", "semantic_ids", "train", "benchmark"):
        assert getattr(profile, section) == getattr(sample, section), section
    assert profile.study.generative.features
    assert profile.study.generative.seeds >= 5
    assert not sample.study.generative.features
