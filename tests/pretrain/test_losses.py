"""Each term of the loss beside a slow, obvious version of it, and what training on it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining import MASK, network, task
from torch import Tensor

from pipeline.ops.checkpoint import Checkpoint
from pipeline.pretrain import losses
from pipeline.pretrain.batches import Task, batch
from pipeline.pretrain.corpus import Corpus, Rates
from pipeline.pretrain.held_out import features
from pipeline.pretrain.loop import fit
from pipeline.pretrain.losses import PretrainingModel, Step
from pipeline.pretrain.params import Pretrain

ALL = {"itc": 1.0, "collaborative": 1.0, "common_users": 1}


def _step(**params: Any) -> tuple[Step, PretrainingModel]:
    toy = task(12, _partners(12), **params)
    step = batch(toy, np.arange(12), Rates(0.5, 0.5, 0.5, 0.0), 3, training=True)
    torch.manual_seed(1)
    return step, _model(toy)


def _model(toy: Task) -> PretrainingModel:
    return PretrainingModel(network(), toy.params, MASK, torch.from_numpy(toy.corpus.idf(12)))


def _partners(n: int) -> np.ndarray:
    """Item i's partners are i + 1 and i + 2, round the circle; the last two have none."""
    partners = np.stack([(np.arange(n) + 1) % n, (np.arange(n) + 2) % n], axis=1)
    partners[-2:] = -1
    return partners


def test_losses_at_chance_are_the_logarithm_of_the_number_of_choices() -> None:
    """A network that knows nothing pays log C for a patch and log V for a piece."""
    step, model = _step(content=0.0)
    with torch.no_grad():
        for head in (model.network.mim_head, model.network.mlm_head, model.summary.codes, model.summary.words):
            head.weight.zero_()
            head.bias.zero_()
        terms = model(step, step.counts())
    log_c, log_v = float(np.log(8)), float(np.log(12))
    assert terms.tolist() == pytest.approx([log_c, log_v, log_c + log_v, 0, 0, 0, 0], abs=1e-5)


def test_masked_content_does_not_reach_the_prediction() -> None:
    step, model = _step()
    image, ids = step.inputs.image.clone(), step.inputs.ids.clone()
    at = step.patch_mask.unflatten(1, (2, 2)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image[at[:, None].expand_as(image)] = 0.7
    ids[step.piece_mask] = 4
    changed = step._replace(inputs=step.inputs._replace(image=image, ids=ids))
    with torch.no_grad():
        pairs = zip(
            losses.predict(model.network, step, MASK),
            losses.predict(model.network, changed, MASK),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_nothing_masked_costs_nothing() -> None:
    step, model = _step(summary=0.0, content=0.0)
    bare = step._replace(patch_mask=torch.zeros_like(step.patch_mask), piece_mask=torch.zeros_like(step.piece_mask))
    with torch.no_grad():
        assert model(bare, bare.counts()).tolist() == [0] * 7


def test_the_terms_of_parts_add_up_to_those_of_the_whole() -> None:
    toy = task(12, content=0.0)
    model = _model(toy)
    whole = batch(toy, np.arange(12), toy.rates, 3)
    parts = [batch(toy, part, toy.rates, 3) for part in np.array_split(np.arange(12), 3)]
    with torch.no_grad():
        summed = sum(model(part, whole.counts()) for part in parts)
        torch.testing.assert_close(summed, model(whole, whole.counts()), rtol=0, atol=1e-6)


def test_content_is_the_plain_formula() -> None:
    step, model = _step()
    content, idf = model.content, task(12).corpus.idf(12)
    with torch.no_grad():
        loss = float(model(step, step.counts())[3])
        cls = F.normalize(content.read(losses.predict(model.network, step, MASK).cls), dim=1)
        bags = []
        for ids, codes, has_image in zip(step.inputs.ids.tolist(), step.codes.tolist(), step.has_image, strict=True):
            words = sum(content.pieces.weight[i] * float(idf[i]) for i in ids if i > 3)
            patches = sum(content.codes.weight[c] for c in codes) if has_image else torch.zeros(16)
            bags.append(F.normalize(F.normalize(words, dim=0) + F.normalize(patches, dim=0), dim=0))
    scores = cls @ torch.stack(bags).T / 0.1
    plain = -(scores.log_softmax(0).diag() + scores.log_softmax(1).diag()).mean() / 2
    assert loss == pytest.approx(float(plain), abs=1e-5)


def test_rare_pieces_weigh_more_and_one_that_all_have_nothing() -> None:
    texts = [np.array([0, 5, other, 2]) for other in (6, 6, 7, 8)]
    idf = Corpus(texts, np.zeros(4), np.zeros(0)).idf(9)
    assert idf[5] == 0
    assert idf[6] == pytest.approx(np.log(4 / 3))
    assert idf[7] == idf[8] == pytest.approx(np.log(4 / 2))


def test_itc_is_the_plain_formula() -> None:
    step, model = _step(**ALL)
    with torch.no_grad():
        loss = float(model(step, step.counts())[4])
        image, text = (
            F.normalize(model.itc_projection(x), dim=1)
            for x in losses.unimodal_cls(model.network, step.inputs, step.pairs)
        )
    n, plain = len(image), 0.0
    for i in range(n):
        for a, b in ((image, text), (text, image)):
            scores = [float(a[i] @ b[j]) / 0.1 for j in range(n)]
            plain += (np.log(np.sum(np.exp(scores))) - scores[i]) / (2 * n)
    assert 0 < n < 12
    assert loss == pytest.approx(plain, abs=1e-5)


def test_collaborative_is_the_plain_formula() -> None:
    step, model = _step(**ALL)
    positives, partners = step.positives, _partners(12)
    with torch.no_grad():
        loss = float(model(step, step.counts())[5])
        cls = losses.predict(model.network, step, MASK).cls
        item = F.normalize(model.collaborative_projection(cls), dim=1)
        partner = F.normalize(model.collaborative_projection(losses.joint_cls(model.network, positives.inputs)), dim=1)
    plain = 0.0
    for n, (row, own) in enumerate(zip(positives.row.tolist(), positives.partner.tolist(), strict=True)):
        assert own in partners[row]
        scores = {n: float(item[row] @ partner[n]) / 0.1}
        for other, candidate in enumerate(positives.partner.tolist()):
            if candidate != row and candidate not in partners[row]:
                scores[other] = float(item[row] @ partner[other]) / 0.1
        plain += (np.log(np.sum(np.exp(list(scores.values())))) - scores[n]) / len(positives.row)
    assert positives.row.tolist() == list(range(10))
    assert loss == pytest.approx(plain, abs=1e-5)


def test_itc_brings_an_items_image_and_text_together(tmp_path: Any) -> None:
    def alignment(weight: float) -> float:
        toy = task(48, itc=weight, summary=0.0, content=0.0, steps=45, lr=0.003, batch_size=16)
        net = network()
        fit(net, toy, Checkpoint(tmp_path / "never", 10_000), int)
        step = batch(toy, np.arange(48), Rates(0, 0, 0, 0), 0)
        with torch.no_grad():
            return _margin(*losses.unimodal_cls(net, step.inputs, step.pairs), torch.arange(48)[step.pairs] % 4)

    assert alignment(1.0) > alignment(0.0) + 0.5


def test_collaborative_brings_partners_together(tmp_path: Any) -> None:
    """Partners have nothing in common but their users: item i and i + 1 differ in colour and words."""
    partners = np.arange(48)[:, None] ^ 1

    def alignment(weight: float) -> float:
        toy = task(48, partners, collaborative=weight, content=0.0, steps=45, lr=0.003, batch_size=16)
        net = network()
        fit(net, toy, Checkpoint(tmp_path / "never", 10_000), int)
        x = torch.from_numpy(features(net, toy, np.arange(48)))
        return _margin(x[::2], x[1::2], torch.arange(24) % 2)

    assert alignment(1.0) > alignment(0.0) + 0.5


def _margin(a: Tensor, b: Tensor, kind: Tensor) -> float:
    """Return the mean cosine of rows of the same kind above that of rows of another."""
    cosine = F.normalize(a - a.mean(0), dim=1) @ F.normalize(b - b.mean(0), dim=1).T
    same = kind[:, None] == kind
    return float(cosine[same].mean() - cosine[~same].mean())


def test_the_recipe_is_mim_mlm_and_distill() -> None:
    assert losses.weights(Pretrain()) == (1, 1, 0, 0, 0, 0, 10)


def test_what_has_no_weight_has_no_head() -> None:
    toy: Task = task()
    model = _model(toy)
    assert model.itc_projection is model.collaborative_projection is None
