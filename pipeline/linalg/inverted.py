"""K nearest neighbours of items by cosine with an inverted file on disk: approximate.

`build_index` writes a folder, which any number of processes then search at the same time. It groups
similar items into cells. All items of a cell are compared with those of the same nearest cells, by
a matrix product, which is several times as fast as one item after another.

I items, N items with a direction, F feature width, K neighbours. A position is a number in the
order of cells.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.neighbours import (
    count_fit_rows,
    edge_table,
    one_thread,
    train_index,
)
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime import engine

BLOCK_ROWS = 2048  # rows in memory while an index is made
SCANNED_ROWS = 16_384  # rows in memory that items of a cell are compared with
# candidates per neighbour, whose equal cosines are put in order
CANDIDATES_PER_NEIGHBOUR = 2
TEST_QUERIES = 1000  # rows searched exactly, to choose the number of cells to probe
REQUIRED_RECALL = 0.95  # of the K nearest neighbours, without the row itself
# a search probes at most this share of the cells: beyond that exact search is about as fast
MAX_CELL_SHARE = 1 / 4
# cells that can always be probed, and the maximum if no recall is required
FREE_CELLS = 32
# rows scanned per cell, in average cell sizes: equal vectors all fall into one cell
MAX_CROWDING = 16
TIE = 1e-6  # tolerance for equal cosines
# files of an index: unit vectors by position, float32 [N, F]; the item at each position, int64 [I],
# those without a direction last; the first position of each cell, and N, int64 [cells + 1];
# centroids, float32 [cells, F]; and SearchSettings, written last
UNITS, ITEMS, STARTS, CENTROIDS, SETTINGS = FILES = (
    "units.f32",
    "items.npy",
    "starts.npy",
    "centroids.npy",
    "search.json",
)


class SearchSettings(NamedTuple):
    """The chosen number of cells to probe, and the recall that it reaches."""

    cells: int = 0
    probes: int = 0  # cells that an item is compared with
    # of the K nearest neighbours, measured on TEST_QUERIES rows, without the row itself
    recall: float = 1.0


class Inverted:
    """Index of a catalogue in a folder, 4 bytes per vector component."""

    def __init__(self, folder: Path, k: int) -> None:
        """Open what `build_index` has written; K is cut to the items with a direction.

        `directed`, bool [I], marks these, and `shards` counts what can be searched apart.
        """
        self._folder = folder
        self._items = np.load(folder / ITEMS)
        self._starts = np.load(folder / STARTS)
        self._centroids = np.load(folder / CENTROIDS)
        n = int(self._starts[-1])
        width = self._centroids.shape[1]
        self._units = np.zeros((0, width), np.float32)
        if n:  # an empty file cannot be mapped
            self._units = np.memmap(folder / UNITS, np.float32, "r").reshape(-1, width)
        self._k = min(k, n)
        self.directed = np.zeros(len(self._items), bool)
        self.directed[self._items[:n]] = True
        self.shards = -(-len(self._items) // neighbours.ROWS_PER_SHARD)
        self.settings = SearchSettings()
        if (folder / SETTINGS).is_file():
            self.settings = SearchSettings(**io.read_json(folder / SETTINGS))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the content of the files, as nodes of a cluster may share no folder."""
        files: dict[str, np.ndarray] = {}
        for name in FILES:
            path = self._folder / name
            content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, "u1")
            files[name] = np.asarray(content)
        return {"files": files, "k": self._k}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # mapped files stay where the folder is deleted
        with TemporaryDirectory(prefix="alignrec-") as folder:
            for name, content in state["files"].items():
                content.tofile(Path(folder, name))
            self.__init__(Path(folder), state["k"])  # type: ignore[misc]

    def find(self, shard: int) -> pa.Table:
        """Return the neighbours of a shard's items as EDGES, in item order.

        A shard has similar items, which are anywhere in the catalogue: see `join`.
        """
        first = shard * neighbours.ROWS_PER_SHARD
        positions = np.arange(first, min(first + neighbours.ROWS_PER_SHARD, len(self._items)))
        n = len(self._units)
        isolated = self._items[positions[positions >= n]]
        positions = positions[positions < n]

        cosines, ids = self.search(positions, self._k, self.settings.probes)
        return edge_table(self._items[positions], cosines, ids, isolated)

    def join(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield EDGES of all items, in item order, from those of all shards."""
        shape = len(self._items), max(self._k, 1)
        with TemporaryDirectory(dir=self._folder) as folder:
            ids = np.memmap(Path(folder, "ids"), np.int32, "w+", shape=shape)
            cosines = np.memmap(Path(folder, "cosines"), np.float32, "w+", shape=shape)
            ids[:] = -1
            for table in tables:
                place = table["item_id"].to_numpy(), table["rank"].to_numpy()
                ids[place] = table["neighbour_id"].to_numpy()
                cosines[place] = table["cosine"].to_numpy()

            for start in range(0, len(ids), neighbours.ROWS_PER_SHARD):
                part = slice(start, start + neighbours.ROWS_PER_SHARD)
                items = np.arange(start, start + len(ids[part]))
                yield edge_table(items, cosines[part], ids[part], items[:0])

    def search(self, positions: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines and items, [n, K], of the nearest in the probed cells, ties by item.

        Positions ascend. The item itself comes first.
        """
        cosines = np.empty((len(positions), k), np.float32)
        ids = np.empty((len(positions), k), np.int64)
        cells = np.searchsorted(self._starts, positions, "right") - 1
        bounds = np.flatnonzero(np.diff(cells, prepend=-1))
        places = np.split(np.arange(len(positions)), bounds[1:]) if len(positions) else []

        def search_cell(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with one_thread():  # OpenMP's setting is per thread
                return self._search_cell(cells[rows[0]], positions[rows], k, probes)

        # each cell is searched by a single thread: equal bytes for any number of threads
        with threadpool_limits(1):
            searched = engine.run_jobs(lambda: search_cell, places, engine.Threads(), ordered=False)
            for rows, nearest in searched:
                cosines[rows], ids[rows] = nearest
        return cosines, ids

    def _search_cell(
        self, cell: int, positions: np.ndarray, k: int, probes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search for items of one cell; see `search`."""
        queries = self._units[positions]
        itself = positions[:, None]
        # the item itself has infinite cosine until it is the first
        cosines_of_parts = [np.full(itself.shape, np.inf, np.float32)]
        positions_of_parts = [itself]
        candidates = CANDIDATES_PER_NEIGHBOUR * k + 1  # the item itself is one
        for part in self._scanned_parts(cell, probes, candidates):
            wanted = min(candidates, len(part))
            cosines, columns = faiss.knn(
                queries, self._units[part], wanted, metric=faiss.METRIC_INNER_PRODUCT
            )
            near = part[columns]
            cosines[near == itself] = -np.inf
            cosines_of_parts.append(cosines)
            positions_of_parts.append(near)

        cosines = np.concatenate(cosines_of_parts, axis=1)
        ids = self._items[np.concatenate(positions_of_parts, axis=1)]
        order = np.lexsort((ids, -cosines), axis=1)[:, :k]
        cosines = np.take_along_axis(cosines, order, 1)
        cosines[:, 0] = np.einsum("nf,nf->n", queries, queries)
        return cosines, np.take_along_axis(ids, order, 1)

    def _scanned_parts(self, cell: int, probes: int, least: int) -> Iterator[np.ndarray]:
        """Yield the positions in the cells nearest to a cell, itself first, in parts.

        More cells are probed if these have fewer than `least` items.
        """
        nearness = self._centroids @ self._centroids[cell]
        nearness[cell] = np.inf
        nearest = np.argsort(-nearness, kind="stable")
        items_until = np.cumsum(np.diff(self._starts)[nearest])
        needed = 1 + int(np.searchsorted(items_until, least))
        rows_per_cell = -(-len(self._units) // len(self._centroids))
        most = max(least, MAX_CROWDING * probes * rows_per_cell)

        probed = nearest[: max(probes, needed)]
        ranges = [np.arange(self._starts[near], self._starts[near + 1]) for near in probed]
        positions = np.concatenate(ranges)[:most]
        for start in range(0, len(positions), SCANNED_ROWS):
            yield positions[start : start + SCANNED_ROWS]

    def choose_probes(self, required: bool = True) -> SearchSettings:
        """Increase the number of probes until REQUIRED_RECALL is reached.

        UserError if a quarter of the cells is too few.
        """
        cells = len(self._centroids)
        k = self._k
        drawn = np.random.default_rng(1).permutation(len(self._units))[:TEST_QUERIES]
        positions = np.sort(drawn)
        least = self._exact_cosines(positions, k)[:, -1:]

        most_probes = min(cells, FREE_CELLS)
        if required:
            most_probes = max(most_probes, int(cells * MAX_CELL_SHARE))
        probes = 1
        while True:
            cosines, _ = self.search(positions, k, probes)
            hits = cosines >= least - TIE
            recall = float(hits[:, 1:].mean()) if k > 1 else 1.0
            if recall >= REQUIRED_RECALL or probes == most_probes:
                break
            probes = min(most_probes, probes + (probes + 1) // 2)

        if required and recall < REQUIRED_RECALL:
            raise UserError(
                f"an inverted file finds {recall:.3f} of the nearest neighbours in {probes:,} of "
                f"{cells:,} cells, less than {REQUIRED_RECALL}: these vectors form no groups; "
                "give 'graph.index: exact', which takes about as long"
            )
        return SearchSettings(cells, probes, round(recall, 4))

    def _exact_cosines(self, positions: np.ndarray, k: int) -> np.ndarray:
        """Return the K largest cosines to each, itself included: float32 [n, K], descending."""
        queries = self._units[positions]
        best = np.full((len(positions), k), -np.inf, np.float32)
        for start in range(0, len(self._units), SCANNED_ROWS):
            part = self._units[start : start + SCANNED_ROWS]
            cosines, _ = faiss.knn(
                queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT
            )
            candidates = np.concatenate([best, cosines], axis=1)
            best = np.sort(candidates, axis=1)[:, ::-1][:, :k]
        return best


def build_index(blocks: Iterable[np.ndarray], k: int, folder: Path, required: bool = True) -> None:
    """Write the index of blocks of vectors, float32 [b, F], in order, with its SearchSettings.

    UserError if the `required` recall of K neighbours is not reached.
    """
    directed_of_blocks = []

    def units_of_blocks() -> Iterator[np.ndarray]:
        for block in blocks:
            units, directed = unit_rows(block)
            directed_of_blocks.append(directed)
            yield units

    units = io.memory_map(units_of_blocks(), folder)
    directed = np.concatenate(directed_of_blocks)
    items = np.flatnonzero(directed)
    isolated = np.flatnonzero(~directed)

    starts = np.zeros(1, np.int64)
    centroids = np.empty((0, units.shape[1]), np.float32)
    if len(items):
        centroids, cell_of_item = _assign_cells(units, items)
        items = items[np.argsort(cell_of_item, kind="stable")]
        sizes = np.bincount(cell_of_item, minlength=len(centroids))
        starts = np.concatenate([starts, np.cumsum(sizes)])

    _write_units(units, items, folder / UNITS)
    np.save(folder / ITEMS, np.concatenate([items, isolated]))
    np.save(folder / STARTS, starts)
    np.save(folder / CENTROIDS, centroids)
    settings = SearchSettings()
    if len(items):
        settings = Inverted(folder, k).choose_probes(required)
    io.write_json(folder / SETTINGS, settings._asdict())


def _assign_cells(units: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centroids, float32 [cells, F], and the cell of each of N rows of `units`, int32."""
    n = len(items)
    drawn = np.random.default_rng(0).permutation(n)[: count_fit_rows(n)]
    index = train_index(units[items[np.sort(drawn)]], n)

    def assign(rows: np.ndarray) -> np.ndarray:
        with one_thread():
            _, cells = index.quantizer.search(units[rows], 1)
        return cells[:, 0]

    cell_of_item = np.empty(n, np.int32)
    blocks = (items[start : start + BLOCK_ROWS] for start in range(0, n, BLOCK_ROWS))
    done = 0
    with threadpool_limits(1):
        for rows, cells in engine.run_jobs(lambda: assign, blocks, engine.Threads()):
            cell_of_item[done : done + len(rows)] = cells
            done += len(rows)
    return index.quantizer.reconstruct_n(0, index.nlist), cell_of_item


def _write_units(units: np.ndarray, items: np.ndarray, path: Path) -> None:
    """Write rows of `units` in order of cells."""
    io.require_space(path.parent, units.itemsize * units.shape[1] * len(items))
    with path.open("wb") as file:
        for start in range(0, len(items), BLOCK_ROWS):
            file.write(units[items[start : start + BLOCK_ROWS]].data)


def find_approximate(features: np.ndarray, k: int) -> pa.Table:
    """Like `find_neighbours`, with an inverted file in a temporary folder."""
    starts = range(0, len(features), BLOCK_ROWS)
    blocks = (features[start : start + BLOCK_ROWS] for start in starts)
    with TemporaryDirectory() as folder:
        build_index(blocks, k, Path(folder))
        search = Inverted(Path(folder), k)
        shards = (search.find(shard) for shard in range(search.shards))
        return pa.concat_tables(search.join(shards))
