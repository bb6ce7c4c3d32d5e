"""Pre-training learns, and a killed run ends as an undisturbed one."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from commands import alignrec
from pretraining import MASK, UNTAUGHT, features, network, shop, task, write_params
from pretraining import history as _run

from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.ops.checkpoint import Checkpoint
from alignrec.pipeline.pretrain import losses, prepare
from alignrec.pipeline.pretrain.corpus import Task, make_batch
from alignrec.pipeline.pretrain.losses import PretrainingModel
from alignrec.pipeline.pretrain.params import Pretrain
from alignrec.pipeline.pretrain.train import build_optimizer, fit

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
    "params", [{}, {"accumulate": 2}, {"precision": "bfloat16"}], ids=["plain", "parts", "bfloat16"]
)
def test_interrupted_at_any_step_it_ends_with_the_same_bytes(tmp_path: Path, params: dict[str, object]) -> None:
    whole = _fit(tmp_path, 10_000, (), **params)
    for every, stops in ((1, (4,)), (2, (5, 2)), (4, (8,))):  # an epoch has three steps
        assert _fit(tmp_path, every, stops, **params) == whole, f"checkpoint every {every} steps, stopped at {stops}"


def test_a_diverging_loss_is_one_line_that_names_the_rate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^epoch \d+: .*pretrain\.lr$"):
        _fit(tmp_path, 10_000, (), lr=1e30)


def test_held_out_figures_are_those_of_counting() -> None:
    toy, net = task(48), network()
    measured = losses.measure_masked(net, toy)
    rates = losses.Rates(0.4, 0.5, 0.15, 0.0)
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
    again = [losses.measure_masked(net, toy, losses.MOST_DRAWS) for _ in range(2)]
    assert again[0] == again[1] != once
    assert len(set(batches)) == losses.MOST_DRAWS
    monkeypatch.setattr(losses, "ENOUGH", 1)
    assert losses.measure_masked(net, toy, losses.MOST_DRAWS) == once


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
    assert groups.pop("network.beit3.text_embed.weight")["scale"] == 10
    assert {group["scale"] for group in groups.values()} == {1}
    assert {group["scale"] for group in _groups(init="weights.pth").values()} == {1}


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
    monkeypatch.setattr(prepare, "Task", partial(Task, share_held_out=0.2))
    shop(tmp_path, steps=120, lr=0.003, checkpoint_every=1000)
    last = _run(tmp_path)[-1]
    assert last["mim_accuracy"] > last["mim_chance"] + 0.05
    assert last["mlm_accuracy"] > last["mlm_chance"] + 0.05


@pytest.mark.parametrize(("images", "texts"), [(False, True), (True, False), (False, False)])
def test_the_recipe_does_without_what_a_dataset_lacks(tmp_path: Path, images: bool, texts: bool) -> None:
    recipe = {key: Pretrain.model_fields[key].default for key in UNTAUGHT}
    shop(tmp_path, images, texts, n=30, **recipe, steps=2, checkpoint_every=1000)
    features(tmp_path, "minilm", "cnn", "descriptors")
    history = _run(tmp_path)
    assert bool(history) == (images or texts)
    assert all(np.isfinite(line["distill_loss"]) for line in history)


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
