"""Released libraries train on their exports, each in its own environment.

Opt-in, since some install a torch: ALIGNREC_FRAMEWORKS=1 pytest tests/export/test_frameworks.py. Environments are
kept below ALIGNREC_FRAMEWORKS_CACHE, where that is set.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alignrec.pipeline import io
from alignrec.pipeline.export.content import ExportContent
from alignrec.pipeline.export.write import write_export
from benchmarks import accuracy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("ALIGNREC_FRAMEWORKS"), reason="installs torch twice; ALIGNREC_FRAMEWORKS=1"),
]

USERS, ITEMS, WIDTH = 120, 50, 16
NEEDS = {
    "recbole": [*accuracy.RECBOLE],
    "cornac": ["cornac>=2.3,<4", "torch"],
}


@pytest.fixture(scope="module")
def content() -> ExportContent:
    """120 users with 6 of 50 items each, the last two valid and test; items of a user are similar."""
    rng = np.random.default_rng(0)
    n, ids, there = USERS * 6, pa.array(range(ITEMS), pa.int32()), pa.array([True] * ITEMS)
    columns = {
        "user_id": pa.array(np.repeat(np.arange(USERS), 6), pa.int32()),
        "item_id": pa.array(np.concatenate([(u + rng.permutation(12)[:6]) % ITEMS for u in range(USERS)]), pa.int32()),
        "rating": pa.array([4.0] * n, pa.float32()),
        "timestamp": pa.array(range(n), pa.int64()),
        "split": pa.array([0, 0, 0, 0, 1, 2] * USERS, pa.int8()),
    }
    texts = {"title": [f'item "{i}" of many' for i in range(ITEMS)], "categories": pa.array([["a b", "c"]] * ITEMS)}
    texts |= dict.fromkeys(("brand", "description", "image_url"), [""] * ITEMS)
    items = pa.table({"item_id": ids, "asin": [f"A{i}" for i in range(ITEMS)], **texts})
    vector = io.vectors(rng.normal(size=(ITEMS, WIDTH)))
    vectors = pa.table({"item_id": ids, "has_image": there, "has_text": there, "vector": vector})
    users = pa.table({"user_id": pa.array(range(USERS), pa.int32()), "user": [f"U{u}" for u in range(USERS)]})
    return ExportContent("shop", items, {"our-set": vectors}, users, pa.table(columns))


def environment(name: str, tmp_path: Path) -> Path:
    """Return the interpreter of a fresh environment with `name` installed."""
    folder = Path(os.environ.get("ALIGNREC_FRAMEWORKS_CACHE", tmp_path)) / name
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", *NEEDS[name]], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        (folder / "complete").touch()
    return python


def trained(name: str, content: ExportContent, tmp_path: Path, code: str) -> dict:
    """Export, run the README's snippet and `code` in that folder; return the last line printed, as JSON."""
    folder = tmp_path / "export"
    write_export(content, name, folder)
    block = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert block
    command = [environment(name, tmp_path), "-c", block[1] + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert sorted(said["order"]) == list(range(ITEMS))
    assert said["sizes"] == [USERS * 4, USERS, USERS]
    assert 0 <= said["recall"] <= 1
    return said


RECBOLE = """
import json
import numpy as np
from recbole.data import data_preparation
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer

config["epochs"], config["eval_args"]["order"], config["state"] = 1, "RO", "ERROR"
train, valid, test = data_preparation(config, dataset)
model = BPR(config, train.dataset).to(config["device"])
trainer = Trainer(config, model)
score, result = trainer.fit(train, valid, saved=False, verbose=False)
tested = trainer.evaluate(test, load_best_model=False)
order = [int(token) for token in dataset.id2token("item_id", np.arange(1, dataset.item_num))]
sizes = [len(part.dataset) for part in (train, valid, test)]
print(json.dumps({"order": order, "features": features.tolist(), "sizes": sizes, "recall": float(tested["recall@10"])}))
"""


def test_recbole_trains_an_epoch(content: ExportContent, tmp_path: Path) -> None:
    said = trained("recbole", content, tmp_path, RECBOLE)
    loaded = np.array(said["features"])[1:].astype(np.float32)
    assert np.array_equal(loaded, content.matrix("our-set")[said["order"]]), "each item has its own vector"


CORNAC = """
import json
from cornac.metrics import Recall
from cornac.models import VBPR

model = VBPR(k=8, k2=8, n_epochs=1, batch_size=64, use_gpu=False, seed=0)
tested, valid = method.evaluate(model, [Recall(k=10)], user_based=True)
order = [int(i) for i in method.train_set.item_ids]
sizes = [part.num_ratings for part in (method.train_set, method.val_set, method.test_set)]
recall = tested.metric_avg_results["Recall@10"]
print(json.dumps({"order": order, "features": method.item_image.features.tolist(), "sizes": sizes, "recall": recall}))
"""


def test_cornac_trains_an_epoch(content: ExportContent, tmp_path: Path) -> None:
    said = trained("cornac", content, tmp_path, CORNAC)
    loaded = np.array(said["features"], np.float32)
    assert np.array_equal(loaded[: len(said["order"])], content.matrix("our-set")[said["order"]])
