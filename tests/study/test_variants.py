"""Variants of pre-training on a toy shop: what is compared, what is trained, and what a kill leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studied

import schemas
from pipeline import engine, io
from pipeline.evaluation.statistics import holm
from pipeline.experiment.cell import Cell, outcome
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables.variants import FORMS, SETS
from pipeline.layout import Layout
from pipeline.pretrain import frozen
from pipeline.probe import asking, questions
from pipeline.probe.base import Data
from pipeline.seeds import seed_for
from pipeline.study import branch
from pipeline.study.branch import Branch
from pipeline.study.settings import variant_params
from stages.params import Params, load

pytestmark = pytest.mark.usefixtures("one_process")

STUDY: dict[str, Any] = {"variants": {"still": {"steps": 0}, "hidden": {"hide": 0.4}}, "seeds": 2, "workers": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with its encoder, and a study of two variants that has been run."""
    root = tmp_path_factory.mktemp("shop")
    study(root, studied.encoded(root, study=STUDY))
    return root


def study(root: Path, params: Params) -> list[dict[str, Any]]:
    """Run the variants; return the rows of the table."""
    studied.part("variants", params, root)
    return rows(root)


def rows(root: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = io.read_table(Layout(root, "toy").study("variants"), schemas.VARIANTS).to_pylist()
    return table


def only(table: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = (row for row in table if all(row[key] == value for key, value in wanted.items()))
    return row


def test_every_variant_has_its_probes_and_its_recommender_beside_the_recipe(shop: Path) -> None:
    table = rows(shop)
    assert list(dict.fromkeys(row["variant"] for row in table)) == ["recipe", "still", "hidden", "tfidf"]
    for variant in ("recipe", "still", "hidden"):
        judged = {(r["what"], r["features"], r["form"]) for r in table if r["variant"] == variant}
        assert judged == {
            *((probe, name, form) for probe in ("item_cf", "content_knn") for name in SETS for form in FORMS),
            *(("alignrec", name, "raw") for name in ("beit3", "beit3-raw")),
        }
    assert {r["seeds"] for r in table if r["what"] == "alignrec"} == {2}
    assert {r["fingerprint"] for r in table} == {table[0]["fingerprint"]}


def test_the_recipe_is_the_datasets_own_encoder(shop: Path) -> None:
    params, layout, table = load(shop / "params.yaml"), Layout(shop, "toy"), rows(shop)
    assert not Branch(shop, "toy", "variants/recipe/0").folder("pretrain").exists()
    experiment = Experiment(studied.run("study", params, shop), 1)
    cells = [benchmark.whole(experiment, layout, "beit3", seed) for seed in (0, 1)]
    recalls = [outcome(cell).values["judged"][0]["metrics"]["test"]["recall@20"] for cell in cells]
    row = only(table, variant="recipe", what="alignrec", features="beit3", metric="recall", k=20)
    assert row["mean"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert row["sd"] == pytest.approx(np.std(recalls, ddof=1), abs=1e-12)
    data = Data(io.read_table(layout.interactions, schemas.INTERACTIONS), studied.ITEMS)
    vectors = io.matrix(io.read_features(layout.features("beit3-image-masked"))["vector"])
    hits = questions.hits(vectors, asking.ask(data)["item_cf"], [20])  # type: ignore[arg-type]
    masked = only(table, variant="recipe", what="item_cf", features="beit3-image-masked", form="raw", k=20)
    assert masked["mean"] == pytest.approx(hits.mean(), abs=1e-12)


def test_a_variant_is_tested_against_the_recipe(shop: Path) -> None:
    table = rows(shop)
    at = {"what": "item_cf", "form": "raw", "k": 20}
    released = only(table, variant="recipe", features="beit3", **at)
    assert released["difference"] is None
    for variant in ("still", "recipe"):  # CLS as it is, beside the released vector: what whitening does
        raw = only(table, variant=variant, features="beit3-raw", **at)
        assert raw["difference"] == pytest.approx(raw["mean"] - released["mean"], abs=1e-12)
        assert raw["low"] <= raw["difference"] <= raw["high"]
    masked, own = (only(table, variant=v, features="beit3-text-masked", **at) for v in ("still", "recipe"))
    assert masked["difference"] == pytest.approx(masked["mean"] - own["mean"], abs=1e-12)
    assert own["p"] is None
    tfidf = only(table, variant="tfidf", features="tfidf", **at)
    assert tfidf["encoder_seed"] is None
    assert tfidf["difference"] == pytest.approx(tfidf["mean"] - released["mean"], abs=1e-12)


def test_p_is_corrected_for_the_tests_of_one_table(shop: Path) -> None:
    table = [row for row in rows(shop) if row["p"] is not None]
    recommended = [row for row in table if row["what"] == "alignrec"]
    assert {row["metric"] for row in recommended} == {"recall", "ndcg"}
    assert {row["k"] for row in recommended} == {20}
    for family in (recommended, [r for r in table if (r["features"], r["form"]) == ("beit3", "processed")]):
        mine = [row for row in family if row["what"] == family[0]["what"] or row["what"] != "alignrec"]
        assert len(mine) > 2
        assert [r["p_holm"] for r in mine] == pytest.approx(list(holm(np.array([r["p"] for r in mine]))))


def test_a_second_run_trains_nothing_and_more_seeds_train_what_is_new(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "shop"
    shutil.copytree(shop, root)
    params, before = load(root / "params.yaml"), contents(root)
    trained: list[list[Cell]] = []
    each = engine.each

    def counted(work: Any, jobs: Any, workers: int) -> Any:
        trained.extend(jobs)
        return each(work, jobs, workers)

    def never(*_: Any) -> None:
        raise AssertionError("an encoder is trained again")

    monkeypatch.setattr(engine, "each", counted)
    monkeypatch.setattr("pipeline.pretrain.train.fit", never)
    study(root, params)
    assert trained == []
    assert contents(root) == before
    study(root, params.model_copy(update={"study": params.study.model_copy(update={"seeds": 3})}))
    assert {cell.seed for (cell,) in trained} == {seed_for("benchmark", "toy", "alignrec", 2)}
    assert len(trained) == 7  # beit3 and beit3-raw of three variants, and tfidf


def contents(root: Path) -> dict[str, bytes]:
    """Return what the study left, without keys and locks."""
    folder = Layout(root, "toy").folder("study")
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "cost.json"}


def test_several_encoders_of_a_variant_are_tested_together(tmp_path: Path) -> None:
    few = {"variants": {"still": {"steps": 0}}, "encoder_seeds": 2, "seeds": 1, "workers": 1}
    table = study(tmp_path, studied.encoded(tmp_path, study=few, pretrain={"seed": 3}))
    at = {"what": "content_knn", "features": "beit3", "form": "raw", "k": 20}
    for variant in ("recipe", "still"):
        each = [only(table, variant=variant, encoder_seed=seed, **at) for seed in (3, 4)]
        together = only(table, variant=variant, encoder_seed=None, **at)
        assert [row["p"] for row in each] == [None, None]
        assert together["mean"] == pytest.approx(np.mean([row["mean"] for row in each]))
        assert (together["seeds"], together["sd"] is None) == (2, False)
    assert together["p_holm"] is not None
    assert not Branch(tmp_path, "toy", "variants/recipe/3").folder("pretrain").exists()
    assert Branch(tmp_path, "toy", "variants/recipe/4").encoder.weights.exists()
    assert {row["features"] for row in table if row["what"] == "alignrec"} == {"beit3", "beit3-raw", "tfidf"}


def test_a_teacher_is_asked_once_for_all_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = {"distill": 1.0, "distill_from": ["tfidf"]}
    given = {"variants": {"one": taught, "two": taught | {"lr": 0.002, "words": "minilm"}}, "seeds": 1, "workers": 1}
    params = load(studied.write(tmp_path, study=given))
    made, encoded = list[Path](), frozen.encoded

    def counted(rows: Any, n_items: int, path: Path) -> np.ndarray:
        made.extend([] if path.is_file() else [path])
        return encoded(rows, n_items, path)

    monkeypatch.setattr(frozen, "encoded", counted)
    run = studied.run("study", params, tmp_path)
    for name in given["variants"]:
        branch.prepared(run, variant_params(params, name), Branch(tmp_path, "toy", f"variants/{name}/0"), [], [])
    assert len(made) == 1
    weights = [Branch(tmp_path, "toy", f"variants/{name}/0").encoder.weights.read_bytes() for name in given["variants"]]
    assert weights[0] != weights[1]
