"""The stage on a toy shop: a kill at any write changes nothing; what is odd or wrong names feature set and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
import yaml

from pipeline import io
from pipeline.errors import UserError
from pipeline.io import files as written
from pipeline.layout import Layout
from pipeline.run import Run
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS
from pipeline.stage import perform
from stages.order import STAGES
from stages.params import Params, load

QUICK = {"rqvae": {"hidden": [], "width": 2, "epochs": 3}}


def sections(changed: dict[str, Any]) -> dict[str, Any]:
    part = {"features": ["random"], "methods": list(METHODS), "levels": 2, "codes": 2, "settings": QUICK} | changed
    encode = {"encoders": ["beit3", "minilm-cnn"], "controls": ["random"]}
    return {"semantic_ids": part, "encode": encode, "benchmark": {"features": ["beit3", "random"]}}


def params(**changed: Any) -> Params:
    return toy.params(**sections(changed))


def ran(layout: Layout, asked: Params) -> None:
    toy.ended(layout)
    perform(Run("semantic_ids", "shop", asked, layout.root), STAGES["semantic_ids"], lambda _: None)


def digests(layout: Layout) -> dict[str, str]:
    return {str(p.relative_to(layout.root)): io.sha256(p) for p in layout.outputs("semantic_ids")}


def test_a_kill_at_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, layout = toy.outputs(tmp_path / "whole"), toy.outputs(tmp_path / "killed")
    ran(whole, params())
    atomic, kills = written.atomic, 0

    def killed(path: Path) -> Any:
        if path.name in files.NAMES and not path.exists() and path not in seen:
            seen.add(path)
            raise KeyboardInterrupt
        return atomic(path)

    seen: set[Path] = set()
    monkeypatch.setattr(written, "atomic", killed)
    while True:
        try:
            ran(layout, params())
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == 3 * len(METHODS)
    assert digests(layout) == digests(whole)
    assert len(digests(whole)) == 3 * len(METHODS)
    ran(layout, params())


def test_a_method_that_is_done_is_not_done_again_when_another_is_added(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    ran(layout, params(methods=["residual-kmeans", "random"]))
    kept = layout.semantic_ids("random", "residual-kmeans") / files.CODEBOOKS
    before = kept.stat().st_mtime_ns
    ran(layout, params(methods=["rqvae", "residual-kmeans"]))
    assert kept.stat().st_mtime_ns == before
    assert {path.parent.name for path in layout.outputs("semantic_ids")} == {"residual-kmeans", "rqvae"}
    ran(layout, params(methods=["residual-kmeans"], settings={"residual-kmeans": {"iterations": 3}}))
    assert kept.stat().st_mtime_ns != before


def test_the_history_is_beside_what_explains_the_codes(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    ran(layout, params(methods=["rqvae", "residual-kmeans"]))
    lines = files.load(layout.semantic_ids("random", "rqvae")).facts.history
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert {"loss", "reconstruction", "codebook", "commitment", "used"} <= lines[-1].keys()
    assert files.load(layout.semantic_ids("random", "residual-kmeans")).facts.history == []


def test_items_without_a_free_code_are_counted_and_a_collapsed_level_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = toy.outputs(tmp_path)
    ran(layout, params(methods=["random"], levels=1, collisions="reassign"))
    record = json.loads(layout.run_record("semantic_ids").read_text())
    assert record["drops"] == {"random by random: item without a free code": 4}  # 6 items, 2 codes
    toy.write_features(layout, "random", np.repeat(np.eye(2), 3, axis=0) + 0.0, [f"A{i}" for i in range(toy.ITEMS)])
    ran(layout, params(methods=["residual-kmeans"]))
    assert "random by residual-kmeans: level 2 has collapsed: it uses 1 of 2 codes" in capsys.readouterr().err


def test_what_cannot_be_coded_names_set_and_method(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"random by residual-kmeans: 'semantic_ids.codes': 7 .* 6 items"):
        ran(toy.outputs(tmp_path), params(codes=7))


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (
            {"methods": ["residual-kmaens"]},
            "'semantic_ids.methods': no 'residual-kmaens'; did you mean 'resid",
        ),
        ({"features": ["biet3"]}, "'semantic_ids.features': no 'biet3'; did you mean 'beit3'?"),
        ({"features": ["tfidf"]}, "'semantic_ids.features': no 'tfidf'; valid: beit3, minilm-cnn, random"),
        ({"settings": {"rqvea": {}}}, "'semantic_ids.settings': no 'rqvea'; did you mean 'rqvae'?"),
        ({"settings": {"rqvae": {"epoch": 3}}}, "unknown key 'semantic_ids.settings.rqvae.epoch'; did you mean 'epoc"),
        ({"settings": {"rqvae": {"warm_up": 2}}}, "'semantic_ids.settings.rqvae.warm_up': "),
        ({"settings": {"shuffled": {"method": "random"}}}, "'semantic_ids.settings.shuffled.method': "),
    ],
)
def test_misspelt_parameters_are_refused(tmp_path: Path, changed: dict[str, Any], fault: str) -> None:
    path = tmp_path / "params.yaml"
    given = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}, **sections(changed)}
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(UserError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {fault}")
