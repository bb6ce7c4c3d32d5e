"""A training that goes on from a file goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from processes import started
from torch import Tensor, nn

from pipeline import memory
from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam


def step(weights: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (weights**3).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_goes_on_from_a_file_with_its_own_rate(kind: type[torch.optim.Adam], tmp_path: Path) -> None:
    whole = nn.Parameter(torch.arange(1.0, 4.0))
    optimizer = kind([whole], lr=0.1)
    for _ in range(3):
        step(whole, optimizer)
    checkpoint = Checkpoint(tmp_path / "x.safetensors", 1)
    checkpoint.save(named("model", {"w": whole}) | named("adam", adam_state(optimizer)), {"step": 3})

    actual = checkpoint.load()
    assert actual is not None
    assert actual[1] == {"step": 3}
    resumed = nn.Parameter(part_of(actual[0], "model")["w"])
    other = kind([resumed], lr=0.05)
    restore_adam(other, part_of(actual[0], "adam"))
    assert other.param_groups[0]["lr"] == 0.05
    other.param_groups[0]["lr"] = 0.1
    step(whole, optimizer)
    step(resumed, other)
    assert torch.equal(whole, resumed)


def say_growth(path: Path) -> None:
    """Print by how many MiB the most memory of this process grows when 256 MiB are saved."""
    tensors = {"w": torch.ones(64 << 20)}
    before = memory.peak_mib()
    Checkpoint(path, 1).save(tensors, {"step": 1})
    print(memory.peak_mib() - before)


def test_saving_takes_no_memory_as_large_as_the_tensors(tmp_path: Path) -> None:
    assert int(started(say_growth, tmp_path / "x.safetensors").communicate()[0]) < 128
    assert Checkpoint(tmp_path / "x.safetensors", 1).load() is not None
