"""Wrong content, and what each loss prevents, on a shop of two tastes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shops
import torch
import toy

import schemas
from pipeline.errors import UserError
from pipeline.experiment.observed import measure_geometry
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import geometry, wrong
from pipeline.experiment.tables.wrong import Contended
from pipeline.layout import Layout
from pipeline.models.alignrec import AlignRec, AlignRecParams
from pipeline.models.base import Inputs
from pipeline.report import argument
from pipeline.report import studied as page
from pipeline.run import Run
from pipeline.train import inputs
from stages.params import Params

pytestmark = pytest.mark.usefixtures("one_process")


def params(**study: Any) -> Params:
    return toy.params(
        train={"features": "f", "dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01},
        graph={"k": 4},
        benchmark={"ks": [5, 20], "overrides": {"vbpr": {"epochs": 2}}},
        study=study,
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a shop with a set of wrong images: each item has the vector of one of the other taste."""
    layout = shops.outputs(tmp_path)
    shops.write_set(layout, "f-wrong-image", np.roll(shops.content(), 1, axis=0))
    return layout


def studied(layout: Layout, part: Any, **study: Any) -> tuple[Experiment, pa.Table]:
    experiment = Experiment(Run("study", "shop", params(**study), layout.root), 1)
    (written,) = part.table(experiment, experiment.complete(part.plan(experiment))).values()
    return experiment, written


WRONG = {"models": ["alignrec", "vbpr"], "features": ["f"], "what": ["image"], "ratios": [1.0, 0.5], "seeds": 2}


def test_wrong_content_is_tested_against_the_same_model_on_the_whole_set(layout: Layout) -> None:
    experiment, table = studied(layout, wrong, wrong=WRONG)
    assert schemas.check(table, schemas.WRONG).num_rows == 6
    rows = table.to_pylist()
    assert [(r["model"], r["what"], r["ratio"]) for r in rows[:3]] == [
        ("alignrec", "nothing", 0.0), ("alignrec", "image", 0.5), ("alignrec", "image", 1.0),
    ]  # fmt: skip
    assert [r["difference"] is None for r in rows] == [True, False, False] * 2
    for row in rows[1:3]:
        assert row["difference"] == pytest.approx(row["mean"] - rows[0]["mean"])
    assert len(experiment.named) == 12  # two models, three contents, two seeds
    (shown,) = argument.wrong(table)
    assert [row[2] for row in shown.rows[:3]] == ["whole", "another item's image, 50 %", "another item's image, 100 %"]
    (rows,) = argument.by_fingerprint(table)
    assert [chart.title.split(":")[0] for chart in page.spoilt(rows)] == ["alignrec on f", "vbpr on f"]
    assert argument.wrong(table.slice(0, 0)) == argument.geometry(schemas.GEOMETRY.empty_table()) == []
    with pytest.raises(UserError, match="bpr"):  # which reads no features
        studied(layout, wrong, wrong=WRONG | {"models": ["bpr"]})


def test_all_wrong_is_the_wrong_set_itself(layout: Layout) -> None:
    experiment = Experiment(Run("study", "shop", params(wrong=WRONG), layout.root), 1)
    mixed = wrong.plan_cell(experiment, Contended("alignrec", "f", "image", 1.0, 0)).data.read()[0]  # type: ignore[attr-defined]
    itself = inputs.read(layout, "f-wrong-image")
    assert itself.features is not None
    np.testing.assert_array_equal(mixed.features, itself.features)
    assert itself.edges is not None
    assert mixed.edges.to_pylist() == itself.edges.to_pylist()
    half = wrong.plan_cell(experiment, Contended("vbpr", "f", "image", 0.5, 0)).data.read()[0].features  # type: ignore[attr-defined]
    assert (half != shops.content()).any(1).sum() == shops.ITEMS // 2


def test_a_loss_that_is_left_out_has_a_line_an_epoch_and_no_patience_ends_it(layout: Layout) -> None:
    experiment, table = studied(layout, geometry, geometry={"without": ["reg", "cca"], "seeds": 1})
    assert schemas.check(table, schemas.GEOMETRY).num_rows == 9
    rows = table.to_pylist()
    assert [(r["without"], r["epoch"]) for r in rows[:4]] == [*(("nothing", n) for n in range(3)), ("reg", 0)]
    settings = {one.without: cell.settings for one, cell in geometry.plan(experiment).items()}
    assert (settings["reg"].reg, settings["reg"].cca, settings["cca"].cca) == (0.0, 0.01, 0.0)  # type: ignore[attr-defined]
    (shown,) = argument.geometry(table)
    assert [row[0] for row in shown.rows] == ["AlignRec", "without REG", "without CCA"]
    assert len(page.shaped(argument.shapes(table))) == len(argument.SHAPES)


def test_looking_changes_nothing(layout: Layout) -> None:
    _, table = studied(layout, geometry, geometry={"without": ["reg"], "seeds": 1})
    experiment, seen = studied(layout, wrong, wrong=WRONG | {"models": ["alignrec"], "seeds": 1})
    assert len(seen)
    whole = next(iter(experiment.complete(wrong.plan(experiment)).values()))
    curve = [r["recall@20"] for r in table.to_pylist() if r["without"] == "nothing"]
    assert np.maximum.accumulate(curve).tolist() == whole.values["curve"]


def test_the_shape_of_equal_vectors_is_a_line(layout: Layout) -> None:
    data = inputs.read(layout, "f")
    features = torch.from_numpy(shops.content())
    model = AlignRec(Inputs(data.split, features, data.edges, torch.device("cpu")), AlignRecParams(dim=8)).eval()
    with torch.no_grad():
        model.item.copy_(torch.arange(1.0, 51)[:, None] * torch.ones(8))
        model.user.copy_(torch.ones(60, 8))
    seen = measure_geometry(model, data.split.train.users, data.split.train.items)
    assert seen["id_rank"] == pytest.approx(1, abs=1e-4)
    assert seen["id_energy"] == pytest.approx(1, abs=1e-4)
    assert -1.001 <= seen["content_id"] <= 1.001
    assert 0 <= seen["kept"] <= 1.001
