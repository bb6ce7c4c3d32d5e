"""Pre-training: what is hidden, what is learned, and that a killed run ends as an undisturbed one."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

import schemas
from pipeline import corpus, objective, pretrain
from pipeline import io as files
from pipeline.config import Pretrain, load
from pipeline.corpus import Rates
from pipeline.encoders.beit3 import BEiT3, Config
from pipeline.layout import Layout
from pipeline.run import running
from stages.pretrain import main

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (230, 220, 20)}
EPOCHS = 4
THINGS = ("circle", "square", "bar", "dot")


# --- what is hidden


@pytest.mark.parametrize(("grid", "share"), [(14, 0.4), (4, 0.4), (6, 0.75), (2, 0.5), (5, 0.0), (5, 1.0), (1, 1.0)])
def test_every_picture_has_exactly_the_share_masked(grid: int, share: float) -> None:
    masks = corpus.blocks(40, grid, share, np.random.default_rng(3))
    assert set(masks.sum(axis=1)) == {round(share * grid * grid)}


def test_masks_are_blocks_not_noise() -> None:
    """In a block most masked patches have a masked right neighbour; in noise at 40 % about 40 % have."""
    masks = corpus.blocks(200, 14, 0.4, np.random.default_rng(3)).reshape(-1, 14, 14)
    assert masks[:, :, 1:][masks[:, :, :-1]].mean() > 0.7


def test_pieces_are_masked_at_the_rate_and_special_ids_never() -> None:
    ids = np.array([[0, 5, 6, 7, 8, 2], [0, 5, 2, 1, 1, 1], [0, 2, 1, 1, 1, 1]])
    for seed in range(20):
        mask = corpus.pieces(ids, np.array([0.5, 0.15, 0.5]), np.random.default_rng(seed))
        assert mask.sum(axis=1).tolist() == [2, 1, 0]
        assert (ids[mask] > 3).all()


def test_absent_and_hidden_modalities_are_not_predicted() -> None:
    n = 400
    ids = np.tile([0, 5, 6, 7, 2], (n, 1))
    has_image, has_text = np.arange(n) % 4 != 0, np.arange(n) % 4 != 1
    m = corpus.masked(np.arange(n), ids, has_image, has_text, 4, Rates(0.4, 0.5, 0.15, 0.2), np.random.default_rng(1))
    assert m.no_image[~has_image].all()
    assert m.no_text[~has_text].all()
    assert not (m.no_image & m.no_text).any()
    assert not m.patches[m.no_image].any()
    assert not m.tokens[m.no_text].any()
    pairs = has_image & has_text
    assert 0.1 < m.no_image[pairs].mean() < 0.3
    assert set(m.tokens[pairs & ~m.no_text & ~m.no_image].sum(axis=1)) == {2}
    assert set(m.tokens[m.no_image].sum(axis=1)) == {1}


def test_an_epoch_has_every_item_once_in_random_order() -> None:
    items = np.arange(0, 1000, 2)
    found = list(corpus.batches(items, 16, np.random.default_rng(0)))
    assert {len(b) for b in found[:-1]} == {16}
    order = np.concatenate(found)
    assert sorted(order) == items.tolist()
    assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.2


# --- the objective


def test_losses_at_chance_are_the_logarithm_of_the_number_of_choices() -> None:
    """A network that knows nothing pays log C for a patch and log V for a piece."""
    step, network, summary = _step()
    with torch.no_grad():
        for head in (network.mim_head, network.mlm_head, summary.codes, summary.words):
            assert head is not None
            head.weight.zero_()
            head.bias.zero_()
        found = objective.losses(objective.predict(network, step, 11), summary, step)
    assert [round(float(x), 4) for x in found] == [round(float(np.log(n)), 4) for n in (8, 12, 8, 12)]


def test_masked_content_does_not_reach_the_prediction() -> None:
    step, network, _ = _step()
    network.eval()
    patch = step.patches[0].nonzero()[0, 0]
    image, ids = step.image.clone(), step.ids.clone()
    image[0, :, 4 * (patch // 2) : 4 * (patch // 2) + 4, 4 * (patch % 2) : 4 * (patch % 2) + 4] = 0.7
    ids[step.pieces] = 4
    with torch.no_grad():
        for a, b in zip(
            objective.predict(network, step, 11),
            objective.predict(network, step._replace(image=image, ids=ids), 11),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_nothing_masked_costs_nothing() -> None:
    step, network, _ = _step()
    bare = step._replace(patches=torch.zeros_like(step.patches), pieces=torch.zeros_like(step.pieces))
    with torch.no_grad():
        found = objective.losses(objective.predict(network, bare, 11), None, bare)
    assert [float(x) for x in found] == [0, 0, 0, 0]


def _step() -> tuple[objective.Step, BEiT3, objective.Summary]:
    torch.manual_seed(0)
    network = BEiT3(
        Config(image=8, patch=4, vocab=12, width=16, layers=1, heads=2, ffn=32, positions=8, codes=8, mlm=True)
    )
    ids = torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]])
    step = objective.Step(
        image=torch.randn(2, 3, 8, 8),
        codes=torch.randint(0, 8, (2, 4)),
        ids=ids,
        padding=ids == 1,
        patches=torch.tensor([[True, False, False, True], [False, True, False, False]]),
        pieces=torch.tensor([[False, True, False, False], [False, True, False, False]]),
        no_image=torch.tensor([False, False]),
        has_image=torch.tensor([True, True]),
        words=ids > 3,
    )
    return step, network, objective.Summary(16, 4, 8, 12)


# --- the loop


def test_the_rate_rises_and_falls() -> None:
    p = Pretrain(lr=1.0, warmup=0.2)
    rates = [pretrain.learning_rate(s, 10, p) for s in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.1


def test_held_out_items_are_not_learned_from() -> None:
    train, held = pretrain.split(np.arange(5, 105), 0.1, seed=3)
    assert len(held) == 10
    assert sorted([*train, *held]) == list(range(5, 105))
    assert pretrain.split(np.arange(3), 0.0, seed=3)[1].size == 0


# --- the stage


def _toy(root: Path, images: bool = True, texts: bool = True) -> Path:
    """Write 96 items, colour and thing each once said and once drawn; a few lack one or both. Return the parameters."""
    layout, rng = Layout(root, "toy"), np.random.default_rng(0)
    n = 96
    colour, thing = rng.integers(0, 4, n), rng.integers(0, 4, n)
    words = [
        f"a {list(COLOURS)[c]} {THINGS[t]}" if texts and i % 12 else ""
        for i, (c, t) in enumerate(zip(colour, thing, strict=True))
    ]
    asin = pa.array([f"A{i}" for i in range(n)])
    ids = pa.array(np.arange(n), pa.int32())
    lists = pa.array([[]] * n, pa.list_(pa.string()))
    empty = pa.array([""] * n)
    columns = [
        ids,
        asin,
        empty,
        empty,
        lists,
        empty,
        pa.array(words),
        pa.array(["ok" if w else "empty" for w in words]),
        lists,
    ]
    files.write_table(pa.table(columns, names=schemas.ITEMS.names), layout.items, schemas.ITEMS)
    drawn = [
        _jpeg(list(COLOURS.values())[c], t) if images and i % 10 else None
        for i, (c, t) in enumerate(zip(colour, thing, strict=True))
    ]
    size = pa.array([16 if d else 0 for d in drawn], pa.int32())
    status = pa.array(["ok" if d else "missing" for d in drawn])
    columns = [
        ids,
        asin,
        status,
        empty,
        empty,
        pa.array(drawn, pa.binary()),
        size,
        size,
        empty,
        pa.array([1 if d else None for d in drawn], pa.uint64()),
    ]
    files.write_table(
        pa.table(columns, names=schemas.IMAGES.names), files.shard(layout.images, "images", 0), schemas.IMAGES
    )
    params = root / "params.yaml"
    params.write_text(
        yaml.safe_dump(
            {
                "datasets": ["toy"],
                "sources": {"toy": {"kind": "sample"}},
                "pretrain": {
                    "epochs": EPOCHS,
                    "vocab": 60,
                    "codes": 16,
                    "batch_size": 8,
                    "held_out": 0.2,
                    "threads": 1,
                },
            }
        )
    )
    return params


def _jpeg(colour: tuple[int, int, int], thing: int) -> bytes:
    picture = np.full((16, 16, 3), 255, np.uint8)
    low, high = ((0, 16), (4, 12), (6, 10), (7, 9))[thing]
    picture[low:high, 4:12] = colour
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG")
    return out.getvalue()


def _command(root: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "stages.cli",
        "pretrain",
        "toy",
        "--params",
        str(root / "params.yaml"),
        "--root",
        str(root),
    ]


def _run(root: Path) -> list[dict[str, float | None]]:
    with running("pretrain", "toy", load(root / "params.yaml"), root) as run:
        main(run)
    found: list[dict[str, float | None]] = json.loads(Layout(root, "toy").history("pretrain").read_text())
    return found


def _digests(root: Path) -> dict[str, str]:
    folder = Layout(root, "toy").encoder
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "run.json"
    }


def test_killed_after_a_checkpoint_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    _toy(tmp_path / "whole")
    history = _run(tmp_path / "whole")
    _toy(tmp_path / "killed")
    checkpoint = Layout(tmp_path / "killed", "toy").encoder_checkpoint
    process = subprocess.Popen(_command(tmp_path / "killed"))
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    _run(tmp_path / "killed")
    assert _digests(tmp_path / "killed") == _digests(tmp_path / "whole")
    assert [e["epoch"] for e in history] == list(range(1, EPOCHS + 1))
    assert sorted(_digests(tmp_path / "whole")) == [
        ".key", "config.json", "encoder.safetensors", "history.json", "tokenizer.spm", "visual_tokens.safetensors",
        "whitening.safetensors",
    ]  # fmt: skip


def test_it_learns_more_than_the_commonest_token(tmp_path: Path) -> None:
    """Colour and thing are in both picture and words, so that what is masked in one can be read in the other."""
    _toy(tmp_path)
    parameters = yaml.safe_load((tmp_path / "params.yaml").read_text())
    parameters["pretrain"] |= {"epochs": 24, "lr": 0.003}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters))
    last = _run(tmp_path)[-1]
    assert last["mim_accuracy"] > last["mim_chance"] + 0.05
    assert last["mlm_accuracy"] > last["mlm_chance"] + 0.05


@pytest.mark.parametrize(("images", "texts"), [(False, True), (True, False), (False, False)])
def test_a_dataset_may_lack_a_modality(tmp_path: Path, images: bool, texts: bool) -> None:
    _toy(tmp_path, images, texts)
    last = _run(tmp_path)[-1]
    assert (last["mim_accuracy"] is not None) == images
    assert (last["mlm_accuracy"] is not None) == texts
