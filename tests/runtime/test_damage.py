"""A damaged checkpoint is dropped, and the stage ends with the same bytes."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import pretraining, tastes, toy

from alignrec.commands.params import Params, load
from alignrec.pipeline import io
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import present_files
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import perform
from alignrec.stages.order import STAGES

pytestmark = pytest.mark.usefixtures("one_process")


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def other_values(path: Path) -> None:
    """Replace a file by a valid one with other values."""
    match path.suffix:
        case ".parquet":
            table = pq.read_table(path)
            last = table.column_names[-1]
            rolled = table[last].take(pa.array(np.roll(np.arange(len(table)), 1)))
            pq.write_table(table.set_column(len(table.column_names) - 1, last, rolled), path)
        case ".json":
            path.write_text(json.dumps(json.loads(path.read_text(), parse_float=lambda _: 0.99)))
        case _:
            flipped(path, at=40)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped-in-data": partial(flipped, at=40),
    "flipped-in-footer": partial(flipped, at=-12),
    "emptied": lambda path: os.truncate(path, 0),
    "other-values": other_values,
    "deleted": Path.unlink,
}


class Stage:
    """A completed stage on a toy shop."""

    def __init__(self, name: str, params: Params, layout: Layout, item: str = "") -> None:
        self.name, self.params, self.layout, self.item = name, params, layout, item
        self.work = Layout(layout.root, layout.dataset, (name, item))
        toy.ended(layout)
        self.ran()
        self.whole = self.files()

    def ran(self) -> None:
        run = Run(self.name, self.layout.dataset, self.params, self.layout.root, self.item)
        perform(run, STAGES[self.name], lambda _: None)

    def files(self) -> dict[str, str]:
        return present_files(self.layout.out(self.name, self.item))


TRAIN = {"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01, "checkpoint_every": 1}


def train(root: Path) -> Stage:
    return Stage("train", toy.params(train=TRAIN), tastes.outputs(root))


def pretrain(root: Path) -> Stage:
    return Stage("pretrain", load(pretraining.shop(root, steps=4)), Layout(root, "toy"))


BY_NAME = {make.__name__: make for make in (train, pretrain)}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stage]:
    """Return a factory that runs a stage on first use; tests must restore it."""
    made: dict[str, Stage] = {}

    def stage(name: str) -> Stage:
        if name not in made:
            made[name] = BY_NAME[name](tmp_path_factory.mktemp(name))
        return made[name]

    return stage


@pytest.mark.parametrize(("name", "damage"), [*(("train", damage) for damage in DAMAGES), ("pretrain", "truncated")])
def test_a_damaged_checkpoint_is_dropped(
    stages: Callable[[str], Stage], name: str, damage: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stage, save = stages(name), Checkpoint.save
    checkpoint = stage.layout.checkpoint if name == "train" else stage.layout.encoder_checkpoint

    def killed(self: Checkpoint, tensors: Any, state: Any) -> None:
        save(self, tensors, state)
        raise KeyboardInterrupt

    (stage.work.folder(name) / io.KEY).unlink()  # so that it begins again
    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.ran()
    monkeypatch.setattr(Checkpoint, "save", save)
    DAMAGES[damage](checkpoint)
    stage.ran()
    assert stage.files() == stage.whole
    line = f"warning: {name} {stage.layout.dataset}: {checkpoint} was altered"
    assert capsys.readouterr().err.count(line) == (damage != "deleted")


@pytest.mark.parametrize(
    ("command", "damaged"),
    [
        (("export", "shop", "--format", "npy", "--to", "to"), "encode/shop/minilm-cnn/features-00000.parquet"),
        (("compare", "shop", "beit3", "minilm-cnn", "--to", "to"), "interactions/shop/interactions.parquet"),
        (("summary", "shop"), "probe/shop/probes.json"),
    ],
)
def test_what_leaves_the_project_is_not_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], damaged: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    layout = toy.outputs(tmp_path / "outputs")
    toy.ended(layout)
    path = layout.root / damaged
    path.write_bytes(path.read_bytes()[:-1])
    done = alignrec(*command)
    assert done.exit_code == 1, done.output
    assert (
        f"{damaged} is not as it was made, and {command[0]} reads it; run `alignrec {damaged.split('/')[0]} shop"
        in (done.output)
    )
