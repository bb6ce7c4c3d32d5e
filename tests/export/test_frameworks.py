"""Libraries, as PyPI has them, train on their exports, each in an environment of its own.

Opt-in, since some install a torch: ALIGNREC_FRAMEWORKS=1 pytest tests/export/test_frameworks.py. Environments are
kept below ALIGNREC_FRAMEWORKS_CACHE, where that is set.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import accuracy
from pipeline import io
from pipeline.export.content import ExportContent
from pipeline.export.write import write
from pipeline.interactions.split import Pairs, Split, load
from pipeline.models import MODELS
from pipeline.models.base import Inputs
from pipeline.models.lightgcn import LightGCN
from pipeline.ops.scores import Filter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("ALIGNREC_FRAMEWORKS"), reason="installs torch twice; ALIGNREC_FRAMEWORKS=1"),
]

DOCS = Path(__file__).parents[2] / "docs"
USERS, ITEMS, WIDTH = 120, 50, 16
NEEDS = {
    "recbole": [*accuracy.RECBOLE],
    "cornac": ["cornac>=2.3,<4", "torch"],
    "lenskit": ["lenskit>=2025.8,<2026"],
    "rectools": ["rectools>=0.19,<0.20"],
    "implicit": ["implicit>=0.7.2,<0.8", "pandas"],
}


@pytest.fixture(scope="module")
def content() -> ExportContent:
    """120 users with 6 of 50 items each, the last two valid and test; the users' items are close to one another."""
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
    """Return the Python of a fresh environment with `name` in it."""
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
    """Export, and run the README's snippet and `code` in the export's folder; return what it prints last, as JSON."""
    folder = tmp_path / "export"
    write(content, name, folder)
    block = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert block
    said = printed(environment(name, tmp_path), folder, block[1] + code)
    assert sorted(said["order"]) == list(range(ITEMS))
    assert said["sizes"] == [USERS * 4, USERS, USERS]
    assert 0 <= said["recall"] <= 1
    return said


def printed(python: Path, folder: Path, code: str) -> dict:
    """Run code in a folder; return what it prints last, as JSON."""
    (folder / "run.py").write_text(code)
    done = subprocess.run([python, "run.py"], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


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


def test_recbole_propagates_and_learns_like_ours(
    content: ExportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "PYTHON", environment("recbole", tmp_path))
    assert content.interactions is not None
    split = load(content.interactions, USERS, ITEMS)
    torch.manual_seed(0)
    ours = LightGCN(Inputs(split, None, None, torch.device("cpu")), accuracy.SETTINGS)
    tables = {name: x.detach().numpy() for name, x in ours.named_parameters()}
    with accuracy.recbole(tmp_path / "baby", split, tables, 0) as theirs, torch.no_grad():
        for name, vectors in zip(tables, ours(), strict=True):
            np.testing.assert_allclose(np.load(tmp_path / f"baby/{name}.npy"), vectors, atol=1e-6)
        before = theirs.recall()
        turns = [theirs.epoch() for _ in range(20)]
    assert before < max(turn.result for turn in turns)
    assert all(turn.wall > 0 and turn.cpu > 0 for turn in turns)


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


OWN = {
    "lenskit": """
from lenskit.als import ImplicitMFScorer
als = topn_pipeline(ImplicitMFScorer(embedding_size=4, epochs=2))
als.train(data)
theirs = [int(i) for i in recommend(als, 7, n=3).ids()]
""",
    "rectools": """
theirs = EASEModel(regularization=10).fit(data).recommend([7], data, k=3, filter_viewed=True)["item_id"].tolist()
""",
    "implicit": """
from implicit.als import AlternatingLeastSquares
als = AlternatingLeastSquares(factors=4, iterations=2, random_state=0)
als.fit(train, show_progress=False)
theirs = als.recommend(7, train[7], N=3)[0].tolist()
""",
}
"""a model of the library's own, on the same data"""
SAID = """
import json
print(json.dumps({"items": [int(i) for i in items], "scores": [float(s) for s in scores], "theirs": theirs}))
"""


def ours(x: np.ndarray, train: pa.Table) -> np.ndarray:
    """Return the scores of our L3AE for user 7, float32 [items]."""
    nobody = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
    pairs = Pairs(train["user_id"].to_numpy(), train["item_id"].to_numpy())
    inputs = Inputs(Split(USERS, len(x), pairs, nobody, nobody), torch.from_numpy(x), None, torch.device("cpu"))
    user, item = MODELS["l3ae"](inputs, MODELS["l3ae"].Params())()
    assert isinstance(item, Filter)
    return np.asarray(item.scores(user).numpy()[7])


@pytest.mark.parametrize("library", OWN)
def test_l3ae_ranks_items_without_interactions(library: str, content: ExportContent, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "cold-items.md").read_text(), re.DOTALL)
    here, new = tmp_path / "here", np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    write(replace(content, features={"linear": content.features["our-set"]}), "npy", here / "export")
    (here / "new").mkdir()
    pq.write_table(pa.table({"vector": io.vectors(new)}), here / "new/features-00000.parquet")
    joined, shared = blocks[:2]
    with contextlib.chdir(here):
        exec(joined, {})
    (here / "l3ae.py").write_text(shared)
    (block,) = [block for block in blocks[2:] if f"from {library}" in block]
    said = printed(environment(library, tmp_path), here, block + OWN[library] + SAID)
    x, train = np.load(here / "x.npy"), content.split(0)
    assert np.array_equal(x, np.vstack([content.matrix("our-set"), new]))
    scores = ours(x, train)
    assert said["items"] == (ITEMS + np.argsort(-scores[ITEMS:])).tolist()
    np.testing.assert_allclose(said["scores"], np.sort(scores[ITEMS:])[::-1], atol=1e-5)
    seen = train["item_id"].to_numpy()[train["user_id"].to_numpy() == 7]
    assert len({*said["theirs"]} - {*seen.tolist()}) == 3
