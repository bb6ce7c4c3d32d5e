"""A toy shop with an encoder, for the study's tests: `pretraining.shop` with buyers, as the stages would leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pretraining
import pyarrow as pa
import shops
import yaml

import schemas
from pipeline import io
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import PLANS, TABLES
from pipeline.layout import Layout
from pipeline.run import Run
from pipeline.study.branch import searched
from stages import encode, pretrain
from stages.params import Params, load

ITEMS, USERS = 96, 40
SETS = ["beit3", "beit3-raw", "beit3-image-masked", "beit3-text-masked", "tfidf"]


def write(root: Path, **sections: Any) -> Path:
    """Write items, images and interactions; return the parameter file, which has the sections too."""
    path, layout = pretraining.shop(root, vocab=40, steps=4), Layout(root, "toy")
    params = yaml.safe_load(path.read_text())
    params |= {"encode": {"encoders": SETS, "controls": []}, "encoders": {"tfidf": {"width": 8}}, "graph": {"k": 4}}
    params["train"] = {"features": "beit3", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01}
    params["probe"] = {"ks": [5, 20], "width": 4}
    params["benchmark"] = {"ks": [5, 20], "features": ["beit3"], "seeds": 1}
    for name, section in sections.items():
        params[name] = params.get(name, {}) | section
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    rng = np.random.default_rng(3)
    rows = [
        (user, int(item), part)
        for user in range(USERS)
        for item, part in zip(rng.permutation(np.arange(user % 4, ITEMS, 4))[:10], [0] * 8 + [1, 2], strict=True)
    ]
    io.write_table(shops.interactions(rows), layout.interactions, schemas.INTERACTIONS)
    names = {"user_id": np.arange(USERS, dtype=np.int32), "user": [f"u{i}" for i in range(USERS)]}
    io.write_table(pa.table(names), layout.users, schemas.USERS)
    ids = {"item_id": np.arange(ITEMS, dtype=np.int32), "asin": [f"A{i}" for i in range(ITEMS)]}
    io.write_table(pa.table(ids), layout.item_ids, schemas.ITEM_IDS)
    io.write_json(layout.sources, [])
    return path


def encoded(root: Path, **sections: Any) -> Params:
    """Do as `write`, then pre-train, encode and search the graphs; return the parameters."""
    params = load(write(root, **sections))
    pretrain.main(run("pretrain", params, root))
    encode.main(run("encode", params, root))
    for name in SETS:
        searched(run("graph", params, root), name)
    return params


def part(name: str, params: Params, root: Path) -> None:
    experiment = Experiment(run("study", params, root), params.study.workers)
    found = experiment.complete(PLANS[name](experiment), name)
    experiment.write(TABLES[name](experiment, found))
    assert [path for path in experiment.made if not path.is_file()] == []
    experiment.end()


def run(stage: str, params: Params, root: Path) -> Run:
    return Run(stage, "toy", params, root)
