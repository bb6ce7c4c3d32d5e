"""An encoder that says nothing is said: zeros for all are an error, one vector for all or many zeros a warning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from pipeline import io
from pipeline.encode import tfidf
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.run import running
from stages.encode import main

Change = Callable[[torch.Tensor], torch.Tensor]
WARNINGS = {
    "the same vector": (
        torch.ones_like,
        "tfidf: all 5 items with content have the same vector",
    ),
    "nearly the same": (lambda x: 1 + 1e-7 * x, "tfidf: all 5 items with content have the same vector"),
    "mostly zeros": (lambda x: x * 0, "tfidf: 4 of 5 items with content have a vector of zeros"),
}


def giving(monkeypatch: pytest.MonkeyPatch, change: Change, kept: bool = False) -> None:
    """Make the encoder `tfidf` give other vectors; the first batch, which has one item, may be kept."""
    make, calls = tfidf.make, list[None]()

    class Changed(tfidf.Tfidf):
        def encode(self, prepared: Any) -> torch.Tensor:
            calls.append(None)
            vectors = super().encode(prepared)
            return vectors if kept and len(calls) == 1 else change(vectors)

    def made(*given: Any) -> tfidf.Tfidf:
        encoder = make(*given)
        encoder.__class__ = Changed
        return encoder

    monkeypatch.setitem(vars(ENCODERS["tfidf"]), "make", made)


def stage(root: Path, encoder: str = "tfidf", *controls: str) -> tuple[Layout, dict[str, Any]]:
    layout = toy.outputs(root)
    params = toy.params(encode={"encoders": [encoder], "controls": list(controls), "batch_size": 1})
    with running("encode", "shop", params, root) as run:
        main(run)
    return layout, io.read_json(layout.run_record("encode"))["notes"]


@pytest.mark.parametrize("case", WARNINGS)
def test_what_tells_few_items_apart_is_a_warning_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, said = WARNINGS[case]
    giving(monkeypatch, change, kept=case == "mostly zeros")
    _, notes = stage(tmp_path)
    (warning,) = notes["warnings"]
    assert warning.startswith(said)


def test_zeros_for_all_items_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giving(monkeypatch, torch.zeros_like)
    with pytest.raises(UserError, match="tfidf: all 5 items"):
        stage(tmp_path)


def test_an_imported_file_of_zeros_is_an_error_that_names_it(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    layout.raw.mkdir(parents=True, exist_ok=True)
    np.save(layout.raw / "theirs.npy", np.zeros((6, 3)))
    io.write_json(layout.sources, [{"role": "feature:theirs", "name": "theirs.npy"}])
    params = toy.params(encode={"encoders": [], "controls": []})
    with (
        running("encode", "shop", params, tmp_path) as run,
        pytest.raises(UserError, match=r"theirs\.npy: all 6 items"),
    ):
        main(run)
