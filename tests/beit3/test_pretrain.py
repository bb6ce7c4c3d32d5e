"""Pre-training learns, a killed run ends as an undisturbed one, and its masks and losses are what they should be."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import alignrec
from shop import toy
from shop.pretraining import MASK, UNTAUGHT, network, shop, task, write_params
from shop.pretraining import history as _run

from alignrec.pipeline.beit3 import corpus, losses, masks, prepare, visual_tokens
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS
from alignrec.pipeline.beit3.corpus import Corpus, PretrainTask, make_batch
from alignrec.pipeline.beit3.losses import MaskedBatch, PretrainingModel
from alignrec.pipeline.beit3.masks import MaskRates
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.training import build_optimizer, fit
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout

# --- the loop


class Stopped(Exception):
    pass


def _fit(folder: Path, every: int, stops: tuple[int, ...], **params: object) -> tuple[bytes, list[dict[str, object]]]:
    """Train, interrupted after each number of steps in `stops`; return the bytes of all weights, and the history."""
    toy = task(24, steps=9, **params)
    checkpoint = Checkpoint(folder / f"{every}.safetensors", every)
    for stop in (*stops, None):
        net, steps = network(), 0

        def done(_: int, stop: int | None = stop) -> None:
            nonlocal steps
            steps += 1
            if steps - 1 == stop:  # the first call counts what was done before
                raise Stopped

        try:
            history, _ = fit(net, toy, checkpoint, done)
        except Stopped:
            continue
    checkpoint.clear()
    return b"".join(value.numpy().tobytes() for value in net.state_dict().values()), history


@pytest.mark.parametrize(
    ("params", "stopped"),
    [({}, {1: (4,), 4: (8,)}), ({"accumulate": 2}, {2: (5, 2)}), ({"precision": "bfloat16"}, {2: (5, 2)})],
)
def test_interrupted_at_any_step_it_ends_with_the_same_bytes(
    tmp_path: Path, params: dict[str, object], stopped: dict[int, tuple[int, ...]]
) -> None:
    whole = _fit(tmp_path, 10_000, (), **params)
    for every, stops in stopped.items():  # an epoch has three steps
        assert _fit(tmp_path, every, stops, **params) == whole, f"checkpoint every {every} steps, stopped at {stops}"


def test_a_diverging_loss_is_one_line_that_names_the_rate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^epoch \d+: .*pretrain\.lr$"):
        _fit(tmp_path, 10_000, (), lr=1e30)


def test_held_out_figures_are_those_of_counting() -> None:
    toy, net = task(48), network()
    measured = losses.measure_masked(net, toy)
    rates = losses.MaskRates(0.4, 0.5, 0.15, 0.0)
    right, targets, loss = [], [], []
    for item in toy.held_out:  # one by one
        step = make_batch(toy, np.array([item]), rates, losses.seed_for(toy.seed, "held out masks"))
        scores = losses.predict_masked(net, step, toy.mask_id).patches.detach()
        for row, code in zip(scores, step.codes[step.patch_mask].tolist(), strict=True):
            right.append(int(row.argmax()) == code)
            targets.append(code)
            loss.append(float(torch.logsumexp(row, 0) - row[code]))
    common = int(np.bincount(toy.codes[toy.train[toy.corpus.row[toy.train] >= 0]].ravel()).argmax())
    rare = [r for r, code in zip(right, targets, strict=True) if code != common]
    assert measured["mim_accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert measured["mim_chance"] == pytest.approx(targets.count(common) / len(targets), abs=1e-6)
    assert measured["mim_rare_accuracy"] == pytest.approx(np.mean(rare), abs=1e-6)
    assert measured["mim_held_out_loss"] == pytest.approx(np.mean(loss), abs=1e-4)


def test_masks_of_few_held_out_items_are_drawn_until_targets_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, net, batches = task(48), network(), []
    monkeypatch.setattr(losses, "make_batch", lambda *args: batches.append(args[3]) or make_batch(*args))
    once = losses.measure_masked(net, toy)
    assert len(set(batches)) == 1
    again = [losses.measure_masked(net, toy, losses.MAX_DRAWS) for _ in range(2)]
    assert again[0] == again[1] != once
    assert len(set(batches)) == losses.MAX_DRAWS
    monkeypatch.setattr(losses, "MIN_TARGETS", 1)
    assert losses.measure_masked(net, toy, losses.MAX_DRAWS) == once


# --- the optimiser


def _groups(init: str | None = None) -> dict[str, dict[str, float]]:
    params = Pretrain(**UNTAUGHT, lr=1.0, init=init)
    model = PretrainingModel(network(), MASK, 4)
    optimizer = build_optimizer(model, params)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert sorted(groups) == sorted(names.values())
    return groups


def test_pieces_of_our_own_vocabulary_alone_have_another_rate() -> None:
    groups = _groups()
    assert groups.pop("network.beit3.text_embed.weight")["rate_factor"] == 10
    assert {group["rate_factor"] for group in groups.values()} == {1}
    assert {group["rate_factor"] for group in _groups(init="weights.pth").values()} == {1}


def test_matrices_decay_and_nothing_else() -> None:
    groups = _groups()
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.05}
    assert "network.beit3.encoder.layers.0.ffn.A.fc1.weight" in decayed
    assert "network.beit3.vision_embed.proj.weight" in decayed
    assert not any(name.endswith(("bias", "cls_token")) or "embed_positions" in name for name in decayed)
    assert all("norm" not in name and "_ln" not in name for name in decayed)


# --- the stage


def test_it_notes_the_share_of_texts_read_and_names_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shop(tmp_path, n=24, steps=1, max_tokens=4).parent
    for chunks, key in ((32, "steps"), (1, "chunks")):
        write_params(root, pretrain=UNTAUGHT | {"steps": 1, "batch_size": 8, "max_tokens": 4, "chunks": chunks})
        _run(root)
        notes = json.loads(Layout(root, "toy").run_record("pretrain").read_text())["notes"]
        assert 0 < notes["text_read"] < 0.5
        assert capsys.readouterr().err.rstrip().endswith(f"of a text on average; raise pretrain.{key}")


def test_it_learns_more_than_the_commonest_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour and thing are in both image and text, so that tokens masked in one can be predicted from the other."""
    monkeypatch.setattr(prepare, "PretrainTask", partial(PretrainTask, share_held_out=0.2))
    shop(tmp_path, steps=120, lr=0.003, checkpoint_every=1000)
    last = _run(tmp_path)[-1]
    assert last["mim_accuracy"] > last["mim_chance"] + 0.05
    assert last["mlm_accuracy"] > last["mlm_chance"] + 0.05


def test_it_does_not_run_where_no_feature_set_reads_it(tmp_path: Path) -> None:
    shop(tmp_path)
    write_params(tmp_path, beit3={"sets": []}, train={"features": "minilm"}, encode={"encoders": ["minilm"]})
    for images in (tmp_path / "images" / "toy").iterdir():
        images.unlink()  # nor is anything read
    toy.ended(Layout(tmp_path, "toy"))
    assert alignrec("pretrain", "toy", "--root", tmp_path, cwd=tmp_path).exit_code == 0
    layout = Layout(tmp_path, "toy")
    assert [path.name for path in layout.encoder.folder.iterdir()] == ["run.json"]
    assert "no feature set" in json.loads(layout.run_record("pretrain").read_text())["notes"]["skipped"]


# --- the terms of the loss


def _step() -> tuple[MaskedBatch, PretrainingModel]:
    step = make_batch(task(12), np.arange(12), losses.MaskRates(0.5, 0.5, 0.5, 0.0), 3)
    torch.manual_seed(1)
    return step, PretrainingModel(network(), MASK)


def test_losses_at_chance_are_the_logarithm_of_the_number_of_choices() -> None:
    """A uniform prediction costs log C per patch and log V per token."""
    step, model = _step()
    with torch.no_grad():
        for head in (model.network.mim_head, model.network.mlm_head):
            head.weight.zero_()
            head.bias.zero_()
        terms = model(step, step.counts())
    log_c, log_v = float(np.log(8)), float(np.log(12))
    assert terms.tolist() == pytest.approx([log_c, log_v, 0], abs=1e-5)


def test_masked_content_does_not_reach_the_prediction() -> None:
    step, model = _step()
    image, ids = step.inputs.image.clone(), step.inputs.ids.clone()
    at = step.patch_mask.unflatten(1, (2, 2)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image[at[:, None].expand_as(image)] = 0.7
    ids[step.piece_mask] = 4
    changed = step._replace(inputs=step.inputs._replace(image=image, ids=ids))
    with torch.no_grad():
        pairs = zip(
            losses.predict_masked(model.network, step, MASK),
            losses.predict_masked(model.network, changed, MASK),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_terms_of_parts_add_up_to_those_of_the_whole() -> None:
    toy, model = task(12), PretrainingModel(network(), MASK)
    whole = make_batch(toy, np.arange(12), toy.rates, 3)
    parts = [make_batch(toy, part, toy.rates, 3) for part in np.array_split(np.arange(12), 3)]
    with torch.no_grad():
        summed = sum(model(part, whole.counts()) for part in parts)
        torch.testing.assert_close(summed, model(whole, whole.counts()), rtol=0, atol=1e-6)


# --- visual tokens by k-means of pixel patches


SMALL = BEIT3_CONFIGS["small"]
COLOURS = np.array([(160, 100, 100), (100, 160, 100), (100, 100, 160), (150, 150, 80)], np.uint8)


def codes(layout: Layout, pixels: np.ndarray, n: int = 8) -> np.ndarray:
    tokens, there = visual_tokens.read_codes(layout, pixels, SMALL, n, 3)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() <= tokens.max() < there <= n
    return tokens


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), np.uint8)
    one, two = Layout(tmp_path / "one", "toy"), Layout(tmp_path / "two", "toy")
    assert (codes(one, pixels) == codes(two, pixels)).all()
    assert one.visual_tokens.read_bytes() == two.visual_tokens.read_bytes()
    assert (codes(one, pixels) == codes(two, pixels)).all()  # now from the file


def test_there_are_no_more_codes_than_different_patches(tmp_path: Path) -> None:
    tokens = codes(Layout(tmp_path, "toy"), COLOURS[:, None, None].repeat(48, 1).repeat(48, 2), n=500)
    assert [len(np.unique(image)) for image in tokens] == [1] * 4
    assert len(np.unique(tokens)) == 4


# --- masks of a batch, and parts of texts


def test_seeds_beyond_what_faiss_takes_wrap_around() -> None:
    sample = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    found = [visual_tokens.train_kmeans(sample, 4, seed).centroids for seed in (5, 2**31 + 5, 6)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize(("grid", "share"), [(14, 0.4), (4, 0.4), (6, 0.75), (2, 0.5), (5, 0.0), (5, 1.0), (1, 1.0)])
def test_every_image_has_exactly_the_share_masked(grid: int, share: float) -> None:
    drawn = masks.mask_patches(grid * grid, share, masks.make_generators(np.arange(40), 3))
    assert set(drawn.sum(axis=1)) == {round(share * grid * grid)}


def test_blocks_are_as_often_wide_as_high() -> None:
    drawn = masks.mask_patches(14 * 14, 3 / 14**2, masks.make_generators(np.arange(400), 3)).reshape(-1, 14, 14)
    high = (drawn[:, 1:] & drawn[:, :-1]).sum()
    wide = (drawn[:, :, 1:] & drawn[:, :, :-1]).sum()
    assert min(high, wide) > 100
    assert 0.8 < high / wide < 1.25


def test_pieces_are_masked_at_the_rate_and_special_ids_never() -> None:
    ids = np.array([[0, 5, 6, 7, 8, 2], [0, 5, 2, 1, 1, 1], [0, 2, 1, 1, 1, 1]])
    for seed in range(20):
        mask = masks.mask_pieces(ids, np.array([0.5, 0.15, 0.5]), masks.make_generators(np.arange(3), seed))
        assert mask.sum(axis=1).tolist() == [2, 1, 0]
        assert (ids[mask] > 3).all()


def test_absent_and_hidden_modalities_are_not_predicted() -> None:
    n = 400
    ids = np.tile([0, 5, 6, 7, 2], (n, 1))
    has_image, has_text = np.arange(n) % 4 != 0, np.arange(n) % 4 != 1
    patches, pieces, no_image, no_text = masks.draw_masks(
        ids, has_image, has_text, 4, MaskRates(0.4, 0.5, 0.15, 0.2), masks.make_generators(np.arange(n), 1)
    )
    assert no_image[~has_image].all()
    assert no_text[~has_text].all()
    assert not (no_image & no_text).any()
    assert not patches[no_image].any()
    assert not pieces[no_text].any()
    pairs = has_image & has_text
    assert 0.1 < no_image[pairs].mean() < 0.3
    assert set(pieces[pairs & ~no_text & ~no_image].sum(axis=1)) == {2}
    assert set(pieces[no_image].sum(axis=1)) == {1}


def test_what_is_masked_of_an_item_depends_on_the_item_and_the_seed_alone() -> None:
    """The mask does not depend on the batch, so parts, processes and interruptions change nothing."""
    items, rates = np.array([3, 8, 5, 9]), MaskRates(0.4, 0.5, 0.15, 0.2)
    ids = np.array([[0, 5, 6, 7, 8, 2], [0, 5, 6, 2, 1, 1], [0, 9, 9, 9, 2, 1], [0, 4, 4, 4, 4, 2]])
    both = np.ones(4, bool)
    patches, pieces, no_image, _ = masks.draw_masks(ids, both, both, 4, rates, masks.make_generators(items, 7))
    part = masks.draw_masks(ids[1:3, :5], both[1:3], both[1:3], 4, rates, masks.make_generators(items[1:3], 7))
    assert (part[0] == patches[1:3]).all()
    assert (part[1] == pieces[1:3, :5]).all()
    assert (part[2] == no_image[1:3]).all()
    other = masks.draw_masks(ids, both, both, 4, rates, masks.make_generators(items, 8))
    assert (other[0] != patches).any()


def _long_texts() -> Corpus:
    """Return three items: a text of three parts, no text, and one part with a truncated rest."""
    parts = [np.array([0, *range(start, start + n), 2]) for start, n in ((10, 4), (14, 4), (18, 3), (0, 0), (30, 4))]
    return Corpus(parts, np.array([0, 3, 4, 5]), np.array([11, 0, 8]), np.array([0, 1, -1]), np.zeros((2, 8, 8, 3)))


def test_each_step_draws_a_part_of_a_long_text_by_seed_and_item_alone() -> None:
    texts, items = _long_texts(), np.arange(3)
    drawn = np.array([texts.draw_parts(items, seed) for seed in range(60)])
    assert [set(column) for column in drawn.T.tolist()] == [{0, 1, 2}, {3}, {4}]
    assert (texts.draw_parts(items[[2, 0]], 7) == drawn[7][[2, 0]]).all()


def test_all_parts_of_items_weigh_by_their_tokens() -> None:
    parts, owner, share = _long_texts().all_parts(np.array([2, 0, 1]))
    assert parts.tolist() == [4, 0, 1, 2, 3]
    assert owner.tolist() == [0, 1, 1, 1, 2]
    np.testing.assert_allclose(share, [1, 4 / 11, 4 / 11, 3 / 11, 1], rtol=1e-6)


def test_the_share_that_training_reads_grows_with_its_passes_up_to_what_is_not_cut() -> None:
    texts = _long_texts()
    assert texts.share_read(1) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert texts.share_read(2) == pytest.approx((5 / 9 + 1 / 2) / 2)
    assert texts.share_read(np.inf) == pytest.approx((1 + 1 / 2) / 2)


def test_short_texts_are_one_part_and_long_ones_parts_of_bounded_size() -> None:
    items = np.array([7, 3, 9, 1])
    assert [part.tolist() for part in corpus.split_batch(items, np.array([9, 128, 5, 60]))] == [[7, 3, 9, 1]]
    lengths = np.array([500, 20, 129, 128])
    parts = corpus.split_batch(items, lengths)
    assert [part.tolist() for part in parts] == [[3, 1, 9], [7]]
    assert all(len(part) * lengths[np.isin(items, part)].max() <= 4 * corpus.TOKENS_PER_ITEM for part in parts)
    assert [len(part) for part in corpus.split_batch(items, np.array([900, 900, 900, 900]), min_items=2)] == [2, 2]
    assert [len(part) for part in corpus.split_batch(items[:3], np.array([900, 900, 900]), min_items=2)] == [3]
    assert [part.tolist() for part in corpus.split_batch(items[:0], lengths[:0])] == [[]]
