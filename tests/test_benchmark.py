from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shops import ITEMS, USERS, content, two_tastes

import schemas
from pipeline import benchmark, graph, io
from pipeline.benchmark import Job
from pipeline.config import Benchmark, Params, Train
from pipeline.layout import Layout
from pipeline.metrics import judge
from pipeline.run import running
from stages.benchmark import main


def test_jobs_train_id_models_once_a_seed() -> None:
    asked = Benchmark(models=["alignrec", "bpr"], features=["a", "b"], seeds=2)
    assert benchmark.jobs(asked) == [
        *(Job("alignrec", features, seed) for features in ("a", "b") for seed in (0, 1)),
        Job("bpr", "none", 0),
        Job("bpr", "none", 1),
    ]


def test_overrides_change_only_what_they_name() -> None:
    asked = Benchmark.model_validate({"overrides": {"bpr": {"lr": 0.5}}})
    train = Train(lr=0.1, patience=3)
    assert (asked.settings("bpr", train).lr, asked.settings("bpr", train).patience) == (0.5, 3)
    assert asked.settings("alignrec", train) == train
    assert asked.model_dump()["overrides"] == {"bpr": {"lr": 0.5}}


def record(model: str, seed: int, recall: float) -> dict:  # type: ignore[type-arg]
    means = {"recall@20": recall, "ndcg@20": recall / 2}
    return {
        "model": model,
        "features": "f",
        "seed": seed,
        "protocol": "mmrec",
        "metrics": {"valid": means, "test": means},
    }


def test_results_are_long_and_summary_is_mean_and_sd() -> None:
    records = [record("bpr", 0, 0.1), record("bpr", 1, 0.3), record("vbpr", 0, 0.5)]
    table = schemas.check(benchmark.results("shop", records), schemas.RESULTS)
    assert len(table) == 3 * 2 * 2
    assert table.slice(2, 1).to_pylist() == [
        {
            "dataset": "shop",
            "model": "bpr",
            "features": "f",
            "seed": 0,
            "protocol": "mmrec",
            "split": "test",
            "metric": "recall",
            "k": 20,
            "selected_by": "valid",
            "value": 0.1,
        }
    ]
    found = benchmark.summary(records, 20)
    assert found["bpr"]["f"]["recall@20"] == pytest.approx({"mean": 0.2, "sd": np.sqrt(0.02)})
    assert found["vbpr"]["f"] == {"recall@20": {"mean": 0.5}, "ndcg@20": {"mean": 0.25}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layout, split = Layout(tmp_path, "shop"), two_tastes()
    parts = [(pairs, n) for n, pairs in enumerate((split.train, split.valid, split.test))]
    users, items = (np.concatenate([getattr(pairs, name) for pairs, _ in parts]) for name in ("users", "items"))
    table = {
        "user_id": users,
        "item_id": items,
        "rating": pa.nulls(len(users), pa.float32()),
        "timestamp": pa.nulls(len(users), pa.int64()),
        "split": np.concatenate([np.full(len(pairs), n, np.int8) for pairs, n in parts]),
    }
    io.write_table(pa.table(table), layout.interactions, schemas.INTERACTIONS)
    names = {"user_id": np.arange(USERS, dtype=np.int32), "user": [f"u{i}" for i in range(USERS)]}
    io.write_table(pa.table(names), layout.users, schemas.USERS)
    ids = {"item_id": np.arange(ITEMS, dtype=np.int32), "asin": [f"i{i}" for i in range(ITEMS)]}
    io.write_table(pa.table(ids), layout.item_ids, schemas.ITEM_IDS)
    known = {"has_image": pa.nulls(ITEMS, pa.bool_()), "has_text": pa.nulls(ITEMS, pa.bool_())}
    rows = pa.table(ids | known | {"vector": io.vectors(content())})
    io.write_table(rows, io.shard(layout.features("f"), "features", 0), schemas.features(content().shape[1]))
    io.write_table(graph.neighbours(content(), 4), layout.edges("f"), schemas.EDGES)
    return tmp_path


def sweep(root: Path, models: list[str]) -> dict[str, bytes]:
    params = Params.model_validate(
        {
            "datasets": ["shop"],
            "sources": {"shop": {"kind": "sample"}},
            "train": {"dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01},
            "benchmark": {"models": models, "features": ["f"], "seeds": 2, "ks": [5, 20], "workers": 2},
        }
    )
    with running("benchmark", "shop", params, root) as run:
        main(run)
    base = root / "benchmark/shop"
    return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file() and p.name != "run.json"}


def test_an_interrupted_sweep_goes_on_and_ends_the_same(root: Path) -> None:
    whole = sweep(root, ["bpr", "alignrec"])
    layout = Layout(root, "shop")
    untouched = layout.trial("bpr", "none", 0)
    before = untouched.stat().st_mtime_ns
    layout.trial("alignrec", "f", 1).unlink()
    layout.results.unlink()
    assert sweep(root, ["bpr", "alignrec"]) == whole
    assert untouched.stat().st_mtime_ns == before

    record = io.read_json(untouched)
    shown = io.read_table(layout.trial_rankings("bpr", "none", 0), schemas.rankings(20))
    top = np.array(shown["items"].to_pylist(), np.int32)
    judged = judge(top, shown["user_id"].to_numpy(), two_tastes().test, ITEMS, [5, 20]).mean
    assert record["metrics"]["test"]["ndcg@5"] == judged["ndcg", 5]  # the rankings are what the figures are of

    fewer = sweep(root, ["bpr"])
    assert [name for name in fewer if "alignrec" in name and not name.endswith(".key")] == []
