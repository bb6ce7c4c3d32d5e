"""Degenerate encoders: all zeros are an error; one vector for all, or many zeros, a warning."""

from collections.abc import Callable
from pathlib import Path

import featured
import numpy as np
import pytest
import torch
import toy

from alignrec.pipeline import io
from alignrec.pipeline.encode.tfidf import Tfidf
from alignrec.pipeline.io.errors import UserError

Change = Callable[[torch.Tensor], torch.Tensor]
WARNINGS: dict[str, Change] = {
    "all 5 items with content have the same vector": torch.ones_like,
    "all 5 items with content have the same vector ": lambda x: 1 + 1e-7 * x,  # nearly
    "4 of 5 items with content have a vector of zeros": lambda x: x * torch.eye(len(x), 1),
}


def giving(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Replace the vectors of TF-IDF."""
    encode = Tfidf.encode
    monkeypatch.setattr(Tfidf, "encode", lambda self, prepared: change(encode(self, prepared)))


@pytest.mark.parametrize("said", WARNINGS)
def test_what_distinguishes_few_items_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    giving(monkeypatch, WARNINGS[said])
    layout = toy.outputs(tmp_path)
    given = toy.params(encode={"encoders": ["tfidf"]}, beit3={"sets": []}, combine={"sets": {}, "controls": []})
    featured.stage(layout, given)
    assert io.read_json(layout.run_record("encode", "tfidf"))["notes"]["warnings"] == [f"tfidf: {said.strip()}"]


def test_zeros_for_all_items_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giving(monkeypatch, torch.zeros_like)
    with pytest.raises(UserError, match=r"^tfidf: all 5 items"):
        featured.stage(toy.outputs(tmp_path), featured.params("tfidf"))


def test_an_imported_file_of_zeros_is_an_error_that_names_it(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    layout.raw.mkdir(parents=True, exist_ok=True)
    np.save(layout.raw / "theirs.npy", np.zeros((6, 3)))
    io.write_json(layout.sources, [{"role": "feature:theirs", "name": "theirs.npy"}])
    source = {"kind": "mmrec", "interactions": "x.inter", "features": {"theirs": "theirs.npy"}}
    given = toy.params(sources={"shop": source}, encode={"encoders": []}, beit3={"sets": []}, combine={"controls": []})
    with pytest.raises(UserError, match=r"theirs\.npy: all 6 items"):
        featured.stage(layout, given)
