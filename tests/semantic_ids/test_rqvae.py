"""The RQ-VAE: its losses and gradients by hand, codes that come to life, a history, no luck with threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coding import SHAPE, error, fitted, groups

from pipeline.errors import UserError
from pipeline.semantic_ids import rqvae
from pipeline.semantic_ids.base import Shape
from pipeline.semantic_ids.rqvae import RQVAE, Network, RQVAEParams

X = groups()


def network(levels: int = 2) -> Network:
    torch.manual_seed(0)
    made = Network(10, Shape(levels, 4), RQVAEParams(hidden=[6], width=3))
    torch.nn.init.normal_(made.codebooks)
    return made


def test_the_losses_are_the_equations() -> None:
    made, x = network(), torch.from_numpy(X[:5])
    terms, codes = made(x, coded=True)
    rest = z = made.encoder[1](made.encoder[0](x).relu())
    total, commitment = torch.zeros_like(z), 0.0
    for level in range(2):
        near = torch.cdist(rest, made.codebooks[level]).argmin(1)
        assert codes[:, level].tolist() == near.tolist()
        total = total + made.codebooks[level][near]
        rest = z - total
        commitment += float((rest**2).sum(1).mean().detach())
    decoded = made.decoder[1](made.decoder[0](total).relu())
    assert float(terms["reconstruction"].detach()) == pytest.approx(
        float(((x - decoded) ** 2).sum(1).mean().detach()), rel=1e-5
    )
    assert float(terms["commitment"].detach()) == pytest.approx(commitment, rel=1e-5)
    assert float(terms["codebook"].detach()) == pytest.approx(commitment, rel=1e-5)


def gradients(made: Network, loss: torch.Tensor) -> dict[str, float]:
    made.zero_grad()
    loss.backward()
    norms = {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in made.named_parameters()}
    return {part: sum(v for name, v in norms.items() if name.startswith(part)) for part in ("enc", "cod", "dec")}


@pytest.mark.parametrize(
    ("term", "moves"), [("reconstruction", {"enc", "dec"}), ("codebook", {"cod"}), ("commitment", {"enc"})]
)
def test_each_loss_moves_only_its_part(term: str, moves: set[str]) -> None:
    made = network()
    found = gradients(made, made(torch.from_numpy(X[:5]), coded=True)[0][term])
    assert {part for part, norm in found.items() if norm > 0} == moves


def test_the_gradient_goes_straight_through_the_codes() -> None:
    made, x = network(), torch.from_numpy(X[:5])
    made(x, coded=True)[0]["reconstruction"].backward()
    straight = made.encoder[1].bias.grad.clone()
    tensors = {name: value.detach().numpy() for name, value in made.state_dict().items()}
    loaded = RQVAE.from_tensors(tensors, Shape(2, 4))
    code = torch.from_numpy(loaded.quantiser.decode(loaded.encode(X[:5]))).requires_grad_()
    decoded = made.decoder[1](made.decoder[0](code).relu())
    (of_code,) = torch.autograd.grad(((x - decoded) ** 2).sum(1).mean(), code)
    torch.testing.assert_close(straight, of_code.sum(0))


def test_it_learns_and_keeps_a_history() -> None:
    made = fitted("rqvae", X, epochs=40)
    assert [line["epoch"] for line in made.history] == list(range(40))
    coded = [line for line in made.history if "commitment" in line]
    assert len(coded) == 36  # after a warm-up of a tenth
    assert coded[-1]["reconstruction"] < 0.8 * coded[0]["reconstruction"]
    assert all(len(line["used"]) == 3 for line in coded)
    assert error(made, X, made.encode(X)) == pytest.approx(coded[-1]["reconstruction"], rel=0.1)


def test_numpy_and_torch_give_the_same_codes() -> None:
    made = fitted("rqvae", X)
    assert isinstance(made, RQVAE)
    torch_ = Network(10, SHAPE, RQVAEParams(hidden=[16], width=4))
    torch_.load_state_dict({name: torch.from_numpy(x) for name, x in made.tensors().items()})
    _, codes = torch_(torch.from_numpy(X), coded=True)
    assert (codes.numpy() == made.encode(X)).mean() > 0.999  # but for ties


def test_unused_codes_are_revived() -> None:
    made, x = network(), torch.from_numpy(X)
    with torch.no_grad():
        made.codebooks[:, 1:] = 1000.0  # all vectors take code 0
    optimiser = torch.optim.AdamW(made.parameters())
    sum(made(x, coded=True)[0].values()).backward()
    optimiser.step()
    _, codes = made(x, coded=True)
    counts = torch.stack([torch.bincount(column, minlength=4) for column in codes.T])
    assert (counts > 0).sum(1).tolist() == [1, 1]
    rqvae.revive_codes(made, optimiser, counts, x, 0.1)
    assert all(len(column.unique()) > 1 for column in made(x, coded=True)[1].T)
    assert not optimiser.state[made.codebooks]["exp_avg"][:, 1:].any()


def test_a_loss_that_explodes_is_one_line_and_no_warm_up_and_one_epoch_are_allowed() -> None:
    with pytest.raises(UserError, match=r"epoch \d+; .*'semantic_ids.settings.rqvae.lr'"):
        fitted("rqvae", X, lr=1e30)
    made = fitted("rqvae", X, warm_up=0.0, epochs=1, hidden=[], batch_size=7)
    assert len(made.history) == 1
    assert np.isfinite(made.decode(made.encode(X))).all()
