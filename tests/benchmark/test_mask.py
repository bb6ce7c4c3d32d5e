"""Mask modality on a shop of two tastes."""

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shops
import toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.benchmark import study
from alignrec.pipeline.benchmark.cell import Hidden, train_and_judge
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.benchmark.params import Mask, Study
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.benchmark.study import Masked
from alignrec.pipeline.evaluation.metrics import evaluate_vectors
from alignrec.pipeline.harness import engine
from alignrec.pipeline.harness.config import checked
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.loop import fit
from alignrec.schemas import MODALITIES, variant

pytestmark = pytest.mark.usefixtures("one_process")


def params(rule: str) -> Params:
    return toy.params(
        train={"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01},
        graph={"k": 4},
        study={"mask": {"ratios": [0.5], "seeds": 2}, "workers": 1, "tail": False},
        benchmark={"protocol": rule},
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a shop whose feature set also exists with each modality masked."""
    layout = shops.outputs(tmp_path)
    for n, modality in enumerate(MODALITIES, start=1):
        shops.write_set(layout, variant("f", modality), shops.content(n))
    return layout


def test_a_record_is_judged_by_the_protocol_that_it_names(layout: Layout) -> None:
    parts, recalls = shops.two_tastes(), []
    for rule in ("mmrec", "strict"):
        settings = params(rule)
        rules = protocol_of(settings, "shop", parts)
        recall, record = measured(layout, settings, Masked("f", "nothing", 0, 0), 5)
        seed = seed_for("benchmark", "shop", "alignrec", 0)
        fitted = fit(AlignRec, *inputs.read_inputs(layout, "f"), settings.train.resolved(), seed)
        expected = evaluate_vectors(fitted.user, fitted.item, parts, "test", [5], rules.seen_pairs(parts, "test"))
        assert recall == expected.mean["recall", 5]
        assert (record["protocol"], record["fingerprint"]) == (rule, rules.fingerprint)
        recalls.append(recall)
    assert recalls[1] > recalls[0]  # a valid item can no longer take a test item's place


def measured(layout: Layout, settings: Params, one: Masked, k: int = 20) -> tuple[float, dict[str, Any]]:
    """Train; return test Recall@K and how it was judged."""
    experiment = Experiment(Run("study", "shop", settings, layout.root), 1)
    (judged,) = train_and_judge(study.mask_cell(experiment, one)).values["judged"]
    return judged["metrics"]["test"][f"recall@{k}"], judged


def studied(layout: Layout, **mask: object) -> pa.Table:
    """Run the stage; return table MASK."""
    settings = params("mmrec")
    if mask:
        changed = settings.study.model_copy(update={"mask": checked(Mask, mask)})
        settings = settings.model_copy(update={"study": changed})
    toy.run("study", settings, layout.root)
    return io.read_table(layout.study("mask"), schemas.MASK)


def test_the_whole_set_is_trained_once_and_ratios_share_their_runs(layout: Layout) -> None:
    few = studied(layout, ratios=[0.5, 0], seeds=1).to_pylist()
    assert [(row["modality"], row["ratio"]) for row in few] == [("nothing", 0.0), ("image", 0.5), ("text", 0.5)]
    before = {path: path.stat().st_mtime_ns for path in layout.cells("study").glob("*.json")}
    more = studied(layout, ratios=[0, 0.5, 1], seeds=1).to_pylist()
    assert [row for row in more if row["ratio"] < 1] == few
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())  # a ratio more trains itself alone
    none = params("mmrec").model_copy(update={"study": Study()})
    run = toy.run("study", none, layout.root)
    assert not list(run.folder.glob("**/*.parquet"))  # no table is named
    assert not layout.cells("study").exists()


def test_whole_sets_are_the_benchmarks_own_cells(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = params("mmrec")
    changed = settings.benchmark.model_copy(update={"models": ["alignrec"], "features": ["f"], "seeds": 2})
    whole = settings.model_copy(update={"benchmark": changed})
    toy.run("benchmark", whole, layout.root)
    trained: list[Any] = []
    monkeypatch.setattr(engine, "each", lambda work, jobs, _: trained.extend(jobs) or ((j, work(j)) for j in jobs))
    toy.run("study", whole, layout.root)
    rows = io.read_table(layout.study("mask"), schemas.MASK).to_pylist()
    assert len(trained) == len([row for row in rows if row["modality"] != "nothing"]) == 4
    results = io.read_table(layout.results, schemas.RESULTS).to_pylist()
    wanted = ("recall", 20, "test", 1)
    (recall,) = [r["value"] for r in results if (r["metric"], r["k"], r["split"], r["seed"]) == wanted]
    assert [row["recall@20"] for row in rows if (row["modality"], row["seed"]) == ("nothing", 1)] == [recall]


def test_all_hidden_is_the_masked_set_itself_and_none_hidden_the_whole(layout: Layout) -> None:
    settings = params("mmrec")
    trainings = [("f", "nothing", 0), ("f", "image", 0), ("f", "image", 1), ("f-image-masked", "nothing", 0)]
    whole, none, every, itself = (measured(layout, settings, Masked(*one, 0))[0] for one in trainings)
    assert (whole, every) == (none, itself)


def test_what_is_masked_at_a_ratio_is_masked_at_every_larger_one() -> None:
    shares = [Hidden("image", ratio, 7).rows(50) for ratio in (0, 0.1, 0.2, 0.5, 1)]
    assert [int(rows.sum()) for rows in shares] == [0, 5, 10, 25, 50]
    assert all((larger[rows]).all() for rows, larger in itertools.pairwise(shares))
