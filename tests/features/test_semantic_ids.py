"""Semantic IDs: learned, numbered, compared with random ones, and written by the stage."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import toy

from alignrec import schemas
from alignrec.pipeline.features import semantic_ids as coder
from alignrec.pipeline.features.codebooks import ReleasedCodes
from alignrec.pipeline.features.collisions import number_new_items
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.features.semantic_ids import Coding
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.layout import Layout

ROWS, WIDTH, KINDS = 400, 10, 12


def groups(seed: int = 0) -> np.ndarray:
    """Return vectors around one direction per kind, float32 [n, F]."""
    rng = np.random.default_rng(seed)
    kind = rng.normal(size=(KINDS, WIDTH))[rng.integers(KINDS, size=ROWS)]
    return (kind + 0.4 * rng.normal(size=(ROWS, WIDTH))).astype(np.float32)


def coded(root: Path, x: np.ndarray, seed: int = 3, sizes: dict[str, int] | None = None, **params: int) -> Coding:
    folder = Layout(root, "shop").features("f")
    toy.write_set(folder, toy.feature_table(x))
    return coder.code_items(folder, SemanticIds(**{"levels": 3, "codes": 8, **params}), seed, **(sizes or {}))


def test_more_levels_reconstruct_vectors_better_and_equal_vectors_have_equal_codes(tmp_path: Path) -> None:
    x = groups()
    x[7], x[9] = 2 * x[3], 0
    cosines = [coded(tmp_path / str(levels), x, levels=levels).cosine.mean() for levels in (1, 2, 4)]
    assert cosines == sorted(cosines)
    coding = coded(tmp_path / "three", x)
    assert np.flatnonzero(~coding.directed).tolist() == [9]
    assert coding.codes.shape == (ROWS - 1, 3)
    assert (coding.codes.min(), coding.codes.max()) == (0, 7)
    assert np.array_equal(coding.codes[3], coding.codes[7])


@pytest.mark.parametrize("width", [WIDTH, 2 * ROWS])  # with fewer items than dimensions there is no whole PCA
def test_a_code_is_the_nearest_centroid_of_what_is_left(width: int) -> None:
    x = unit_rows(np.pad(groups(), ((0, 0), (0, width - WIDTH))))[0]
    params = SemanticIds(levels=2, codes=8)
    learned = coder.learn_codebooks(x, params, 0)
    codebooks = coder.faiss.vector_to_array(learned.codebooks).reshape(2, 8, width)
    rest, expected = x.copy(), []
    for centroids in codebooks:
        expected.append(((rest[:, None] - centroids) ** 2).sum(2).argmin(1))
        rest -= centroids[expected[-1]]
    packed = learned.compute_codes(x)
    assert np.array_equal(coder.faiss.unpack_bitstrings(packed, 2, 3), np.stack(expected, axis=1))


def test_equal_inputs_give_equal_bytes_and_a_seed_other_codes(tmp_path: Path) -> None:
    first = coded(tmp_path / "a", groups())
    for a, b in zip(first, coded(tmp_path / "b", groups()), strict=True):
        assert a.tobytes() == b.tobytes()

    assert not np.array_equal(coded(tmp_path / "c", groups(), seed=4).codes, first.codes)

    in_blocks = coded(tmp_path / "blocks", groups(), sizes={"rows_per_block": 64})
    assert np.array_equal(in_blocks.codes, first.codes)
    np.testing.assert_allclose(in_blocks.cosine, first.cosine, atol=1e-6)

    assert len(coded(tmp_path / "d", groups(), sizes={"max_fit_rows": 100}).codes) == ROWS


def test_codebooks_give_the_codes_that_they_gave(tmp_path: Path) -> None:
    x = groups()
    x[7], x[9] = 2 * x[3], 0
    fresh = coded(tmp_path / "fresh", x)
    asins = [f"A{i}" for i in range(ROWS)]
    released = ReleasedCodes(fresh.codebooks, coder.as_table(id_table(asins), fresh))

    # the last items come first, and new ones between them have vectors of the others
    order = np.arange(ROWS)[::-1]
    grown = np.repeat(x[order], 2, axis=0)
    names = [name for i in order for name in (f"B{i}", f"A{i}")]
    toy.write_set(Layout(tmp_path, "shop").features("f"), toy.feature_table(grown))
    again = coder.recode_items(Layout(tmp_path, "shop").features("f"), id_table(names), released, 64)

    ids = coder.as_table(id_table(names), again).to_pylist()
    found = {row["asin"]: (row["codes"], row["suffix"]) for row in ids}
    for row in released.table.to_pylist():
        assert found[row["asin"]] == (row["codes"], row["suffix"])
    coded_items = [(*codes, suffix) for codes, suffix in found.values() if codes]
    assert len(coded_items) == len({*coded_items}) == 2 * (ROWS - 1)
    np.testing.assert_array_equal(again.codebooks, fresh.codebooks)


def id_table(asins: list[str]) -> pa.Table:
    return toy.filled(schemas.ITEM_IDS, item_id=range(len(asins)), asin=asins)


def test_items_keep_their_number_and_new_ones_follow() -> None:
    older = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
    codes = np.array([[0, 0], [0, 0], [0, 0], [1, 1], [2, 2], [2, 2]])
    # the second item of [0, 0] is gone, and an item of [1, 1] has other codes
    older_row = np.array([-1, 0, 2, 3, -1, -1])
    suffix = number_new_items(codes, older_row, older, np.array([0, 1, 0, 1]))
    assert suffix.tolist() == [2, 0, 3, 1, 0, 1]


def test_codes_are_a_power_of_two_and_at_most_the_items(tmp_path: Path) -> None:
    assert [SemanticIds().for_items(n).codes for n in (3, 30, 100, 10**6)] == [2, 4, 16, 256]
    assert SemanticIds(codes=512).for_items(3).codes == 512
    with pytest.raises(ValueError, match="48 is not a power of two"):
        SemanticIds(codes=48)
    with pytest.raises(UserError, match=r"'semantic_ids.codes': 8 is more than the 3 items with content; give fewer"):
        coded(tmp_path, np.eye(3, dtype=np.float32))


def test_neighbours_share_codes_more_often_than_with_random_ones(tmp_path: Path) -> None:
    directed = np.array([True, True, True, True, False])
    coding = Coding(
        directed,
        np.array([[0, 0], [0, 0], [1, 0], [1, 1]], np.int32),
        np.zeros(4, np.int32),
        np.ones(4, np.float32),
        np.zeros((2, 4096, 2), np.float32),
    )
    pairs = [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4)]
    item, other = (pa.array(column, pa.int32()) for column in zip(*pairs, strict=True))
    pq.write_table(pa.table({"item_id": item, "neighbour_id": other}), tmp_path / "edges.parquet")
    figures = coder.judge_codes(coding, tmp_path / "edges.parquet", 4096, 0)
    assert figures["codes"] == {"collide": 0.5, "neighbours": round(2 / 3, 6)}
    assert figures["random"] == {"collide": 0, "neighbours": 0}


def test_the_stage_writes_codes_and_figures_and_nothing_else(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    params = toy.params(semantic_ids={"features": ["beit3"], "levels": 2, "codes": 2})
    found = []
    for _ in range(2):
        toy.run("semantic_ids", params, tmp_path)
        found.append(layout.codes("beit3").read_bytes())
        made = sorted(path.name for path in layout.folder("semantic_ids").rglob("*.*"))
        assert made == ["codebooks.safetensors", "codes.json", "codes.parquet", "run.json"]
    assert found[0] == found[1]
