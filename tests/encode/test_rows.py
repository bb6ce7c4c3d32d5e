"""`encode.reuse` encodes only new rows; and an out-of-memory error halves the batch, once, with a warning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import featured
import networks
import numpy as np
import pytest
import torch
import toy
from featured import ITEMS, Item, catalogue, item
from torch import Tensor

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.encode import batching
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError

CHANGES: dict[str, tuple[list[Item], int]] = {
    "a-text": ([*ITEMS[:6], ITEMS[6]._replace(text="another"), *ITEMS[7:]], 1),
    "an-image": ([*ITEMS[:7], ITEMS[7]._replace(colour="pink"), *ITEMS[8:]], 1),
    "two-at-the-front": ([item(90), item(91), *ITEMS], 2),
    "five-deleted": (ITEMS[5:], 0),
    "another-order": (ITEMS[::-1], 0),
    "another-name": ([ITEMS[0]._replace(asin="B0"), *ITEMS[1:]], 0),
}
"""items, and how many of them are encoded"""
MORE = CHANGES["two-at-the-front"][0]


def params(model: Path, reuse: bool = True, **own: object) -> Params:
    encode = {"encoders": ["net"], "shard_rows": 4, "batch_size": 2, "reuse": reuse}
    net = {"kind": "huggingface", "model": str(model), **own}
    return toy.params(encode=encode, encoders={"net": net}, beit3={"sets": []}, combine={"sets": {}, "controls": []})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.siglip(tmp_path_factory.mktemp("network"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of items that the network encoded, per file."""
    given, encode = list[int](), batching.encode_items

    def noting(encoder: Any, texts: Any, *more: Any, **named: Any) -> batching.Encoded:
        given.append(len(texts))
        return encode(encoder, texts, *more, **named)

    monkeypatch.setattr(batching, "encode_items", noting)
    return given


@pytest.fixture
def shop(model: Path, tmp_path: Path, encoded: list[int]) -> Layout:
    """A shop with reusable rows."""
    layout = catalogue(tmp_path / "shop", ITEMS)
    featured.stage(layout, params(model))
    encoded.clear()
    return layout


def equals_a_fresh_run(layout: Layout, items: list[Item], given: Params) -> None:
    fresh = catalogue(layout.root.with_name("fresh"), items)
    featured.stage(fresh, given)
    np.testing.assert_allclose(featured.vectors(layout, "net"), featured.vectors(fresh, "net"), atol=1e-5)
    rows, expected = (io.read_features(one.features("net")).drop_columns("vector") for one in (layout, fresh))
    assert rows.to_pydict() == expected.to_pydict()
    texts, wanted = (io.read_json(one.run_record("encode", "net"))["notes"] for one in (layout, fresh))
    assert texts == wanted


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_new_alone_is_encoded(shop: Layout, model: Path, encoded: list[int], change: str) -> None:
    items, new = CHANGES[change]
    before = dict(zip(ITEMS, featured.vectors(shop, "net"), strict=True))
    featured.stage(catalogue(shop.root, items), params(model))
    assert sum(encoded) == new
    for one, vector in zip(items, featured.vectors(shop, "net"), strict=True):
        np.testing.assert_array_equal(vector, before.get(one, vector))
    equals_a_fresh_run(shop, items, params(model, reuse=False))


@pytest.mark.parametrize("what", ["network", "setting", "version"])
def test_rows_of_another_network_setting_or_version_are_not_reused(
    shop: Layout, model: Path, what: str, encoded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = params(networks.clip(tmp_path / "clip") if what == "network" else model)
    if what == "setting":
        given = params(model, join="concat")
    if what == "version":
        monkeypatch.setattr("alignrec.pipeline.harness.run.versions", lambda: {"torch": "3"})
    featured.stage(catalogue(shop.root, MORE), given)
    assert sum(encoded) == len(MORE)


def test_rows_of_a_damaged_file_are_not_reused(shop: Layout, model: Path, encoded: list[int]) -> None:
    path = next(shop.rows.glob("*/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    featured.stage(catalogue(shop.root, MORE), params(model))
    assert sum(encoded) in (2 + 2, 2 + 4), "two new ones, and those of one file"
    equals_a_fresh_run(shop, MORE, params(model, reuse=False))


# --- out of memory


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
