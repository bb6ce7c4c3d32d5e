"""The stage on several devices gives the bytes that it gives on one; each has a network of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy

from pipeline import io
from pipeline.encode import tfidf
from pipeline.encode.registry import ENCODERS
from pipeline.features import write
from pipeline.ops import device
from pipeline.run import running
from stages import encode

SETS = ["cnn", "minilm-cnn", "minilm-cnn-text-masked", "both"]


def stage(root: Path) -> dict[str, list[bytes]]:
    layout = toy.outputs(root)
    encoders = {"both": {"kind": "concat", "of": ["cnn", "tfidf"]}}
    given = toy.params(encode={"encoders": SETS, "controls": ["shuffled"], "shard_rows": 2}, encoders=encoders)
    with running("encode", "shop", given, layout.root) as run:
        encode.main(run)
        assert [bar.n for bar in run.bars if bar.unit == "item"] == [6 * (len(SETS) + 1)]
    return {name: [p.read_bytes() for p in io.shards(layout.features(name), "features")] for name in SETS}


def test_two_devices_give_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage(tmp_path / "one")
    threads, entered, make = set[int](), list[torch.device](), tfidf.make
    loading, most = 0, 0

    def noted(*given: Any) -> tfidf.Tfidf:
        nonlocal loading, most
        threads.add(threading.get_ident())
        loading += 1
        most = max(most, loading)
        time.sleep(0.2)
        loading -= 1
        return make(*given)

    current: Callable[[torch.device], Any] = device.current
    monkeypatch.setattr("pipeline.ops.device.current", lambda where: entered.append(where) or current(where))
    monkeypatch.setattr(write, "visible", lambda: [torch.device("cpu"), torch.device("cpu")])
    spec = ENCODERS["tfidf"]
    monkeypatch.setitem(vars(spec), "make", noted)
    assert stage(tmp_path / "two") == one
    assert len(threads) == 2
    assert threading.get_ident() not in threads
    assert most == 1, "one network is loaded at a time"
    assert len(entered) == 3 * (len(SETS) + 1)
