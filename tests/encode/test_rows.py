"""Rows that are taken over where items change: those alone, as they were, whatever ends a run before."""

from __future__ import annotations

import shutil
from pathlib import Path

import networks
import numpy as np
import pytest
from coloured import ITEMS, Item, catalogue, item
from pipeline.features.earlier import FOLDER

from alignrec.commands.params import Params
from pipeline import io
from pipeline.encode import batching
from pipeline.layout import Layout
from pipeline.run import running
from stages.encode import main

ROWS, N = 4, len(ITEMS)
"""items a file, and items: the last file has two"""
CHANGES: dict[str, tuple[list[Item], int, int]] = {
    "a-text": ([*ITEMS[:6], ITEMS[6]._replace(text="another"), *ITEMS[7:]], 3, 1),
    "an-image": ([*ITEMS[:7], ITEMS[7]._replace(colour="pink"), *ITEMS[8:]], 7, 1),  # in one file with those of 5 to 9
    "two-at-the-front": ([item(90), item(91), *ITEMS], N, 2),
    "five-deleted": (ITEMS[5:], N - 5, 0),
    "another-order": (ITEMS[::-1], N, 0),
    "another-name": ([ITEMS[0]._replace(asin="B0"), *ITEMS[1:]], 2 * ROWS, 0),
}
"""the items, and how many of the files that are made anew are taken over and encoded"""


def params(model: Path, reuse: bool, **own: object) -> Params:
    encode = {"encoders": ["net"], "controls": [], "shard_rows": ROWS, "batch_size": 2, "reuse": reuse}
    net = {"kind": "huggingface", "model": str(model), **own}
    source = {"kind": "mmrec", "interactions": "x.inter"}
    given = {"datasets": ["shop"], "sources": {"shop": source}, "encode": encode, "encoders": {"net": net}}
    return Params.model_validate(given)


def stage(layout: Layout, given: Params) -> list[bytes]:
    """Run the stage; return the files of the set."""
    with running("encode", "shop", given, layout.root) as run:
        main(run)
    assert not (layout.features("net") / FOLDER).exists()
    return files(layout)


def files(layout: Layout) -> list[bytes]:
    return [path.read_bytes() for path in io.shards(layout.features("net"), "features")]


def vectors(layout: Layout) -> np.ndarray:
    return io.matrix(io.read_features(layout.features("net"))["vector"])


def noted(layout: Layout) -> tuple[int, int]:
    """Return how many rows were taken over and encoded, as cost.json has it."""
    notes = io.read_json(layout.cost("encode"))["measured"]["net"]
    return notes["taken_over"], notes["encoded"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.siglip(tmp_path_factory.mktemp("network"))


@pytest.fixture
def shop(model: Path, tmp_path: Path) -> Layout:
    """A shop that was encoded without the key."""
    layout = catalogue(tmp_path / "shop", ITEMS)
    stage(layout, params(model, reuse=False))
    return layout


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of items that the network is given, a file each."""
    given, encode = list[int](), batching.encode

    def noting(*args: object, **more: object) -> batching.Encoded:
        given.append(len(args[1]))  # type: ignore[arg-type]
        return encode(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(batching, "encode", noting)
    return given


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_new_alone_is_encoded(
    shop: Layout, model: Path, encodings: list[int], change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, taken, new = CHANGES[change]
    before = dict(zip(ITEMS, vectors(shop), strict=True))
    stage(catalogue(shop.root, items), params(model, reuse=True))
    assert sum(encodings) == new
    assert noted(shop) == (taken, new)
    assert f"encode shop: net: {taken} rows taken over, {new} encoded" in capsys.readouterr().out
    made = vectors(shop)
    for one, vector in zip(items, made, strict=True):
        if one in before:
            np.testing.assert_array_equal(vector, before[one])
    fresh = catalogue(tmp_path / "fresh", items)
    stage(fresh, params(model, reuse=False))
    np.testing.assert_allclose(made, vectors(fresh), atol=1e-5)
    rows, expected = (io.read_features(one.features("net")).drop_columns("vector") for one in (shop, fresh))
    assert rows.to_pydict() == expected.to_pydict()
    texts, wanted = (io.read_json(one.run_record("encode"))["notes"]["net"]["text_read"] for one in (shop, fresh))
    assert texts == wanted
    records = [io.record(path) for path in io.shards(shop.features("net"), "features")]
    assert sum(record.get("taken_over", 0) for record in records) == taken


@pytest.mark.parametrize("what", ["network", "setting", "version"])
def test_rows_of_another_network_setting_or_version_are_not_taken_over(
    shop: Layout, model: Path, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = params(model, reuse=True, **({"join": "concat"} if what == "setting" else {}))
    if what == "network":
        given = params(networks.clip(tmp_path / "clip"), reuse=True)
    if what == "version":
        monkeypatch.setattr("pipeline.run.versions", lambda: {"torch": "3"})
    items = CHANGES["two-at-the-front"][0]
    stage(catalogue(shop.root, items), given)
    assert noted(shop) == (0, N + 2)
    monkeypatch.undo()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def killed(layout: Layout, given: Params, at: int) -> bool:
    """Run the stage until it replaces a file for the at-th time, from where nothing happens more; or to its end."""
    replace, times = Path.replace, 0

    def counting(self: Path, target: Path) -> Path:
        nonlocal times
        times += 1
        if times > at:
            raise KeyboardInterrupt
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", counting)
        try:
            stage(layout, given)
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("when", ["before", "after-a-kill", "its-mark"])
def test_rows_of_a_damaged_file_are_not_taken_over(shop: Layout, model: Path, when: str, tmp_path: Path) -> None:
    items, given = CHANGES["two-at-the-front"][0], params(model, reuse=True)
    folder = shop.work("encode") / "net"
    catalogue(shop.root, items)
    damaged = io.shard(folder, "features", 1)
    if when != "before":
        digest = io.sha256(damaged)
        assert killed(shop, given, 10)
        damaged = folder / FOLDER / f"{digest}{'.json' if when == 'its-mark' else '.parquet'}"
    flip(damaged)
    stage(shop, given)
    assert noted(shop)[1] == 2 + ROWS
    fresh = catalogue(tmp_path / "fresh", items)
    stage(fresh, params(model, reuse=False))
    np.testing.assert_allclose(vectors(shop), vectors(fresh), atol=1e-5)


def test_interrupted_at_any_file_the_next_run_gives_the_same_bytes(shop: Layout, model: Path, tmp_path: Path) -> None:
    given, at = params(model, reuse=True), 0
    whole = shutil.copytree(shop.root, tmp_path / "whole")
    items = CHANGES["two-at-the-front"][0]
    expected = stage(catalogue(whole, items), given)
    while True:
        again = catalogue(shutil.copytree(shop.root, tmp_path / f"{at}"), items)
        ended = not killed(again, given, at)
        assert stage(again, given) == expected, at
        if ended:
            break
        at += 1
    assert at >= 16, "four files are laid aside and four written, each with a mark"
