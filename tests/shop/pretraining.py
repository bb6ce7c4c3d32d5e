"""A toy shop for pre-training, whose items have a colour and a thing in both text and image."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import torch
import yaml
from PIL import Image
from shop import featured, toy

from alignrec.commands.params import load
from alignrec.pipeline import io as files
from alignrec.pipeline.beit3 import losses
from alignrec.pipeline.beit3.config import BEiT3Config
from alignrec.pipeline.beit3.corpus import Corpus, PretrainTask
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import BEIT3_SETS, Pretrain
from alignrec.pipeline.runtime.layout import Layout

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (230, 220, 20)}
STEPS = 40
THINGS = ("circle", "square", "bar", "dot")
MASK = 11
UNTAUGHT: dict[str, Any] = {"size": "small", "distill": 0.0}
"""parameters of an objective without other encoders"""


def task(n: int = 24, **params: Any) -> PretrainTask:
    """Return n items in memory: images of four patches in one of four colours, and texts that name the colour."""
    rng = np.random.default_rng(0)
    colour = np.arange(n) % 4
    texts = [np.array([0, 4 + c, *rng.integers(8, MASK, rng.integers(1, 3)), 2]) for c in colour]
    pixels = np.array(list(COLOURS.values()), np.uint8)[colour][:, None, None].repeat(8, 1).repeat(8, 2)
    row = np.where(np.arange(n) % 7 == 3, -1, np.arange(n))
    codes = np.repeat(colour[:, None], 4, axis=1).astype(np.int32)
    quick = {"steps": 6, "batch_size": 8, "threads": 1, "lr": 0.01}
    own = Pretrain(**(UNTAUGHT | quick | params))
    corpus = Corpus(texts, np.arange(n + 1), np.array([len(ids) - 2 for ids in texts]), row, pixels)
    return PretrainTask(corpus, codes, MASK, own, 5, torch.device("cpu"), share_held_out=0.2)


def network(seed: int = 0) -> BEiT3:
    torch.manual_seed(seed)
    shape = {"image": 8, "patch": 4, "vocab": 12, "width": 16, "layers": 2, "heads": 2, "ffn": 32, "positions": 8}
    return BEiT3(BEiT3Config(**shape, codes=8, mlm=True))


def shop(root: Path, images: bool = True, texts: bool = True, n: int = 96, **pretrain: Any) -> Path:
    """Write n items, of which a few lack image or text; return the parameters."""
    layout, rng = Layout(root, "toy"), np.random.default_rng(0)
    colour, thing = rng.integers(0, 4, n), rng.integers(0, 4, n)
    seen = list(enumerate(zip(colour, thing, strict=True)))
    words = [f"a {list(COLOURS)[c]} {THINGS[t]}" if texts and i % 12 else "" for i, (c, t) in seen]
    drawn = [jpeg(list(COLOURS.values())[c], t) if images and i % 10 else None for i, (c, t) in seen]
    toy.write_catalogue(layout, toy.item_table(words), toy.image_table(drawn))
    settings = {"steps": STEPS, "codes": 16, "batch_size": 8, "checkpoint_every": 3}
    section = UNTAUGHT | settings | {"threads": 1} | pretrain
    files.write_json(layout.sources, [])
    write_params(root, pretrain=section)
    toy.ended(layout)
    return root / "params.yaml"


def write_params(root: Path, **sections: Any) -> None:
    """Write parameters of the shop, or change sections of existing ones."""
    path = root / "params.yaml"
    whole = {"datasets": ["toy"], "sources": {"toy": {"kind": "sample"}}, "combine": {"sets": {}, "controls": []}}
    given = yaml.safe_load(path.read_text()) if path.exists() else whole | {"encode": {"encoders": []}}
    path.write_text(yaml.safe_dump(given | sections))


def features(root: Path, *names: str) -> dict[str, np.ndarray]:
    """Encode the shop; return the vectors of some sets."""
    trained = [name for name in names if name in BEIT3_SETS]
    others = [name for name in names if name not in BEIT3_SETS]
    if others:
        written = yaml.safe_load((root / "params.yaml").read_text())
        before = written["encode"]["encoders"]  # `encode` deletes what is not listed
        write_params(root, encode={"encoders": list(dict.fromkeys([*before, *others]))})
    if trained:
        write_params(root, beit3={"sets": trained})
    params, layout = load(root / "params.yaml"), Layout(root, "toy")
    for name in others:
        toy.run("encode", params, root, "toy", item=name)
    if trained:
        toy.run("beit3", params, root, "toy")
    return {name: featured.vectors(layout, name) for name in names}


def run(root: Path) -> dict[str, Any]:
    """Pre-train on the shop; few held-out targets are enough, as drawing more takes longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "MIN_TARGETS", 1)
        toy.run("pretrain", load(root / "params.yaml"), root, "toy")
    notes: dict[str, Any] = json.loads(Layout(root, "toy").run_record("pretrain").read_text())["notes"]
    return notes


def jpeg(colour: tuple[int, int, int], thing: int) -> bytes:
    pixels = np.full((16, 16, 3), 255, np.uint8)
    low, high = ((0, 16), (4, 12), (6, 10), (7, 9))[thing]
    pixels[low:high, 4:12] = colour
    return pictures.saved(Image.fromarray(pixels))


def history(root: Path) -> list[dict[str, float | None]]:
    run(root)
    curve: list[dict[str, float | None]] = json.loads(Layout(root, "toy").history("pretrain").read_text())
    return curve


def digests(root: Path) -> dict[str, str]:
    folder = Layout(root, "toy").encoder.folder
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "cost.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
