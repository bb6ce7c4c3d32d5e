"""What each way of pre-training is worth: arms of switches, each trained, encoded and asked the probes.

    python -m benchmarks._arms RESULTS.json [--dataset sample] [--root outputs] [--params params.yaml]
                               [--epochs 8] [--seeds 0 1 2] [--arms name ...]

Reads the outputs of a dataset as far as the images stage. `alignrec pretrain` trains each arm, with the parameters of
ARMS in place of the file's. RESULTS.json keeps what is done; a second call goes on. At the end it prints a table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

import schemas
from pipeline import io
from pipeline.layout import Layout
from pipeline.ops.whitening import processed
from pipeline.probe import questions
from pipeline.probe.base import Data

K, WIDTH = 20, 128
PROBES = ("zero_shot", "item_cf", "content_knn")
SETS = ("beit3", "beit3-raw", "beit3-image-masked", "beit3-text-masked")
HEADINGS = ("whole, whitened", "whole, raw CLS", "text alone", "image alone")

ARTICLE: dict[str, Any] = {"summary": 0.0, "content": 0.0}
"""MIM and MLM alone"""
TAUGHT = ARTICLE | {"distill": 10.0, "distill_from": ["minilm", "cnn", "tfidf"], "batch_size": 16}
RECIPE = TAUGHT | {"words": "minilm", "cls_pass": "whole", "cls_read": "whitened"}
ARMS: dict[str, dict[str, Any]] = {
    "untrained": {"epochs": 0},
    "the article's terms alone": ARTICLE,
    "from nothing": {},
    "from nothing, words": {"words": "minilm"},
    "taught": TAUGHT,
    "taught, words": TAUGHT | {"words": "minilm"},
    "taught, words, whole pass": RECIPE | {"cls_read": "plain"},
    "taught, words, whitened": RECIPE | {"cls_pass": "masked"},
    "recipe": RECIPE,
    "recipe, random words": RECIPE | {"words": "random"},
    "recipe, from minilm and cnn alone": RECIPE | {"distill_from": ["minilm", "cnn"]},
    "recipe, summary and content": RECIPE | {"summary": 1.0, "content": 1.0},
    "recipe, batches of 32": RECIPE | {"batch_size": 32},
    "recipe, visual tokens of the CNN": RECIPE | {"visual_tokens": "teacher-kmeans"},
    "recipe, VQ-KD tokens": RECIPE | {"visual_tokens": "teacher-vqkd"},
    "recipe, augmented": RECIPE | {"augment": ["crop", "colour"]},
    "recipe, 96 pixels": RECIPE | {"image": 96},
    "recipe, ITC with hard negatives": RECIPE | {"itc": 0.5, "hard_negatives": 3},
    "recipe, collaborative": RECIPE | {"collaborative": 1.0},
}
"""name -> keys of `pretrain`; each differs from one above in what its name says"""


def main(own: argparse.Namespace) -> None:
    """Train what RESULTS lacks, then print the table."""
    done: dict[str, dict[str, list[float]]] = io.read_json(own.results) if own.results.is_file() else {}
    layout = Layout(own.root, own.dataset)
    for seed in own.seeds:
        for arm in own.arms or ARMS:
            if f"{arm}\t{seed}" not in done:
                done[f"{arm}\t{seed}"] = measured(layout, own.params, ARMS[arm], seed, own.epochs)
                io.write_json(own.results, done)
                print(arm, seed, done[f"{arm}\t{seed}"], flush=True)
    print("\n".join(table(done)))


def measured(layout: Layout, params: Path, arm: dict[str, Any], seed: int, epochs: int) -> dict[str, list[float]]:
    """Return feature set -> figure of each of PROBES at K."""
    given = yaml.safe_load(params.read_text())
    given["pretrain"] = given["pretrain"] | NOTHING
    given["pretrain"] |= {"epochs": epochs, "seed": seed} | arm
    given["encode"] = {"encoders": list(SETS), "controls": ["shuffled"]}
    with TemporaryDirectory() as folder:
        own = Layout(Path(folder), layout.dataset)
        for stage in ("download", "interactions", "items", "images"):
            own.folder(stage).parent.mkdir(parents=True)
            own.folder(stage).symlink_to(layout.folder(stage).resolve())
        file = Path(folder) / "params.yaml"
        file.write_text(yaml.safe_dump(plain(given, layout.dataset)))
        for stage in ("pretrain", "encode"):
            command = [sys.executable, "-m", "stages.cli", stage, layout.dataset, "--params", str(file)]
            subprocess.run([*command, "--root", folder], check=True)
        sets = {name: io.matrix(io.read_features(own.features(name))["vector"]) for name in (*SETS, "shuffled")}
    asked = probes(layout)
    out = {name: hits(asked, x) for name, x in sets.items()}
    return out | {"beit3-raw, processed": hits(asked, processed(sets["beit3-raw"], WIDTH))}


NOTHING: dict[str, Any] = {
    "summary": 1.0,
    "content": 1.0,
    "distill": 0.0,
    "words": "random",
    "cls_pass": "masked",
    "cls_read": "plain",
    "batch_size": 32,
}
"""undoes what params.yaml may have switched on"""


def plain(given: dict[str, Any], dataset: str) -> dict[str, Any]:
    """Return the sections that the stages here read; the others have their defaults."""
    kept = {key: given[key] for key in ("sources", "interactions", "items", "images", "pretrain", "encode")}
    return kept | {"datasets": [dataset], "benchmark": {"features": ["beit3"]}}


def probes(layout: Layout) -> dict[str, Any]:
    """Return the questions of PROBES."""
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    asked = questions.ask(Data(interactions, len(io.read_table(layout.item_ids, schemas.ITEM_IDS)), []))
    return {name: asked[name] for name in PROBES}


def hits(asked: dict[str, Any], features: np.ndarray) -> list[float]:
    """Return the hit rate of each probe at K."""
    return [round(float(questions.hits(features, asked[name], (K,)).mean()), 6) for name in PROBES]


def table(done: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return a row an arm: the probes' figures of each feature set, means over seeds."""
    lines = [f"| arm | seeds | {' | '.join(HEADINGS)} |", "|---|---|" + "---|" * len(HEADINGS)]
    for arm in dict.fromkeys(key.split("\t")[0] for key in done):
        runs = [figures for key, figures in done.items() if key.split("\t")[0] == arm]
        cells = []
        for name in SETS:
            means = np.mean([run[name] for run in runs], axis=0)
            cells.append(" / ".join(f"{mean:.3f}".lstrip("0") for mean in means))
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--root", type=Path, default=Path("outputs"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main(_arguments())
