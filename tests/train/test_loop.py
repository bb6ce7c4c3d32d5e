""""""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from shops import content, interactions, two_tastes

from alignrec.pipeline.evaluation.metrics import evaluate_vectors
from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.interactions import split
from alignrec.pipeline.interactions.split import contains_keys, load_split, pair_keys
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.ops.checkpoint import Checkpoint
from alignrec.pipeline.train import loop
from alignrec.pipeline.train.inputs import Sampler
from alignrec.pipeline.train.loop import Fit, fit

SETTINGS = {"dim": 8, "batch_size": 64, "lr": 0.02, "epochs": 12, "patience": 30}
TRAINED = ("alignrec", "bpr", "lightgcn", "vbpr")


def settings(model: str, **keys: Any) -> Train:
    return MODELS[model].Params(**SETTINGS | keys)


def train(model: str, keys: dict[str, Any] | None = None, seed: int = 0, **more: Any) -> Fit:
    features, edges = content(), neighbours.find_neighbours(content(), 4)
    return fit(MODELS[model], two_tastes(), features, edges, settings(model, **keys or {}), seed, **more)


WALKING: list[tuple[str, dict[str, Any]]] = [
    ("lightgcn", {}),
    *(("alignrec", {"mode": mode}) for mode in ("compat", "learned", "frozen")),
    ("alignrec", {"content": False}),
]


@pytest.mark.parametrize(("model", "keys"), WALKING)
def test_batches_that_share_a_walk_have_the_gradients_of_their_mean_loss(model: str, keys: dict[str, Any]) -> None:
    edges, parts = neighbours.find_neighbours(content(), 4), two_tastes()
    torch.manual_seed(0)
    inputs = Inputs(parts, torch.from_numpy(content()), edges, torch.device("cpu"))
    network = MODELS[model](inputs, settings(model, **keys))
    batches = [Batch(*rows) for rows in torch.from_numpy(Sampler(parts).epoch(np.random.default_rng(0))).split(100, 1)]
    assert len(batches[-1].users) < 100
    terms = [network.loss(batch) for batch in batches]
    (sum(sum(own.values()) for own in terms) / len(batches)).backward()  # type: ignore[union-attr]
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}  # type: ignore[union-attr]
    network.zero_grad()
    totals = loop.accumulate_gradients(network, batches)
    assert {n: float(t) for n, t in totals.items()} == pytest.approx(
        {name: sum(float(own[name].detach()) for own in terms) for name in terms[0]}, rel=1e-5
    )
    assert expected.keys() == {name for name, p in network.named_parameters() if p.grad is not None}
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("model", TRAINED)
def test_killed_and_resumed_is_as_if_undisturbed(model: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 7:
            raise Killed

    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 3)
    with pytest.raises(Killed):
        train(model, checkpoint=checkpoint, progress=kill)
    resumed: list[int] = []
    trained = train(model, checkpoint=checkpoint, progress=lambda line: resumed.append(line["epoch"]))
    assert resumed == list(range(6, 12))
    whole = train(model)
    assert trained.history == whole.history
    assert trained.best_epoch == whole.best_epoch
    assert save(trained.state) == save(whole.state)
    assert np.array_equal(trained.user, whole.user)


def test_returns_the_best_epoch_and_stops_after_patience() -> None:
    trained = train("bpr", {"lr": 0.05, "epochs": 200, "patience": 4})
    curve = [round(line["valid_recall@20"], 4) for line in trained.history]
    assert trained.best_epoch == int(np.argmax(curve))  # the first of equal ones
    assert len(curve) == trained.best_epoch + 5 < 200
    mean = evaluate_vectors(trained.user, trained.item, two_tastes(), "valid", [20]).mean
    assert mean["recall", 20] == trained.valid["recall@20"] == trained.history[trained.best_epoch]["valid_recall@20"]


def test_a_run_goes_on_while_its_loss_is_falling() -> None:
    keys = {"variant": "paper", "lr": 0.05, "epochs": 200, "patience": 4}
    plain, all_of_it, patient = (train("bpr", keys | {"falling": share}) for share in (None, 1.0, 0.02))
    assert all_of_it.history == plain.history  # no loss falls by more than all of itself
    ended, loss = len(plain.history), [line["loss"] for line in patient.history]
    assert patient.history[:ended] == plain.history
    assert ended < len(loss) < 200
    falls = [loss[epoch - 4] - loss[epoch] for epoch in range(ended - 1, len(loss))]
    late = [epoch - patient.best_epoch >= 5 for epoch in range(ended - 1, len(loss))]
    assert all(fall > 0.02 * loss[0] or not waited for fall, waited in zip(falls[:-1], late[:-1], strict=True))
    assert falls[-1] <= 0.02 * loss[0]
    assert late[-1]


def test_a_diverging_loss_names_epoch_and_settings() -> None:
    with pytest.raises(UserError, match=r"VBPR: .*epoch 0 .*'lr': 1e\+30"):
        fit(MODELS["vbpr"], two_tastes(), content(), None, settings("vbpr", lr=1e30), 0)


def rejects(message: str, model: str, features: Any = None, edges: Any = None, parts: Any = None) -> None:
    with pytest.raises(UserError, match=message):
        fit(MODELS[model], parts or two_tastes(), features, edges, settings(model), 0)


def test_bad_input_is_named() -> None:
    rejects("AlignRec needs edges", "alignrec", content())
    rejects("VBPR needs features", "vbpr")
    rejects("features have 3 rows, the catalogue has 50 items", "vbpr", content()[:3])
    holed = content()
    holed[5, 2] = np.nan
    rejects("features, row 5: not finite", "vbpr", holed)
    wide = neighbours.find_neighbours(np.concatenate([content(), content(1)]), 3)
    rejects("edges name items beyond the catalogue's 50", "alignrec", content(), wide)
    rejects("no valid interactions", "bpr", parts=split.load_split(interactions([(0, 0, 0)]), 1, 1))


# --- sampling


def test_an_epoch_has_every_pair_once_and_no_negative_that_the_user_has() -> None:
    split = two_tastes()
    users, positives, negatives = Sampler(split).epoch(np.random.default_rng(0))
    taken = pair_keys(split.train, split.n_items)
    assert sorted(users * split.n_items + positives) == taken.tolist()
    assert not contains_keys(taken, users * split.n_items + negatives).any()


def test_negatives_are_uniform_over_what_is_left_of_train_items() -> None:
    split = load_split(interactions([(0, 0, 0), *((1, i, 0) for i in range(1, 5)), (0, 5, 1)]), 2, 7)
    rng = np.random.default_rng(0)
    sampler = Sampler(split)
    drawn = [negative for _ in range(4000) for user, _, negative in sampler.epoch(rng).T if user == 0]
    counts = np.bincount(drawn, minlength=7)
    assert counts[[0, 5, 6]].tolist() == [0, 0, 0]  # own, valid only, never seen
    assert np.abs(counts[1:5] / 4000 - 0.25).max() < 0.03


def test_a_user_who_has_everything_is_left_out() -> None:
    split = load_split(interactions([(0, 0, 0), (0, 1, 0), (1, 0, 0)]), 2, 2)
    users, _, negatives = Sampler(split).epoch(np.random.default_rng(0))
    assert (users.tolist(), negatives.tolist()) == ([1], [1])
