"""A training resumed from a checkpoint equals an uninterrupted one."""

from pathlib import Path

import torch
from processes import started

from alignrec.pipeline.harness import process
from alignrec.pipeline.ops.checkpoint import Checkpoint


def say_growth(path: Path) -> None:
    """Print the growth of peak memory, in MiB, when 256 MiB are saved."""
    tensors = {"w": torch.ones(64 << 20)}
    before = process.peak_mib()
    Checkpoint(path, 1).save(tensors, {"step": 1})
    print(process.peak_mib() - before)


def test_saving_takes_no_memory_as_large_as_the_tensors(tmp_path: Path) -> None:
    assert int(started(say_growth, tmp_path / "x.safetensors").communicate()[0]) < 128
    assert Checkpoint(tmp_path / "x.safetensors", 1).load() is not None
