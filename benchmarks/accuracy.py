"""Time to accuracy of LightGCN on Amazon Baby's published split, compared with RecBole.

Both start from the same settings and embeddings, and our code ranks the validation set for both, untimed. RecBole
samples negatives from all items; alignrec from those in train, which are two fewer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.io import write_json
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.lightgcn import LightGCN, LightGCNParams
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import rank_valid
from alignrec.pipeline.runtime.process import keep_large_buffers
from benchmarks import RESULTS, Absent, Measurement, _turns
from benchmarks._baby import published_split
from benchmarks._plain_alignrec import steps
from benchmarks._turns import Turn, Way, timed

RECBOLE = (
    "recbole==1.2.1",
    "numpy<2",
    "scipy<1.12",
    "pandas<3",
)  # RecBole's last release and its upper bounds
PYTHON = Path(os.environ.get("ALIGNREC_FRAMEWORKS_CACHE", RESULTS), "recbole/bin/python").absolute()
SETTINGS = LightGCNParams(lr=0.002, lr_decay=1, patience=8)
SHARE = 0.95  # target, as a fraction of the lower plateau
DRAWS = 3  # random orders and negatives; training runs to the plateau for the first, to the target for the others
MOST = 100  # maximum epochs to the target
AGREE = 1e-3  # tolerance of Recall@20 before the first epoch
Epoch = Callable[[], Turn[float]]  # trains one epoch and returns valid Recall@20


def run() -> Measurement:
    """Train both to their plateaus, then repeat with other seeds up to the same Recall@20."""
    split = published_split()
    with tempfile.TemporaryDirectory() as folder, _turns.process() as ours:
        start = partial(recbole, split=split, tables=ours(_tables))
        with start(Path(folder) / "baby", seed=0) as theirs:
            before = {"recbole": theirs.recall(), "ours": ours(_recall)}
            if abs(before["recbole"] - before["ours"]) > AGREE:
                raise RuntimeError(f"the same tables have different valid Recall@20: {before}")
            turns = race(
                {"recbole": theirs.epoch, "ours": partial(ours, _epoch, 0)}, SETTINGS.patience
            )
            started = theirs.start.wall
        aim = SHARE * min(map(best, turns.values()))
        draws = {name: [epochs_to(aim, iter(way).__next__)] for name, way in turns.items()}
        for seed in range(1, DRAWS):
            with start(Path(folder) / f"baby-{seed}", seed=seed) as theirs:
                draws["recbole"].append(epochs_to(aim, theirs.epoch))
            draws["ours"].append(epochs_to(aim, partial(ours, _epoch, seed)))
    details = {"valid_recall@20_before_the_first_epoch": before, "recbole_start_s": started}
    return measured(split, turns, aim, draws, details)


def best(turns: Sequence[Turn[float]]) -> float:
    return max(turn.result for turn in turns)


def epochs_to(aim: float, epoch: Epoch) -> int:
    for n in range(1, MOST + 1):
        if epoch().result >= aim:
            return n
    raise RuntimeError(f"valid Recall@20 is below {aim:.4f} after {MOST} epochs")


def measured(
    split: Split,
    turns: Mapping[str, Sequence[Turn[float]]],
    aim: float,
    draws: Mapping[str, Sequence[int]],
    details: dict[str, Any],
) -> Measurement:
    """Return the time to `aim`: time per epoch, times the median number of epochs over draws."""
    epochs = {name: statistics.median(drawn) for name, drawn in draws.items()}
    each = "; ".join(
        f"{name} {best(way):.4f}, the aim after {draws[name]} epochs" for name, way in turns.items()
    )
    rate = _read_rate(split)
    return Measurement(
        ways={name: Way(way, 1 / epochs[name]) for name, way in turns.items()},
        ours="ours",
        reference="recbole",
        unit="s to the aim",
        higher_is_better=False,
        limit=epochs["ours"] * _bytes_of_an_epoch(split) / rate,
        limit_is="rows that our epochs must read for products and Adam, at this machine's read rate for such tables",
        what=f"LightGCN on {split.n_users:,} users, {split.n_items:,} items, {len(split.train):,} train pairs; a turn "
        f"is an epoch; the aim: valid Recall@20 {aim:.4f}, {SHARE:.0%} of the lower plateau, after the median of "
        f"its draws ({each}); the reference: RecBole's LightGCN and trainer",
        details={
            "plateau": {name: best(way) for name, way in turns.items()},
            "aim": aim,
            "epochs_to_aim": draws,
            "settings": SETTINGS.model_dump(
                include={"dim", "layers", "lr", "l2", "batch_size", "patience"}
            ),
            "gb_read_per_s": rate / 1e9,
            "threads": torch.get_num_threads(),
            **details,
        },
    )


def race(ways: Mapping[str, Epoch], patience: int) -> dict[str, list[Turn[float]]]:
    """Train each way one epoch per round, until none has improved for `patience` rounds."""
    names, turns = list(ways), {name: list[Turn[float]]() for name in ways}
    while not all(_is_flat(way, patience) for way in turns.values()):
        r = len(turns[names[0]]) % len(names)
        for name in names[r:] + names[:r]:
            turns[name].append(ways[name]())
    return turns


def _is_flat(turns: Sequence[Turn[float]], patience: int) -> bool:
    return (
        bool(turns) and len(turns) - 1 - int(np.argmax([turn.result for turn in turns])) >= patience
    )


class _Training:
    """LightGCN trained as in the stage `train`."""

    def __init__(self, seed: int) -> None:
        keep_large_buffers()
        torch.manual_seed(0)  # equal initial embeddings for all seeds
        self.split, self.seed, self.epochs = published_split(), seed, 0
        self.model = LightGCN(Inputs(self.split, None, None, pick_device()), SETTINGS).to(
            pick_device()
        )
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=SETTINGS.lr, fused=True)
        self.sampler = Sampler(self.split)

    def epoch(self) -> None:
        drawn = torch.from_numpy(
            self.sampler.epoch(np.random.default_rng([self.seed, self.epochs]))
        ).to(pick_device())
        batches = [Batch(*rows) for rows in drawn.split(SETTINGS.batch_size, dim=1)]
        steps(
            self.optimiser,
            batches,
            lambda batch: torch.stack(list(self.model.loss(batch).values())).sum(),
        )
        self.epochs += 1

    @torch.no_grad()
    def recall(self) -> float:
        user, item = self.model()
        return rank_valid(user, item, self.split)["recall@20"]


@cache
def _training(seed: int) -> _Training:
    return _Training(seed)


def _recall() -> float:
    return _training(0).recall()


def _tables() -> dict[str, np.ndarray]:
    return {name: x.detach().cpu().numpy() for name, x in _training(0).model.named_parameters()}


def _epoch(seed: int) -> Turn[float]:
    training = _training(seed)
    return timed(training.epoch).giving(training.recall())


class _RecBole:
    """RecBole's trainer in another process, which writes its embeddings after each epoch."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, split: Split) -> None:
        self.process, self.folder, self.split = process, folder, split
        self.start = timed(self._answer)

    def epoch(self) -> Turn[float]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Turn(**json.loads(self._answer()), result=self.recall())

    def recall(self) -> float:
        user, item = (np.load(self.folder / f"{name}.npy") for name in ("user", "item"))
        return rank_valid(user, item, self.split)["recall@20"]

    def _answer(self) -> str:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"RecBole ended with {self.process.wait()}, see above")
        return line


@contextmanager
def recbole(
    folder: Path, split: Split, tables: Mapping[str, np.ndarray], seed: int
) -> Iterator[_RecBole]:
    """Start RecBole from initial embeddings; raise Absent if it is not installed."""
    if not PYTHON.exists():
        needs = " ".join(f"'{need}'" for need in RECBOLE)
        raise Absent(
            f"no {PYTHON}: python -m venv {PYTHON.parents[1]} && {PYTHON} -m pip install {needs}"
        )
    folder.mkdir()
    for name in ("train", "valid", "test"):
        pairs = getattr(split, name)
        rows = pa.table({"user": pairs.users, "item": pairs.items})
        with (folder / f"{folder.name}.{name}.inter").open("wb") as file:
            file.write(b"user_id:token\titem_id:token\n")
            csv.write_csv(rows, file, csv.WriteOptions(include_header=False, delimiter="\t"))
    for name, table in tables.items():
        np.save(folder / f"{name}.npy", table)
    write_json(folder / "settings.json", _recbole_settings(folder, seed))
    command: list[str | Path] = [
        PYTHON,
        "-P",
        "-W",
        "ignore",
        Path(__file__).with_name("_recbole.py"),
        folder,
    ]
    environment = os.environ | {"PYTHONPATH": ""}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as process:
        try:
            yield _RecBole(process, folder, split)
        finally:
            process.kill()


def _recbole_settings(folder: Path, seed: int) -> dict[str, Any]:
    return {
        "data_path": str(folder.parent),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"order": "RO"},  # no timestamps
        "embedding_size": SETTINGS.dim,
        "n_layers": SETTINGS.layers,
        "reg_weight": SETTINGS.l2,
        "require_pow": False,
        "learning_rate": SETTINGS.lr,
        "train_batch_size": SETTINGS.batch_size,
        "use_gpu": pick_device().type == "cuda",
        "seed": seed,
        "state": "ERROR",
    }


def _bytes_of_an_epoch(split: Split) -> int:
    # a row per entry of each product with the graph, forward and backward, and Adam's four tables
    row = 4 * SETTINGS.dim
    products = 2 * SETTINGS.layers * 2 * len(split.train) * row
    adam = 4 * (split.n_users + split.n_items) * row
    return -(-len(split.train) // SETTINGS.batch_size) * (products + adam)


def _read_rate(split: Split) -> float:
    """Return the best rate at which all cores read the embedding table, bytes/s."""
    table = torch.rand(split.n_users + split.n_items, SETTINGS.dim)
    return table.nbytes / min(timed(table.sum).wall for _ in range(50))
