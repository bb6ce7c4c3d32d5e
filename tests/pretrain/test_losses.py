"""What is learned: each term beside a slow, obvious version of it, and what it brings about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining import MASK, network, task
from torch import Tensor

from pipeline.config import Pretrain
from pipeline.ops.checkpoint import Checkpoint
from pipeline.pretrain import losses
from pipeline.pretrain.batches import Task, batch
from pipeline.pretrain.corpus import Corpus, Rates
from pipeline.pretrain.held_out import features
from pipeline.pretrain.loop import fit
from pipeline.pretrain.losses import Learner, Step

ALL = {"itc": 1.0, "collaborative": 1.0, "common_users": 1}


def _step(**params: Any) -> tuple[Step, Learner]:
    made = task(12, _near(12), **params)
    step = batch(made, np.arange(12), Rates(0.5, 0.5, 0.5, 0.0), 3, company=True)
    torch.manual_seed(1)
    return step, _learner(made)


def _learner(made: Task) -> Learner:
    return Learner(network(), made.params, MASK, torch.from_numpy(made.corpus.rarity(12)))


def _near(n: int) -> np.ndarray:
    """Item i's partners are i + 1 and i + 2, round the circle; the last two have none."""
    found = np.stack([(np.arange(n) + 1) % n, (np.arange(n) + 2) % n], axis=1)
    found[-2:] = -1
    return found


def test_losses_at_chance_are_the_logarithm_of_the_number_of_choices() -> None:
    """A network that knows nothing pays log C for a patch and log V for a piece."""
    step, learner = _step(content=0.0)
    with torch.no_grad():
        for head in (learner.network.mim_head, learner.network.mlm_head, learner.summary.codes, learner.summary.words):
            head.weight.zero_()
            head.bias.zero_()
        found = learner(step, step.counts())
    log_c, log_v = float(np.log(8)), float(np.log(12))
    assert found.tolist() == pytest.approx([log_c, log_v, log_c + log_v, 0, 0, 0], abs=1e-5)


def test_masked_content_does_not_reach_the_prediction() -> None:
    step, learner = _step()
    image, ids = step.shown.image.clone(), step.shown.ids.clone()
    at = step.patches.unflatten(1, (2, 2)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image[at[:, None].expand_as(image)] = 0.7
    ids[step.pieces] = 4
    changed = step._replace(shown=step.shown._replace(image=image, ids=ids))
    with torch.no_grad():
        pairs = zip(
            losses.predict(learner.network, step, MASK),
            losses.predict(learner.network, changed, MASK),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_nothing_masked_costs_nothing() -> None:
    step, learner = _step(summary=0.0, content=0.0)
    bare = step._replace(patches=torch.zeros_like(step.patches), pieces=torch.zeros_like(step.pieces))
    with torch.no_grad():
        assert learner(bare, bare.counts()).tolist() == [0, 0, 0, 0, 0, 0]


def test_the_terms_of_parts_add_up_to_those_of_the_whole() -> None:
    made = task(12, content=0.0)
    learner = _learner(made)
    whole = batch(made, np.arange(12), made.rates, 3)
    parts = [batch(made, part, made.rates, 3) for part in np.array_split(np.arange(12), 3)]
    with torch.no_grad():
        summed = sum(learner(part, whole.counts()) for part in parts)
        torch.testing.assert_close(summed, learner(whole, whole.counts()), rtol=0, atol=1e-6)


def test_content_is_the_plain_formula() -> None:
    step, learner = _step()
    content, rarity = learner.content, task(12).corpus.rarity(12)
    with torch.no_grad():
        found = float(learner(step, step.counts())[3])
        cls = F.normalize(content.read(losses.predict(learner.network, step, MASK).cls), dim=1)
        bags = []
        for ids, codes, has_image in zip(step.shown.ids.tolist(), step.codes.tolist(), step.has_image, strict=True):
            words = sum(content.pieces.weight[i] * float(rarity[i]) for i in ids if i > 3)
            looks = sum(content.codes.weight[c] for c in codes) if has_image else torch.zeros(16)
            bags.append(F.normalize(F.normalize(words, dim=0) + F.normalize(looks, dim=0), dim=0))
    scores = cls @ torch.stack(bags).T / 0.1
    plain = -(scores.log_softmax(0).diag() + scores.log_softmax(1).diag()).mean() / 2
    assert found == pytest.approx(float(plain), abs=1e-5)


def test_rare_pieces_weigh_more_and_one_that_all_have_nothing() -> None:
    texts = [np.array([0, 5, other, 2]) for other in (6, 6, 7, 8)]
    rarity = Corpus(texts, np.zeros(4), np.zeros(0)).rarity(9)
    assert rarity[5] == 0
    assert rarity[6] == pytest.approx(np.log(4 / 3))
    assert rarity[7] == rarity[8] == pytest.approx(np.log(4 / 2))


def test_image_text_is_the_plain_formula() -> None:
    step, learner = _step(**ALL)
    with torch.no_grad():
        found = float(learner(step, step.counts())[4])
        image, text = (
            F.normalize(learner.sides(x), dim=1) for x in losses.alone(learner.network, step.shown, step.pairs)
        )
    n, plain = len(image), 0.0
    for i in range(n):
        for a, b in ((image, text), (text, image)):
            scores = [float(a[i] @ b[j]) / 0.1 for j in range(n)]
            plain += (np.log(np.sum(np.exp(scores))) - scores[i]) / (2 * n)
    assert 0 < n < 12
    assert found == pytest.approx(plain, abs=1e-5)


def test_attraction_is_the_plain_formula() -> None:
    step, learner = _step(**ALL)
    company, near = step.company, _near(12)
    with torch.no_grad():
        found = float(learner(step, step.counts())[5])
        cls = losses.predict(learner.network, step, MASK).cls
        item = F.normalize(learner.taste(cls), dim=1)
        partner = F.normalize(learner.taste(losses.whole(learner.network, company.shown)), dim=1)
    plain = 0.0
    for n, (row, own) in enumerate(zip(company.row.tolist(), company.partner.tolist(), strict=True)):
        assert own in near[row]
        scores = {n: float(item[row] @ partner[n]) / 0.1}
        for other, candidate in enumerate(company.partner.tolist()):
            if candidate != row and candidate not in near[row]:
                scores[other] = float(item[row] @ partner[other]) / 0.1
        plain += (np.log(np.sum(np.exp(list(scores.values())))) - scores[n]) / len(company.row)
    assert company.row.tolist() == list(range(10))
    assert found == pytest.approx(plain, abs=1e-5)


def test_image_text_brings_an_items_sides_together(tmp_path: Any) -> None:
    def nearness(weight: float) -> float:
        made = task(48, itc=weight, summary=0.0, content=0.0, epochs=15, lr=0.003, batch_size=16)
        net = network()
        fit(net, made, Checkpoint(tmp_path / "never", 10_000), int)
        step = batch(made, np.arange(48), Rates(0, 0, 0, 0), 0)
        with torch.no_grad():
            return _margin(*losses.alone(net, step.shown, step.pairs), torch.arange(48)[step.pairs] % 4)

    assert nearness(1.0) > nearness(0.0) + 0.5


def test_attraction_brings_partners_together(tmp_path: Any) -> None:
    """Partners have nothing in common but their users: item i and i + 1 differ in colour and words."""
    near = np.arange(48)[:, None] ^ 1

    def nearness(weight: float) -> float:
        made = task(48, near, collaborative=weight, content=0.0, epochs=15, lr=0.003, batch_size=16)
        net = network()
        fit(net, made, Checkpoint(tmp_path / "never", 10_000), int)
        x = torch.from_numpy(features(net, made, np.arange(48)))
        return _margin(x[::2], x[1::2], torch.arange(24) % 2)

    assert nearness(1.0) > nearness(0.0) + 0.5


def _margin(a: Tensor, b: Tensor, kind: Tensor) -> float:
    """Return the mean cosine of rows of the same kind above that of rows of another."""
    cosine = F.normalize(a - a.mean(0), dim=1) @ F.normalize(b - b.mean(0), dim=1).T
    same = kind[:, None] == kind
    return float(cosine[same].mean() - cosine[~same].mean())


def test_terms_are_off_unless_asked_for() -> None:
    assert losses.weights(Pretrain())[4:] == (0, 0)
    made: Task = task()
    learner = _learner(made)
    assert learner.sides is learner.taste is None
