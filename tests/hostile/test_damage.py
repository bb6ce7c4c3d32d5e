"""Files damaged on disk: the stage that wrote them writes them again, byte for byte, after a kill and after its end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pretraining
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shops
import toy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import schemas
from pipeline import io
from pipeline.beit3 import tokenizer
from pipeline.benchmark import runs
from pipeline.benchmark.runs import Entry
from pipeline.encode.params import MODALITIES, variant
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.run import Run, present_files
from pipeline.stage import perform
from stages.order import STAGES
from stages.params import Params, load

pytestmark = pytest.mark.usefixtures("one_process")


# --- damages


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def other_values(path: Path) -> None:
    """Put a file in its place that any reader takes."""
    match path.suffix:
        case ".parquet":
            table = pq.read_table(path)
            last = table.column_names[-1]
            rolled = table[last].take(pa.array(np.roll(np.arange(len(table)), 1)))
            pq.write_table(table.set_column(len(table.column_names) - 1, last, rolled), path)
        case ".json":
            path.write_text(json.dumps(json.loads(path.read_text(), parse_float=lambda _: 0.99)))
        case ".safetensors":
            with safe_open(path, "np") as file:
                facts = file.metadata()
            save_file({name: np.asarray(array + 1) for name, array in load_file(path).items()}, path, facts)
        case _:
            other = tokenizer.train(["seven other words than those of the shop"], 60)
            assert other
            path.write_bytes(other)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": truncated,
    "flipped-in-data": partial(flipped, at=40),
    "flipped-in-footer": partial(flipped, at=-12),
    "emptied": lambda path: path.write_bytes(b""),
    "other-values": other_values,
    "deleted": Path.unlink,
}


# --- stages


class Stage:
    """A stage on a toy shop, that has ended once."""

    def __init__(self, name: str, params: Params, layout: Layout) -> None:
        self.name, self.params, self.layout = name, params, layout
        self.work = Layout(layout.root, layout.dataset, (name, ""))
        toy.ended(layout)
        self.ran()
        self.whole = self.files()

    def ran(self) -> None:
        run = Run(self.name, self.layout.dataset, self.params, self.layout.root)
        perform(run, STAGES[self.name], lambda _: None)

    def files(self) -> dict[str, str]:
        return present_files(self.layout.out(self.name))

    def unended(self) -> None:
        """Forget its record, and let DVC delete what it had made."""
        (self.work.folder(self.name) / io.RECORD).unlink()
        shutil.rmtree(self.layout.out(self.name))


def download(root: Path) -> Stage:
    io.write_bytes(root / "r.csv", b"user,item\n" + 20 * b"u,i\n")
    source = {"kind": "tabular", "interactions": str(root / "r.csv")}
    params = Params.model_validate({"datasets": ["shop"], "sources": {"shop": source}})
    return Stage("download", params, Layout(root, "shop"))


def images(root: Path) -> Stage:
    layout = toy.outputs(root)
    for item, colour in enumerate(toy.COLOURS):
        io.write_bytes(layout.raw / f"A{item}.jpg", toy.jpeg(colour or (9, 9, 9)))
    return Stage("images", toy.params(images={"pattern": "{item}.jpg", "shard_rows": 2}), layout)


def encode(root: Path) -> Stage:
    sections = {"encode": {"encoders": ["tfidf"], "controls": [], "shard_rows": 2}, "encoders": {"tfidf": {"width": 2}}}
    layout = toy.outputs(root)
    io.write_json(layout.sources, [])
    return Stage("encode", toy.params(**sections), layout)


def graph(root: Path) -> Stage:
    return Stage("graph", toy.params(graph={"k": 3}), toy.outputs(root))


TRAIN = {"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01, "checkpoint_every": 1}
SPACES = {"bpr": {"lr": {"low": 1e-3, "high": 0.05}}}


def train(root: Path) -> Stage:
    return Stage("train", toy.params(train=TRAIN), shops.outputs(root))


def benchmark(root: Path) -> Stage:
    own: dict[str, Any] = {"models": ["bpr"], "features": ["f"], "seeds": 2, "ks": [5, 20], "budget": 2}
    params = toy.params(train=TRAIN, benchmark=own, search={"spaces": SPACES})
    return Stage("benchmark", params, shops.outputs(root))


def study(root: Path) -> Stage:
    layout = shops.outputs(root)
    table = io.read_features(layout.features("f")).drop_columns(["vector"])
    for number, modality in enumerate(MODALITIES, start=1):
        masked = table.append_column("vector", io.vectors(shops.content(number)))
        path = io.shard(layout.features(variant("f", modality)), "features", 0)
        io.write_table(masked, path, schemas.features(shops.WIDTH))
    part = {"mask": {"ratios": [0.5], "seeds": 1}, "workers": 1, "tail": False}
    return Stage("study", toy.params(train=TRAIN, graph={"k": 4}, study=part), layout)


def pretrain(root: Path) -> Stage:
    return Stage("pretrain", load(pretraining.shop(root, steps=4)), Layout(root, "toy"))


MAKERS = (download, images, encode, graph, train, benchmark, study, pretrain)
BY_NAME = {make.__name__: make for make in MAKERS}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stage]:
    """Return what makes a stage at its first use; every test leaves it as it was."""
    made: dict[str, Stage] = {}

    def stage(name: str) -> Stage:
        if name not in made:
            made[name] = BY_NAME[name](tmp_path_factory.mktemp(name))
        return made[name]

    return stage


RUN = Entry("bpr", "none", 1)


def cell(layout: Layout, stage: str, opens: str) -> Path:
    records = sorted(layout.cells(stage).glob("*.json"))
    return next(path for path in records if f'"opens": "{opens}"' in path.read_text(errors="replace"))


ARTEFACTS: dict[str, tuple[str, Callable[[Layout], Path]]] = {
    "raw file": ("download", lambda layout: layout.raw / "r.csv"),
    "list of raw files": ("download", lambda layout: layout.sources),
    "image shard": ("images", lambda layout: io.shard(layout.images, "images", 1)),
    "features shard": ("encode", lambda layout: io.shard(layout.features("tfidf"), "features", 1)),
    "edges": ("graph", lambda layout: layout.edges("random")),
    "benchmark record": ("benchmark", lambda layout: runs.rankings(layout, RUN).with_suffix(".json")),
    "ranking": ("benchmark", lambda layout: runs.rankings(layout, RUN)),
    "tuning record": ("benchmark", lambda layout: cell(layout, "benchmark", "valid")),
    "mask record": ("study", lambda layout: cell(layout, "study", "test")),
    "tokenizer": ("pretrain", lambda layout: layout.encoder.tokenizer),
    "encoder weights": ("pretrain", lambda layout: layout.encoder.weights),
}


PAIRS = [
    (artefact, damage)
    for i, artefact in enumerate(ARTEFACTS) for j, damage in enumerate(DAMAGES)
    if (i + j) % 3 == 0 or "CAMPAIGN" in os.environ
]  # fmt: skip
"""two damages of each file, all six with CAMPAIGN=1"""


@pytest.mark.parametrize(("artefact", "damage"), PAIRS)
def test_what_was_damaged_is_made_again(stages: Callable[[str], Stage], artefact: str, damage: str) -> None:
    name, find = ARTEFACTS[artefact]
    stage = stages(name)
    path = find(stage.work)
    DAMAGES[damage](path)
    stage.unended()
    stage.ran()
    assert stage.files() == stage.whole


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_and_where_the_stage_had_ended_too(
    stages: Callable[[str], Stage], artefact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, find = ARTEFACTS[artefact]
    stage = stages(name)
    path = find(stage.work)
    other_values(path)
    stage.ran()
    assert ("was altered" in capsys.readouterr().err) == (name != "graph")  # whose files are written each time
    assert stage.files() == stage.whole


@pytest.mark.parametrize(
    ("name", "damage"), [*(("train", damage) for damage in DAMAGES), ("pretrain", "flipped-in-data")]
)
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


# --- inputs


def test_a_damaged_input_is_named_with_the_command_that_makes_it_again(tmp_path: Path) -> None:
    first = encode(tmp_path)
    second = Stage("graph", first.params, first.layout)
    path = io.shard(first.layout.features("tfidf"), "features", 0)
    truncated(path)
    with pytest.raises(UserError) as error:
        second.ran()
    assert str(error.value).startswith(f"{path} is not as it was made, and graph reads it; ")
    assert "`alignrec encode shop`" in str(error.value)
    first.ran()
    assert first.files() == first.whole
    second.ran()
    assert second.files() == second.whole


def by_hand(path: Path) -> None:
    data = path.read_bytes()
    other = data.replace(b'"bytes": 9', b'"bytes": 8').replace(b'"rows_in": 10', b'"rows_in": 99')
    path.write_bytes(other if other != data else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


@pytest.mark.parametrize("name", ["report", "publish"])
def test_what_the_page_and_the_release_quote_is_hashed(tmp_path: Path, name: str) -> None:
    """Each file of the stages that they read, and the record of every stage before them."""
    layout = toy.outputs(tmp_path)
    toy.ended(layout)
    stage = STAGES[name]
    read = [(earlier.name, path) for earlier in stage.reads for path in io.files_below(layout.out(earlier.name))]
    records = [(earlier, layout.run_record(earlier)) for earlier in stage.before()]
    quoted = [*read, *((earlier, path) for earlier, path in records if path.exists())]
    assert (("download", layout.sources) in quoted) == (name == "publish")
    assert ("download", layout.run_record("download")) in quoted
    for earlier, path in quoted:
        before = path.read_bytes()
        by_hand(path)
        with pytest.raises(UserError) as error:
            perform(Run(name, "shop", toy.PARAMS, tmp_path), stage, lambda _: None)
        assert str(path) in str(error.value)
        assert f"run `alignrec {earlier} shop`" in str(error.value)
        path.write_bytes(before)
    perform(Run(name, "shop", toy.PARAMS, tmp_path), stage, lambda _: None)
