"""An out-of-memory error halves the batch, once, with a warning."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignrec.pipeline.encode import batching
from alignrec.pipeline.io.errors import UserError

TEXTS = [f"{i} words" for i in range(10)]


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def on_the_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def in_python() -> None:
    raise MemoryError


def otherwise() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Narrow:
    """A text encoder whose memory holds `most` items."""

    width = 2

    def __init__(self, most: int, end: Callable[[], None] = on_a_gpu) -> None:
        self.most, self.end = most, end
        self.passes: list[int] = []

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        return list(texts or ())

    def encode(self, prepared: Any) -> Tensor:
        self.passes.append(len(prepared))
        if len(prepared) > self.most:
            self.end()
        return torch.tensor([[len(text), sum(map(ord, text))] for text in prepared], dtype=torch.float32)


def encode(encoder: Narrow, size: int, texts: Sequence[str] = TEXTS) -> batching.Encoded:
    return batching.encode_items(encoder, texts, [None] * len(texts), size)


@pytest.mark.parametrize("end", [on_a_gpu, on_the_cpu, in_python])
def test_a_batch_without_room_is_encoded_in_halves(end: Callable[[], None]) -> None:
    encoder = Narrow(3, end)
    made = encode(encoder, 4)
    np.testing.assert_array_equal(made.vectors, encode(Narrow(99), 4).vectors)
    assert encoder.passes == [4, 2, 2, 4, 2, 2, 2]
    assert made.halved.tolist() == [True] * 8 + [False] * 2
    assert not encode(Narrow(4), 4).halved.any()


@pytest.mark.parametrize(
    ("most", "size", "says"),
    [
        (1, 5, "memory ran out in half a batch of 5 too; lower batch_size, or give more memory"),
        (0, 2, "memory ran out with one item per forward pass; take a smaller network, or give more memory"),
        (0, 1, "memory ran out with one item per forward pass; take a smaller network, or give more memory"),
    ],
)
def test_without_room_for_half_a_batch_what_to_do_is_said(most: int, size: int, says: str) -> None:
    with pytest.raises(UserError) as e:
        encode(Narrow(most), size)
    assert str(e.value) == says


def test_another_error_is_itself() -> None:
    encoder = Narrow(3, otherwise)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        encode(encoder, 4)
    assert encoder.passes == [4]
