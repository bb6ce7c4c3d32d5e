"""The judge reads a dataset's outputs, and probes what codes reconstruct."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import toy

from pipeline import io
from pipeline.layout import Layout
from pipeline.probe import questions, sampled
from pipeline.run import running
from pipeline.semantic_ids import files, judge
from pipeline.semantic_ids.base import Method
from pipeline.semantic_ids.quality import Codes
from stages import semantic_ids

SECTION = {"features": ["beit3"], "methods": ["residual-kmeans", "random"], "levels": 2, "codes": 2}


def coded(root: Path, vectors: np.ndarray | None = None, **section: Any) -> Layout:
    """Run the stage on the toy shop, on its own vectors or others."""
    layout = toy.outputs(root)
    if vectors is not None:
        toy.write_features(layout, "beit3", vectors, [f"A{i}" for i in range(toy.ITEMS)])
    with running("semantic_ids", "shop", toy.params(semantic_ids=SECTION | section), root) as run:
        semantic_ids.main(run)
    return layout


def quality(layout: Layout, method: str) -> dict[str, Any]:
    return files.load(layout.semantic_ids("beit3", method)).facts.quality


def method(vectors: np.ndarray) -> Method:
    """Return codebooks whose first code is the number of the vector that it stands for."""
    return cast(Method, SimpleNamespace(control=False, decode=lambda codes: vectors[codes[:, 0]]))


def each_its_own() -> Codes:
    return Codes(np.arange(toy.ITEMS), np.arange(toy.ITEMS, dtype=np.int32)[:, None], toy.ITEMS)


def test_the_stage_judges_methods_and_controls_alike(tmp_path: Path) -> None:
    layout = coded(tmp_path)
    ours, control = (quality(layout, method) for method in SECTION["methods"])
    assert ours.keys() == control.keys()
    assert ours["reconstruction"]["item_cf"]["items"] > 0
    assert -1 <= ours["reconstruction"]["cosine"] <= 1
    assert control["reconstruction"] == {"skipped": "the codes stand for no vector"}


def test_collisions_are_counted_before_they_were_settled(tmp_path: Path) -> None:
    twins = np.repeat(np.array([[1, 0], [0, 1], [-1, -1]], np.float32), 2, axis=0)
    for policy, after in (("keep", 1.0), ("suffix", 0.0), ("reassign", 0.0)):
        layout = coded(tmp_path / policy, twins, collisions=policy, codes=3)
        found = quality(layout, "residual-kmeans")["collisions"]
        assert (found["before"], found["after"]) == (1.0, after)


def test_codes_that_lose_nothing_cost_nothing_and_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "bounded", lambda items: 1)  # every one of six items is among the first six
    layout = toy.outputs(tmp_path)
    vectors = io.matrix(io.read_features(layout.features("beit3"))["vector"])
    near = judge.read(layout, "beit3", 0, 6)
    same = near.judged(each_its_own(), method(vectors))["reconstruction"]["item_cf"]
    assert same["difference"] == same["low"] == same["high"] == 0
    assert same["p_holm"] == 1
    assert same["measure"] == "hit@1"
    flat = near.judged(each_its_own(), method(np.ones_like(vectors)))["reconstruction"]["item_cf"]
    assert flat["original"] == same["original"] != pytest.approx(flat["chance"], abs=0.02)
    assert flat["reconstructed"] == pytest.approx(flat["chance"], abs=1e-6)


def test_a_large_catalogue_is_asked_some_of_its_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = toy.outputs(tmp_path)
    monkeypatch.setattr(sampled, "COSINES", 0)
    monkeypatch.setattr(sampled, "FEWEST", 1)
    original = judge.read(layout, "beit3", 0, toy.ITEMS).original
    assert isinstance(original, judge.Original)
    for probe in original.probes.values():
        assert isinstance(probe, questions.Questions)
        assert probe.groups == 1
        assert "were asked, drawn by seed." in probe.note


def test_why_there_is_no_reconstruction(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    vectors = io.matrix(io.read_features(layout.features("beit3"))["vector"])
    for most, codebooks, reason in ((5, method(vectors), "not probed with 6 items"), (6, None, "no codebooks")):
        found = judge.read(layout, "beit3", 0, most).judged(each_its_own(), codebooks)
        assert found["reconstruction"] == {"skipped": reason}
