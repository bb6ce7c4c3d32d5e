"""AlignRec against the published code's numbers on one small case (tests/oracles/alignrec_step.npz, copied from the
reference run: 60 users, 45 items, 24-d features, D = 16, K = 5, batch 32), and its parts against plain versions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import adjacency, alignrec
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.infonce import info_nce

NAMES = {
    "user": "user_embedding",
    "item": "item_embedding",
    "features": "features",
    "w1.weight": "w1_weight",
    "w1.bias": "w1_bias",
    "w2.weight": "w2_weight",
    "w2.bias": "w2_bias",
}
EMPTY = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    with np.load(Path(__file__).parents[1] / "oracles/alignrec_step.npz", allow_pickle=False) as archive:
        yield {name: archive[name] for name in archive.files}


@pytest.fixture
def inputs(oracle: Any) -> Inputs:
    order = np.lexsort((oracle["items"], oracle["users"]))
    train = Pairs(oracle["users"][order].astype(np.int32), oracle["items"][order].astype(np.int32))
    split = Split(int(oracle["n_users"]), int(oracle["n_items"]), train, EMPTY, EMPTY)
    edges = neighbours.find_neighbours(oracle["features"], int(oracle["knn_k"]))
    return Inputs(split, torch.from_numpy(oracle["features"]), edges, torch.device("cpu"))


def build(oracle: Any, inputs: Inputs, **settings: Any) -> alignrec.AlignRec:
    model = alignrec.AlignRec(inputs, alignrec.AlignRecParams(dim=16, batch_size=int(oracle["batch_size"]), **settings))
    state = {ours: torch.from_numpy(oracle[f"param_{theirs}"]) for ours, theirs in NAMES.items() if ours != "features"}
    model.load_state_dict(state, strict=False)
    return model


@pytest.fixture
def model(oracle: Any, inputs: Inputs) -> alignrec.AlignRec:
    return build(oracle, inputs)


@pytest.fixture(scope="module")
def batch(oracle: Any) -> Batch:
    return Batch(*(torch.from_numpy(oracle[f"batch_{part}"]) for part in ("users", "pos", "neg")))


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    values = ours.detach().numpy() if isinstance(ours, Tensor) else ours
    np.testing.assert_allclose(values, theirs, rtol=0, atol=tolerance)


def test_graphs_terms_and_gradients_of_a_step(
    oracle: Any, inputs: Inputs, model: alignrec.AlignRec, batch: Batch
) -> None:
    user_item = adjacency.normalise_by_degrees(adjacency.interaction_matrix(inputs.split))
    close(user_item.toarray(), oracle["adj_user_item"], 1e-6)
    close(adjacency.item_graph(inputs.edges, inputs.split.n_items).toarray(), oracle["item_graph"], 1e-6)
    for branch, name in ((model.id_branch(), "h_id"), (model.content_branch(), "h_mm")):
        close(torch.cat(branch), oracle[name], 1e-6)
    for ours, name in zip(model(), ("h_user", "h_item"), strict=True):
        close(ours, oracle[name], 1e-6)
    terms = model.loss(batch)
    align = 0.01 * (oracle["loss_cca_items"] + oracle["loss_cca_users"])
    expected = {"bpr": oracle["loss_bpr"], "l2": oracle["loss_l2"], "cca": align}
    expected |= {name: 0.1 * oracle[f"loss_{name}"] for name in ("reg", "uia")}
    values = {name: float(term.detach()) for name, term in terms.items()}
    assert values == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)
    total = torch.stack(list(terms.values())).sum()
    assert float(total.detach()) == pytest.approx(float(oracle["loss_total"]), abs=1e-6)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients.keys() == NAMES.keys()
    for ours, theirs in NAMES.items():
        close(gradients[ours], oracle[f"grad_{theirs}"], 1e-7)


def losses(model: alignrec.AlignRec, batch: Batch, lr: float) -> list[float]:
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, fused=True)
    values = []
    for _ in range(10):
        loss = torch.stack(list(model.loss(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    return values


def test_ten_steps_of_compat(oracle: Any, model: alignrec.AlignRec, batch: Batch) -> None:
    close(np.array(losses(model, batch, float(oracle["adam_lr"]))), oracle["adam_losses_compat"], 1e-6)
    user, item = model()
    close(user @ item.T, oracle["scores_after"], 1e-5)


def test_only_compat_trains_features_and_target(oracle: Any, inputs: Inputs, batch: Batch) -> None:
    model = build(oracle, inputs, mode="frozen")
    curve = losses(model, batch, float(oracle["adam_lr"]))
    close(model.features, oracle["features"], 0)
    close(model.target, oracle["features"], 0)
    assert curve[0] == pytest.approx(float(oracle["adam_losses_compat"][0]), abs=1e-6)
    assert abs(curve[-1] - float(oracle["adam_losses_compat"][-1])) > 1e-6


def rows(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


COUNTS = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0], dtype=torch.float64)


def repeated(table: Tensor) -> Tensor:
    return table.repeat_interleave(COUNTS.long(), dim=0)


def test_info_nce_is_the_plain_one_on_the_repeated_batch() -> None:
    x, y = nnf.normalize(rows(5, 3, 0)), nnf.normalize(rows(5, 3, 1))
    logits = repeated(x) @ repeated(y).T / 0.2
    plain = -torch.log_softmax(logits, 1).diagonal().mean()
    torch.testing.assert_close(info_nce(x, y, COUNTS, 0.2), plain)


def test_info_nce_in_blocks_has_the_right_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignrec.pipeline.models.infonce.LOGIT_ROWS", 2)
    x, y = rows(5, 3, 0).requires_grad_(), rows(5, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: info_nce(nnf.normalize(x), nnf.normalize(y), COUNTS, 0.2), (x, y))


@pytest.mark.parametrize("width", [2, 4, 7])
def test_reg_is_the_plain_norm_on_the_repeated_batch(width: int) -> None:
    content, features = rows(5, 3, 0).requires_grad_(), rows(5, width, 1)
    e, c = repeated(content), nnf.normalize(repeated(features))
    plain = torch.linalg.norm(e @ e.T - c @ c.T) / len(e)
    ours = alignrec.reg_loss(content, features, COUNTS)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, content)[0] for loss in (ours, plain)))


def test_bf16_is_exact_up_to_its_rounding(oracle: Any, inputs: Inputs, batch: Batch) -> None:
    """bfloat16 has a relative error of 2^-8 = 0.4 % per factor; losses and gradients stay within a few of them."""
    exact, rounded = build(oracle, inputs), build(oracle, inputs, precision="bf16")
    rounded.bf16 = True  # also on CPUs where oneDNN has no bfloat16
    for model in (exact, rounded):
        torch.stack(list(model.loss(batch).values())).sum().backward()
    for (name, ours), theirs in zip(rounded.named_parameters(), exact.parameters(), strict=True):
        apart = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert 0 <= apart < 0.01, name
    assert not torch.equal(rounded.w1.weight.grad, exact.w1.weight.grad)
    rounded.zero_grad()
    close(np.array(losses(rounded, batch, float(oracle["adam_lr"]))), oracle["adam_losses_compat"], 1e-3)
