"""Ablations of AlignRec: without changes it is AlignRec, and each key changes what it names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
import yaml
from shop import cold, tastes, toy
from torch import Tensor

from alignrec.pipeline.evaluation.benchmark import ablations, plan
from alignrec.pipeline.evaluation.benchmark.ablations import AblatedAlignRec, AblationParams
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel
from alignrec.pipeline.evaluation.benchmark.experiment import Experiment
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import ABLATED, MODELS, RELEASED, adjacency
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.runtime.run import Run

PROFILES = Path(__file__).parents[3] / "profiles"
CHANGES: dict[str, Any] = {
    "content": False,
    "gate": False,
    "cca_users": False,
    "self_neighbour": False,
    "symmetric": True,
    "fixed_target": True,
    "reg_cosine": True,
    "l2_constant": False,
}
CPU = torch.device("cpu")


def inputs() -> Inputs:
    edges = neighbours.find_neighbours(tastes.content(), 5)
    return Inputs(tastes.two_tastes(), torch.from_numpy(tastes.content()), edges, CPU)


def build(**keys: Any) -> AblatedAlignRec:
    torch.manual_seed(0)
    return AblatedAlignRec(inputs(), AblationParams.model_validate({"dim": 8, "batch_size": 100} | keys))


def batch(pairs: int = 64) -> Batch:
    train = tastes.two_tastes().train
    negatives = torch.from_numpy(np.random.default_rng(0).integers(0, tastes.ITEMS, pairs))
    users, positives = (torch.from_numpy(ids[:pairs]).long() for ids in (train.users, train.items))
    return Batch(users, positives, negatives)


def trained(model: str, **keys: Any) -> Fit:
    settings = {"dim": 8, "batch_size": 100, "lr": 0.02, "epochs": 1} | keys
    data = inputs()
    assert data.features is not None
    params = MODELS[model].Params.model_validate(settings)
    return fit(MODELS[model], data.split, data.features.numpy(), data.edges, params, 0)


def test_without_changes_it_is_alignrec() -> None:
    ours, plain = trained(ABLATED), trained(RELEASED)
    assert ours.history == plain.history
    np.testing.assert_array_equal(ours.item, plain.item)


def test_cca_is_of_items_only_without_that_of_users() -> None:
    model = build(cca_users=False)
    full = build()
    terms = [network.terms(batch(), *network.tables()) for network in (model, full)]
    rows = ablations.BatchRows.of(batch())
    id_user, _, mm_user, _ = full.tables()
    users = rows.users
    of_users = full.cca(mm_user[users.rows], id_user[users.rows], users)
    difference = terms[1]["cca"] - terms[0]["cca"]
    torch.testing.assert_close(difference, full.params.cca * of_users)
    for name in ("bpr", "l2", "reg", "uia"):
        torch.testing.assert_close(terms[0][name], terms[1][name])


def test_cold_is_the_only_key_that_leaves_training_as_it_is() -> None:
    histories = {key: trained(ABLATED, **{key: value}).history for key, value in CHANGES.items()}
    plain = trained(RELEASED).history
    assert {*CHANGES, "cold"} == AblationParams.model_fields.keys() - MODELS[RELEASED].Params.model_fields.keys()
    assert [key for key, history in histories.items() if history == plain] == []


@pytest.mark.parametrize("profile", ["paper", "article"])
def test_profiles_undo_every_step_by_one_key(profile: str) -> None:
    rows = yaml.safe_load((PROFILES / f"{profile}.yaml").read_text())["benchmark"]["ablations"]
    changed = [tuple(keys.items()) for keys in rows.values()]
    assert {((key, value),) for key, value in CHANGES.items()} <= {*changed}
    for keys in rows.values():
        AblationParams.model_validate(keys)


def test_a_row_of_the_benchmark_is_ablated_with_the_seed_of_the_full_model(tmp_path: Path) -> None:
    tastes.outputs(tmp_path)
    settings = toy.params(
        train={"features": "f"},
        benchmark={"features": ["f"], "ks": [5], "ablations": {"x": {"gate": False}}},
    )
    experiment = Experiment(Run("benchmark", "shop", settings, tmp_path), 1)
    entries = [CellLabel(RELEASED, "f", 0), CellLabel(RELEASED, "f", 0, "x")]
    full, ablated = plan.plan_cells(experiment, entries, plan.Tuned({})).values()
    assert (full.model, ablated.model) == (RELEASED, ABLATED)
    assert full.seed == ablated.seed
    assert isinstance(ablated.settings, AblationParams)
    assert not ablated.settings.gate


def test_without_content_it_is_the_id_branch() -> None:
    model = build(content=False)
    assert [name for name, _ in model.named_parameters()] == ["user", "item"]
    assert list(model.loss(batch())) == ["bpr", "l2", "uia"]
    for ours, branch in zip(model(), model.id_branch(), strict=True):
        assert torch.equal(ours, branch)


def test_without_gate_the_projection_is_propagated_over_the_item_graph() -> None:
    model, data = build(gate=False), inputs()
    assert data.edges is not None
    assert data.features is not None
    graph = adjacency.item_graph(data.edges, tastes.ITEMS).toarray()
    expected = graph @ model.w1(data.features).detach().numpy()
    np.testing.assert_allclose(model.content_branch()[1].detach(), expected, atol=1e-5)


def test_item_graph_without_itself_and_with_edges_both_ways() -> None:
    """For directions at 0, 20 and 50 degrees, the nearest of 0 is 1, of 1 is 0, of 2 is 1."""
    angle = np.radians([0, 20, 50])
    edges = neighbours.find_neighbours(np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), 2)
    own = [[0, 0], [1, 1], [2, 2]]
    one_way = [[0, 1], [1, 0], [2, 1]]
    assert np.argwhere(adjacency.item_graph(edges, 3).toarray()).tolist() == sorted(own + one_way)
    others = ablations.drop_self_edges(edges)
    assert np.argwhere(adjacency.item_graph(others, 3).toarray()).tolist() == one_way
    both = adjacency.item_graph(ablations.mirror_edges(edges, 3), 3).toarray()
    assert np.argwhere(both).tolist() == sorted([*own, *one_way, [1, 2]])
    np.testing.assert_allclose(both, both.T, rtol=1e-6)


def test_a_fixed_target_stays_while_features_are_trained() -> None:
    model, data = build(fixed_target=True), inputs()
    assert data.features is not None
    with torch.no_grad():
        model.features += 1
    assert torch.equal(model.target, data.features)
    assert torch.equal(build().target, data.features)


def similarity(rows: Tensor) -> Tensor:
    return rows @ rows.T


def test_reg_compares_cosines_or_dot_products() -> None:
    data, step = inputs(), batch()
    assert data.features is not None
    target = similarity(nnf.normalize(data.features)[step.positives])
    for reg_cosine in (False, True):
        model = build(reg_cosine=reg_cosine, reg=1.0)
        content = model.content_branch()[1][step.positives]
        ours = similarity(nnf.normalize(content) if reg_cosine else content)
        expected = torch.linalg.norm(ours - target) / len(step.positives)
        torch.testing.assert_close(model.loss(step)["reg"], expected, rtol=1e-4, atol=1e-6)


def test_l2_is_divided_by_the_size_of_a_short_batch() -> None:
    penalty = build(l2_constant=False, l2=1.0).loss(batch(40))["l2"]
    by_constant = build(l2=1.0).loss(batch(40))["l2"]
    torch.testing.assert_close(penalty * 40, by_constant * 100)


def test_cold_items_score_by_their_neighbours_alone_where_their_ids_are_zero() -> None:
    split, edges = cold.parts(), neighbours.find_neighbours(cold.content(), 6)
    data = Inputs(split, torch.from_numpy(cold.content()), edges, CPU)
    models = {}
    for choice in ("drawn", "zero"):
        torch.manual_seed(0)
        models[choice] = AblatedAlignRec(data, AblationParams.model_validate({"dim": 8, "cold": choice}))
    lacking = torch.from_numpy(np.setdiff1d(np.arange(split.n_items), split.train.items))
    with torch.no_grad():
        in_training = [model() for model in models.values()]
        assert all(torch.equal(drawn, zero) for drawn, zero in zip(*in_training, strict=True))
        for model in models.values():
            model.eval()
        (_, drawn), (_, zero) = models["drawn"](), models["zero"]()
        assert not torch.equal(drawn[lacking], zero[lacking])
        models["zero"].item[lacking] = 9.0
        assert torch.equal(models["zero"]()[1], zero)
        assert not models["zero"].id_branch()[1][lacking].any()
        assert zero[lacking].any()  # what the item graph brings
