"""Effect of pre-training: features of the trained network beside those of the same network untrained.

    python -m benchmarks._pretrain_learns RESULTS.json [seed ...]

Reads `outputs/` of the embedded dataset up to the images stage. For each seed it pre-trains as params.yaml says, and
with 0 epochs. Each network's features are probed whole, by each modality alone under the same whitening, and with
shuffled rows. RESULTS.json keeps finished runs; a second call continues.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import schemas
from pipeline import io
from pipeline.config import Download, Pretrain
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.params import load
from pipeline.pretrain import held_out, prepare, published
from pipeline.pretrain.batches import batch
from pipeline.pretrain.loop import fit
from pipeline.pretrain.losses import whole
from pipeline.probe import questions
from pipeline.probe.base import Data
from pipeline.seeds import seed_for

DATASET, KS = "sample", (5, 10, 20, 50)
Figures = dict[str, dict[str, list[float]]]

PROBES = ("zero_shot", "item_cf", "content_knn")


def main(results: Path, seeds: list[int]) -> None:
    """Train what RESULTS lacks, then print means and sds over seeds as Markdown."""
    done: dict[str, Figures] = io.read_json(results) if results.is_file() else {}
    params = load(Path("params.yaml"))
    layout = Layout(Path("outputs"), DATASET)
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    probes = questions.ask(Data(interactions, len(texts), []))
    for seed in seeds:
        for name, epochs in (("untrained", 0), ("trained", params.pretrain.epochs)):
            if f"{name} {seed}" not in done:
                settings = params.pretrain.model_copy(update={"seed": seed, "epochs": epochs})
                sets = _features(layout, texts, settings, params.download)
                done[f"{name} {seed}"] = {which: _hits(probes, x) for which, x in sets.items()}
                io.write_json(results, done)
    print("\n".join(table(done)))


def table(done: dict[str, Figures]) -> list[str]:
    """Return a row for each probe, network and part: mean and sd over seeds of the hit rate at each K."""
    lines = [f"| probe | features | {' | '.join(f'@{k}' for k in KS)} |", "|---|---|" + "---|" * len(KS)]
    for probe in PROBES:
        for name in ("untrained", "trained"):
            runs = [figures for key, figures in done.items() if key.startswith(name)]
            for which in runs[0]:
                values = np.array([run[which][probe] for run in runs])
                sd = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(len(KS))
                cells = " | ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(values.mean(axis=0), sd, strict=True))
                lines.append(f"| {probe} | {name}, {which} | {cells} |")
    return lines


def _features(layout: Layout, texts: list[str], params: Pretrain, download: Download) -> dict[str, np.ndarray]:
    with TemporaryDirectory() as folder:
        own = Layout(Path(folder), DATASET)
        for source, link in ((layout.items.parent, own.items.parent), (layout.images, own.images)):
            link.parent.mkdir(parents=True)
            link.symlink_to(source.resolve())
        seed, device = seed_for("pretrain", DATASET, params.seed), torch.device("cpu")
        shelf = published.shelf(own, download, tqdm)
        network, task, _ = prepare.everything(own, texts, params, shelf, seed, device)
        fit(network, task, Checkpoint(own.encoder_checkpoint, 10**9), lambda n: None)
        whitening = held_out.whitening(network, task)
        shown = batch(task, np.arange(len(texts)), held_out.NOTHING, 0).shown
        hidden = torch.ones_like(shown.no_image)
        ways = {
            "joint": shown,
            "text alone": shown._replace(no_image=hidden),
            "image alone": shown._replace(padding=torch.ones_like(shown.padding)),
        }
        with torch.no_grad():
            sets = {name: whitening(whole(network, way).float().numpy()) for name, way in ways.items()}
    return sets | {"joint, rows shuffled": np.random.default_rng(seed).permutation(sets["joint"])}


def _hits(probes: dict[str, Any], features: np.ndarray) -> dict[str, list[float]]:
    return {probe: questions.hits(features, probes[probe], KS).mean(axis=0).tolist() for probe in PROBES}


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
