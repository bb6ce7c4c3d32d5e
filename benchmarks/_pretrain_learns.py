"""Whether pre-training teaches: features of the trained network beside those of the same network untrained.

    python -m benchmarks._pretrain_learns RESULTS.json [seed ...]

Reads `outputs/` of the embedded dataset as far as the images stage. For each seed it pre-trains with the parameters of
params.yaml, and not at all, and asks the probes of each network's whole features, of each modality alone under the same
whitening, and of the trained ones with their rows shuffled. RESULTS.json keeps what is done; a second call goes on.
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
from pipeline.pretrain.losses import joint_cls
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
    asked = questions.ask(Data(interactions, len(texts), []))
    for seed in seeds:
        for name, epochs in (("untrained", 0), ("trained", params.pretrain.epochs)):
            if f"{name} {seed}" not in done:
                settings = params.pretrain.model_copy(update={"seed": seed, "epochs": epochs})
                sets = _features(layout, texts, settings, params.download)
                done[f"{name} {seed}"] = {which: _hits(asked, x) for which, x in sets.items()}
                io.write_json(results, done)
    print("\n".join(table(done)))


def table(done: dict[str, Figures]) -> list[str]:
    """Return a row for each probe, network and part: mean and sd over seeds of the hit rate at each K."""
    lines = [f"| probe | features | {' | '.join(f'@{k}' for k in KS)} |", "|---|---|" + "---|" * len(KS)]
    for probe in PROBES:
        for name in ("untrained", "trained"):
            runs = [found for key, found in done.items() if key.startswith(name)]
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
        cache = published.cache(own, download, tqdm)
        network, task, _ = prepare.network_and_task(own, texts, params, cache, seed, device)
        fit(network, task, Checkpoint(own.encoder_checkpoint, 10**9), lambda n: None)
        whitening = held_out.whitening(network, task)
        joint = batch(task, np.arange(len(texts)), held_out.NO_MASKING, 0).inputs
        variants = {
            "joint": joint,
            "text alone": joint._replace(no_image=torch.ones_like(joint.no_image)),
            "image alone": joint._replace(padding=torch.ones_like(joint.padding)),
        }
        with torch.no_grad():
            sets = {name: whitening(joint_cls(network, inputs).float().numpy()) for name, inputs in variants.items()}
    return sets | {"joint, rows shuffled": np.random.default_rng(seed).permutation(sets["joint"])}


def _hits(asked: dict[str, Any], features: np.ndarray) -> dict[str, list[float]]:
    return {probe: questions.hits(features, asked[probe], KS).mean(axis=0).tolist() for probe in PROBES}


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
