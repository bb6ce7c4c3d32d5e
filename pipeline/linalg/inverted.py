"""K nearest neighbours of items by cosine with an inverted file on disk: approximate.

`build_index` writes a folder, which any number of processes then search at the same time.

I items, N rows, F feature width, K neighbours, C candidates.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.neighbours import count_fit_rows, edge_table, train_index
from alignrec.pipeline.linalg.projections import unit_rows

SEARCH_BLOCK_ROWS = 2048  # in memory, with candidates
# candidates to re-rank, as a multiple of K: 8-bit codes cannot separate near-duplicates
CANDIDATES_PER_NEIGHBOUR = 8
TEST_QUERIES = 1000  # rows searched exactly, to choose the number of cells to probe
REQUIRED_RECALL = 0.95  # of the K nearest neighbours, without the row itself
# a search probes at most this share of the cells: beyond that exact search is about as fast
MAX_CELL_SHARE = 1 / 4
# cells that can always be probed, and the maximum if no recall is required
FREE_CELLS = 32
# rows scanned per cell, in average cell sizes: equal vectors all fall into one cell
MAX_CROWDING = 16
TIE = 1e-6  # tolerance for equal cosines
# files of an index: unit vectors, float32 [I, F]; bool [I], whether a row has a direction; FAISS's
# index, without its lists; the lists; and SearchSettings, written last
UNITS, DIRECTED, CELLS, LISTS, SETTINGS = FILES = (
    "units.f32",
    "directed.npy",
    "cells.faiss",
    "lists",
    "search.json",
)


class SearchSettings(NamedTuple):
    """The chosen number of cells to probe, and the recall that it reaches."""

    cells: int = 0
    probes: int = 0  # cells per search
    # of the K nearest neighbours, measured on TEST_QUERIES rows, without the row itself
    recall: float = 1.0


@contextmanager
def _silence_stdout() -> Iterator[None]:
    """Redirect file descriptor 1, to which FAISS logs where its lists are, and their growth."""
    sys.stdout.flush()
    stdout = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


class Inverted:
    """Index of a catalogue in a folder, 5 bytes per vector component on top of the vectors."""

    def __init__(self, folder: Path, width: int, k: int) -> None:
        """Open what `build_index` has written; K is cut to the rows with a direction.

        `directed`, bool [I], marks these, and `shards` counts what can be searched apart.
        """
        self._folder = folder
        self._width = width
        self.directed = np.load(folder / DIRECTED)
        self._rows = np.flatnonzero(self.directed)
        self._k = min(k, len(self._rows))
        self.shards = -(-len(self.directed) // neighbours.ROWS_PER_SHARD)
        self.settings = SearchSettings()
        if not len(self._rows):
            return

        self._units = np.memmap(folder / UNITS, np.float32, "r").reshape(-1, width)
        flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY
        with _silence_stdout():
            self.index: Any = faiss.read_index(str(folder / CELLS), flags)
        if (folder / SETTINGS).is_file():
            self.settings = SearchSettings(**io.read_json(folder / SETTINGS))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the content of the files, as nodes of a cluster may share no folder."""
        files: dict[str, np.ndarray] = {}
        for name in FILES:
            path = self._folder / name
            # an empty file cannot be mapped
            content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, "u1")
            files[name] = np.asarray(content)
        return {"files": files, "width": self._width, "k": self._k}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # mapped files stay where the folder is deleted
        with TemporaryDirectory(prefix="alignrec-") as folder:
            for name, content in state["files"].items():
                content.tofile(Path(folder, name))
            self.__init__(Path(folder), state["width"], state["k"])  # type: ignore[misc]

    def find(self, shard: int) -> pa.Table:
        """Return the neighbours of a shard's items as EDGES, in item order."""
        first = shard * neighbours.ROWS_PER_SHARD
        directed = self.directed[first : first + neighbours.ROWS_PER_SHARD]
        isolated = first + np.flatnonzero(~directed)
        rows = first + np.flatnonzero(directed)
        if not len(rows):
            return edge_table(rows, np.empty((0, 0)), np.empty((0, 0), int), isolated)

        cosines, ids = self.search(rows, self._k, self.settings.probes)
        return edge_table(rows, cosines, ids, isolated)

    def directed_rows(self) -> Iterator[np.ndarray]:
        """Yield the numbers of rows with a direction, int64 [n], of each part."""
        step = neighbours.ROWS_PER_SHARD
        for start in range(0, len(self.directed), step):
            yield start + np.flatnonzero(self.directed[start : start + step])

    def search(self, rows: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return exact cosines and rows, [n, K], of the nearest rows in the probed cells.

        The row itself comes first; -1: none.
        """
        candidates_wanted = CANDIDATES_PER_NEIGHBOUR * k
        rows_per_cell = self.index.ntotal // self.index.nlist
        self.index.nprobe = probes
        self.index.max_codes = MAX_CROWDING * probes * max(candidates_wanted, rows_per_cell)

        ranked_cosines = [np.empty((0, k), np.float32)]
        ranked_ids = [np.empty((0, k), np.int64)]
        step = max(1, SEARCH_BLOCK_ROWS // CANDIDATES_PER_NEIGHBOUR // k)
        for start in range(0, len(rows), SEARCH_BLOCK_ROWS):
            block = rows[start : start + SEARCH_BLOCK_ROWS]
            _, ids = self.index.search(self._units[block], candidates_wanted)
            itself = block[:, None]
            candidates = np.concatenate([itself, np.where(ids == itself, -1, ids)], axis=1)
            for first in range(0, len(block), step):
                within = slice(first, first + step)
                cosines, nearest = self._rank(block[within], candidates[within], k)
                ranked_cosines.append(cosines)
                ranked_ids.append(nearest)
        return np.concatenate(ranked_cosines), np.concatenate(ranked_ids)

    def _rank(
        self, rows: np.ndarray, candidates: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact cosines and ids of the K best of candidates [n, C], the first first."""
        cosines = np.einsum("nf,ncf->nc", self._units[rows], self._units[candidates])
        score = np.where(candidates < 0, -np.inf, cosines)
        score[:, 0] = np.inf  # the row itself
        order = np.lexsort((candidates, -score), axis=1)[:, :k]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(candidates, order, 1)

    def choose_probes(self, required: bool = True) -> SearchSettings:
        """Increase the number of probes until REQUIRED_RECALL is reached.

        UserError if a quarter of the cells is too few.
        """
        cells = self.index.nlist
        k = self._k
        drawn = np.random.default_rng(1).permutation(len(self._rows))[:TEST_QUERIES]
        rows = self._rows[np.sort(drawn)]
        least = self._exact_cosines(rows, k)[:, -1:]

        most_probes = min(cells, FREE_CELLS)
        if required:
            most_probes = max(most_probes, int(cells * MAX_CELL_SHARE))
        probes = 1
        while True:
            cosines, ids = self.search(rows, k, probes)
            hits = (ids >= 0) & (cosines >= least - TIE)
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

    def _exact_cosines(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the K largest cosines to each row, itself included: float32 [n, K], descending."""
        queries = self._units[rows]
        best = np.full((len(rows), k), -np.inf, np.float32)
        for part in self.directed_rows():
            cosines, _ = faiss.knn(
                queries, self._units[part], min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT
            )
            candidates = np.concatenate([best, cosines], axis=1)
            best = np.sort(candidates, axis=1)[:, ::-1][:, :k]
        return best


def build_index(
    blocks: Iterable[np.ndarray], width: int, k: int, folder: Path, required: bool = True
) -> None:
    """Write the index of blocks of vectors, float32 [b, F], in order, with its SearchSettings.

    UserError if the `required` recall of K neighbours is not reached.
    """
    directed_of_blocks = []
    with (folder / UNITS).open("wb") as file:
        for block in blocks:
            units, directed = unit_rows(block)
            file.write(units.data)
            directed_of_blocks.append(directed)
    directed = np.concatenate(directed_of_blocks)
    np.save(folder / DIRECTED, directed)

    rows = np.flatnonzero(directed)
    settings = SearchSettings()
    if len(rows):
        units = np.memmap(folder / UNITS, np.float32, "r").reshape(-1, width)
        _write_lists(units, rows, folder)
        settings = Inverted(folder, width, k).choose_probes(required)
    else:
        for name in (CELLS, LISTS):
            (folder / name).touch()
    io.write_json(folder / SETTINGS, settings._asdict())


def _write_lists(units: np.ndarray, rows: np.ndarray, folder: Path) -> None:
    """Train an index on a sample of rows [N] of `units`, and write their codes."""
    drawn = np.random.default_rng(0).permutation(len(rows))[: count_fit_rows(len(rows))]
    index = train_index(units[rows[np.sort(drawn)]], len(rows), "SQ8")

    # lists grow by doubling, and are moved
    io.require_space(folder, 4 * len(rows) * (index.code_size + 8))
    lists: Any = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(folder / LISTS))
    index.replace_invlists(lists, True)
    lists.this.disown()  # the index owns them
    with _silence_stdout():
        for start in range(0, len(rows), SEARCH_BLOCK_ROWS):
            block = rows[start : start + SEARCH_BLOCK_ROWS]
            index.add_with_ids(units[block], block)
    faiss.write_index(index, str(folder / CELLS))


def find_approximate(features: np.ndarray, k: int) -> pa.Table:
    """Like `find_neighbours`, with an inverted file in a temporary folder."""
    starts = range(0, len(features), SEARCH_BLOCK_ROWS)
    blocks = (features[start : start + SEARCH_BLOCK_ROWS] for start in starts)
    with TemporaryDirectory() as folder:
        build_index(blocks, features.shape[1], k, Path(folder))
        search = Inverted(Path(folder), features.shape[1], k)
        return pa.concat_tables(search.find(shard) for shard in range(search.shards))
