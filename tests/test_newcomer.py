"""Plug-ins of a third-party package, from a recommender to a source: one file and one entry each."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shop import toy

from alignrec.commands.params import load
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime import registry
from alignrec.pipeline.runtime.layout import Layout

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
ENCODER = CONTRIBUTING.partition("```python\n# my_parts.py\n")[2].partition("```")[0]
MODEL = '''
"""score(u, i) = e_u . (W x_i)."""
import torch.nn.functional as nnf
from torch import nn

from alignrec.pipeline.models.base import Recommender, bpr, pick_rows, xavier_uniform
from alignrec.pipeline.models.params import Train


class ContentMFParams(Train):
    normalise: bool = True


class ContentMF(Recommender):
    Params = ContentMFParams
    needs = frozenset({"features"})

    def __init__(self, inputs, params):
        super().__init__(inputs, params)
        self.features = nnf.normalize(inputs.features) if params.normalise else inputs.features
        self.user = xavier_uniform(inputs.split.n_users, params.dim)
        self.project = nn.Linear(self.features.shape[1], params.dim, bias=False)

    def forward(self):
        return self.user, self.project(self.features)

    def loss(self, batch):
        positive, negative = (self.project(pick_rows(self.features, i)) for i in (batch.positives, batch.negatives))
        return {"bpr": bpr(pick_rows(self.user, batch.users), positive, negative)}
'''
PROBE = '''
"""Distinct: the share of items whose vector no other item has."""
from dataclasses import dataclass

import numpy as np

from alignrec.pipeline.evaluation.probe.registry import Probe


@dataclass(frozen=True)
class Distinct:
    items: int

    def answer(self, features):
        _, of, counts = np.unique(features, axis=0, return_inverse=True, return_counts=True)
        return (counts[of.reshape(-1)] == 1).astype(np.float64)

    def summary(self, sets):
        figures = {name: {"share": float(own.mean()), "share_se": float(own.std())} for name, own in sets.items()}
        return {"items": self.items, "chance": {"share": 0.0}} | figures


DISTINCT = Probe(
    lambda data: Distinct(data.items),
    name="distinct vectors",
    figure="share",
    question="the share of items whose vector no other item has",
    note="Which share of {n:,} items has a vector that no other item has?",
)
'''
SOURCE = '''
"""Stationery: forty users, half of whom buy pens, half paper."""
import json
from typing import Literal

from alignrec.pipeline.runtime.section import Positive
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.base import Generated
from alignrec.pipeline.sources.tabular import Tabular, TabularSource


class Stationery(Generated):
    kind: Literal["stationery"]
    users: Positive = 40
    licence = Licence({"license": "cc0-1.0"}, "Nobody owns stationery.")

    def reader(self):
        return Tabular(TabularSource(kind="tabular", interactions="unused", timestamps="order"))

    def make(self, raw, progress):
        raw.mkdir(parents=True, exist_ok=True)
        bought = [(u, 2 * ((u + n) % 12) + u % 2, n) for u in range(self.users) for n in range(8)]
        lines = ["user,item,timestamp", *(f"u{u},i{i},{n}" for u, i, n in bought)]
        (raw / "bought.csv").write_text("\\n".join(lines))
        items = [{"item": f"i{i}", "title": ("pen", "paper")[i % 2] * (1 + i)} for i in progress(list(range(24)))]
        (raw / "items.jsonl").write_text("\\n".join(map(json.dumps, items)))
        return {"interactions": "bought.csv", "metadata": "items.jsonl"}
'''
ENTRIES = """
[alignrec.sources]
stationery = newcomer.source:Stationery
[alignrec.encoders]
letters = newcomer.encoder:SPEC
[alignrec.models]
contentmf = newcomer.model:ContentMF
[alignrec.probes]
distinct = newcomer.probe:DISTINCT
"""
PARAMS = """
datasets: [desk]
sources: {desk: {kind: stationery}}
encode: {encoders: [letters]}
beit3: {sets: []}
combine: {sets: {}, controls: [random]}
encoders: {letters: {scale: 2.0}}
train: {features: letters}
benchmark: {models: [contentmf], features: [letters], seeds: 1, ks: [5, 10, 20],
  overrides: {contentmf: {normalise: false, epochs: 2}}}
publish: {features: [letters]}
"""
STAGES = "download interactions items encode combine graph semantic_ids probe benchmark report publish"
FILES = {"source": SOURCE, "encoder": ENCODER, "model": MODEL, "probe": PROBE}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in its own folder on the path, as if pip had installed it."""
    site = tmp_path / "site"
    for name, text in FILES.items():
        path = site / "newcomer" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = site / "newcomer-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    registry.installed_parts.cache_clear()
    yield
    monkeypatch.undo()
    registry.installed_parts.cache_clear()
    for name in [name for name in sys.modules if name.startswith("newcomer")]:
        del sys.modules[name]


def params(folder: Path, text: str = PARAMS) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


@pytest.mark.usefixtures("installed", "one_process")
def test_each_runs_and_shows_in_the_report_and_on_the_card(tmp_path: Path) -> None:
    asked, layout = load(params(tmp_path)), Layout(tmp_path, "desk")
    for stage in STAGES.split():
        toy.run(stage, asked, tmp_path, "desk", "letters" if stage == "encode" else "")
    for text in ((layout.report / "report.md").read_text(), (layout.release / "README.md").read_text()):
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert any("| contentmf | letters | 1 |" in row for row in rows)
        assert any("share" in row for row in rows)  # the probe's figure
        assert any(row.startswith("| letters |") for row in rows)
    card = (layout.release / "README.md").read_text()
    assert "Nobody owns stationery." in card
    assert "license: cc0-1.0" in card


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("good", "bad", "key", "meant"),
    [
        ("normalise:", "normalize:", "benchmark.overrides.contentmf.normalize", "normalise"),
        ("scale: 2.0", "scales: 2.0", "encoders.letters.scales", "scale"),
        ("{kind: stationery}", "{kind: stationery, user: 3}", "sources.desk.user", "users"),
        ("{kind: stationery}", "{kind: stationary}", "sources.desk.kind", "stationery"),
    ],
)
def test_its_parameters_are_as_closed_as_ours(tmp_path: Path, good: str, bad: str, key: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"'{key}'.*'{meant}'"):
        load(params(tmp_path, PARAMS.replace(good, bad)))


def test_an_entry_that_takes_a_name_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "installed_parts", lambda group: {"bpr": "nowhere.to_be:Found"})
    with pytest.raises(UserError, match=r"'bpr' of alignrec\.models"):
        list(MODELS)
