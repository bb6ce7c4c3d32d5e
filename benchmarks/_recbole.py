"""Train LightGCN with RecBole, one epoch per line of stdin; runs in RecBole's own environment.

    python benchmarks/_recbole.py FOLDER

FOLDER contains `settings.json`, atomic files and the initial embeddings `user.npy` and `item.npy`, which each epoch
overwrites. After each epoch a JSON line with wall and CPU seconds is printed.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer


def main(folder: Path) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # keep RecBole's messages out of the answers
    sys.argv = sys.argv[:1]  # RecBole parses it
    config = Config(
        "LightGCN", folder.name, config_dict=json.loads((folder / "settings.json").read_text())
    )
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    model = LightGCN(config, train.dataset).to(config["device"])
    trainer = Trainer(config, model)
    tables = {"user": model.user_embedding.weight, "item": model.item_embedding.weight}
    start = {name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in tables}
    rows = {name: torch.from_numpy(_rows(dataset, name, len(x))) for name, x in start.items()}
    with torch.no_grad():
        for name, table in tables.items():
            table[rows[name]] = start[name]
    _save(folder, model, rows)
    for epoch, _ in enumerate(_answered(answers)):
        wall, cpu = time.perf_counter(), time.process_time()
        trainer._train_epoch(train, epoch)  # what `fit` calls between evaluations
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        _save(folder, model, rows)
        print(json.dumps(seconds), file=answers, flush=True)


def _answered(answers: TextIO) -> Iterator[str]:
    print("ready", file=answers, flush=True)
    yield from sys.stdin


def _rows(dataset: Any, name: str, n: int) -> np.ndarray:
    """Return RecBole's ids of users or items 0 .. n-1; 0 (padding) for those without interactions."""
    numbers = dataset.field2token_id[f"{name}_id"]
    return np.array([numbers.get(str(i), 0) for i in range(n)])


@torch.no_grad()
def _save(folder: Path, model: LightGCN, rows: dict[str, torch.Tensor]) -> None:
    model.eval()
    for name, vectors in zip(rows, model(), strict=True):
        np.save(folder / f"{name}.npy", vectors[rows[name]].cpu().numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
