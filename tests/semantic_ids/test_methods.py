"""The contract of all registered methods: shapes, bytes, save and load, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coding import SHAPE, error, fitted, given, groups
from threadpoolctl import threadpool_limits

from pipeline.errors import UserError
from pipeline.semantic_ids import files
from pipeline.semantic_ids.base import Method, Shape
from pipeline.semantic_ids.files import Facts
from pipeline.semantic_ids.registry import METHODS

X = groups()
OTHERS = groups(seed=1)
LOOK = [name for name in METHODS if not METHODS[name].control]
"""methods whose codes follow from the vectors"""


@pytest.fixture(scope="module", params=list(METHODS))
def method(request: pytest.FixtureRequest) -> tuple[str, Method]:
    return request.param, fitted(request.param, X)


def test_shapes_types_and_ranges(method: tuple[str, Method]) -> None:
    _, made = method
    for codes, n in ((made.assign(given(X)), len(X)), (made.encode(OTHERS[:7]), 7), (made.encode(OTHERS[:0]), 0)):
        assert codes.shape == (n, SHAPE.levels)
        assert codes.dtype == np.int32
        assert ((codes >= 0) & (codes < SHAPE.codes)).all()
        assert made.decode(codes).shape == (n, X.shape[1])
        assert made.decode(codes).dtype == np.float32
    far = made.last(OTHERS[:7], made.encode(OTHERS[:7]))
    assert (far.shape, far.dtype) == ((7, SHAPE.codes), np.float32)


def test_saved_and_loaded_it_is_the_same(method: tuple[str, Method], tmp_path: Path) -> None:
    name, made = method
    files.write_codebooks(tmp_path, made)
    facts = Facts(
        features="f", features_sha256="0", width=X.shape[1], method=name, settings={}, levels=SHAPE.levels,
        codes=SHAPE.codes, collisions="suffix", seed=0,
    )  # fmt: skip
    files.write_facts(tmp_path, facts)
    loaded = files.load(tmp_path).method
    codes = made.encode(OTHERS)
    np.testing.assert_array_equal(loaded.encode(OTHERS), codes)
    np.testing.assert_array_equal(loaded.decode(codes), made.decode(codes))
    np.testing.assert_array_equal(loaded.last(OTHERS, codes), made.last(OTHERS, codes))
    np.testing.assert_array_equal(loaded.assign(given(X)), made.assign(given(X)))
    again = tmp_path / "again"
    files.write_codebooks(again, loaded)
    assert (again / files.CODEBOOKS).read_bytes() == (tmp_path / files.CODEBOOKS).read_bytes()


def test_each_vector_is_coded_by_itself_whatever_the_blocks(method: tuple[str, Method]) -> None:
    _, made = method
    one_by_one = np.concatenate([made.encode(OTHERS[i : i + 1]) for i in range(30)])
    np.testing.assert_array_equal(one_by_one, made.encode(OTHERS[:30]))
    np.testing.assert_array_equal(made.assign(given(X, rows=7)), made.assign(given(X, rows=1000)))
    with pytest.raises(UserError, match=r"\[4, 9\], .*width 10"):
        made.encode(np.ones((4, 9), np.float32))


@pytest.mark.parametrize("name", LOOK)
def test_the_last_code_is_the_nearest_and_codes_stand_for_their_vectors(name: str) -> None:
    made = fitted(name, X)
    codes = made.encode(X)
    np.testing.assert_array_equal(made.last(X, codes).argmin(axis=1), codes[:, -1])
    assert error(made, X, codes) < 0.8 * error(made, X, np.roll(codes, 1, axis=0))
    if name != "rqvae":
        assert error(made, X, codes) < error(fitted(name, X, Shape(1, SHAPE.codes)), X, codes[:, :1])


@pytest.mark.parametrize("name", [*LOOK, "shuffled"])
def test_more_codes_than_items_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"'semantic_ids.codes': 8 .* 7 items"):
        fitted(name, X[:7])
    kind = METHODS[name]
    with pytest.raises(UserError, match=r"'semantic_ids.fit_rows': 5 items .* 8 codes"):
        kind.fit(given(X, sample=5), SHAPE, kind.Params(), 0)


@pytest.mark.parametrize("name", LOOK)
def test_equal_vectors_and_as_many_codes_as_items_are_coded(name: str) -> None:
    for x in (np.repeat(X[:2], 20, axis=0), X[: SHAPE.codes]):
        made = fitted(name, x)
        assert np.isfinite(made.decode(made.assign(given(x)))).all()


def written(name: str) -> bytes:
    """Fit 3,000 vectors, enough for libraries to divide the work, and return all that follows from them."""
    x = groups(3000, 96)
    made = fitted(
        name, x, **({"hidden": [256], "width": 64, "batch_size": 1000, "epochs": 2} if name == "rqvae" else {})
    )
    codes = [made.assign(given(x)), made.encode(x[:50])]
    arrays = [array for _, array in sorted(made.tensors().items())]
    return b"".join(array.tobytes() for array in [*arrays, *codes, *map(made.decode, codes)])


@pytest.mark.parametrize("name", METHODS)
def test_the_bytes_are_the_same_at_any_number_of_threads(name: str) -> None:
    before, made = torch.get_num_threads(), []
    for threads in (1, 8):
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            made.append(written(name))
    torch.set_num_threads(before)
    assert made[0] == made[1]
