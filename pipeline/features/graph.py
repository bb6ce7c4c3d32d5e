"""The item graph of a feature set: its nearest neighbours, as parameters ask.

Shards of items are searched apart, by one machine or a Ray cluster, and then joined.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet, drop_unlisted_sets, linked_catalogue
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.linalg import inverted
from alignrec.pipeline.linalg.inverted import Inverted
from alignrec.pipeline.linalg.neighbours import (
    ExactSearch,
    choose_index,
    find_neighbours,
    has_gpu,
)
from alignrec.pipeline.runtime import cluster
from alignrec.pipeline.runtime.run import Run
from alignrec.schemas import EDGES

# control without clusters and meaningful neighbours, exempt from the required recall
MEANINGLESS = "random"
Search = ExactSearch | Inverted
CODE_MODULES = ("alignrec.stages.graph", "alignrec.pipeline.features.graph")


def neighbours_by_params(features: np.ndarray, params: Graph) -> pa.Table:
    """Return EDGES of features, float32 [I, F]."""
    if choose_index(params.index, len(features), params.exact_up_to) == "exact":
        return find_neighbours(features, params.k)
    return inverted.find_approximate(features, params.k)


def write_graphs(run: Run, names: Sequence[str]) -> None:
    """Write the graphs of sets."""
    run.device = "cuda" if has_gpu() else "cpu"
    drop_unlisted_sets(run.folder, names)
    keys = {name: _resume(run, name) for name in names}
    if _are_linked(run, keys) and run.finished():
        return

    for name in run.progress(names, unit="set"):
        write_edges(run, name, keys[name])


def _are_linked(run: Run, keys: Mapping[str, str]) -> bool:
    """Return whether sets, each with the key of its inputs, have their graphs."""
    for name, key in keys.items():
        paths = [run.layout.edges(name)]
        if FeatureSet(name, run.layout.features(name)).further() is not None:
            paths.append(run.layout.catalogue_edges(name))
        if not all(io.is_finished(path, key) for path in paths):
            return False
    return True


def _resume(run: Run, name: str) -> str:
    """Keep what an earlier run of equal inputs wrote of a graph; return the key of these."""
    folder = run.layout.edges(name).parent
    features = FeatureSet(name, run.layout.features(name))
    further = features.further()
    inputs = [*features.shards, *(further.shards if further else ())]
    key = run.key(inputs, [run.params[Graph].facts(), name], CODE_MODULES)
    io.open_journal(folder, key)
    run.drop_altered(folder)
    return key


def write_edges(run: Run, name: str, key: str) -> None:
    """Write the neighbours of a feature set among the items of the k-core, which recommenders are
    trained on, and those among all items, if there are others.
    """
    features = FeatureSet(name, run.layout.features(name))
    search = _write_graph(run, name, features.folder, run.layout.edges(name), key)
    _describe_graph(run, name, search)

    path = run.layout.catalogue_edges(name)
    if features.further() is not None and not io.is_finished(path, key):
        with linked_catalogue(features) as catalogue:
            _write_graph(run, name, catalogue, path, key)


def _write_graph(run: Run, name: str, vectors: Path, path: Path, key: str) -> Search:
    """Write the neighbours among the vectors of a folder.

    Shards and an inverted file, next to `path`, are deleted when the shards are joined.
    """
    index = path.with_name(f".{path.stem}-index")
    search = _open_search(run, name, vectors, index)

    shards = [io.shard(path.parent, path.stem, number) for number in range(search.shards)]
    if not io.is_finished(path, key):
        _write_shards(run, name, search, shards, key)
        tables = search.join(io.read_listed(shard, EDGES) for shard in shards)
        run.write_all(tables, path, EDGES)
        io.finish(path, key)
    for shard in shards:
        shard.unlink(missing_ok=True)
    io.remove(index)
    return search


def _write_shards(run: Run, name: str, search: Search, paths: Sequence[Path], key: str) -> None:
    """Write the missing shards."""
    missing = [number for number, path in enumerate(paths) if not io.is_finished(path, key)]
    found = _find_shards(run, search, missing)
    for number, edges in run.progress(found, name, total=len(missing), unit="shard"):
        run.write(edges, paths[number], EDGES)
        io.finish(paths[number], key)


def _open_search(run: Run, name: str, features: Path, index: Path) -> Search:
    """Return the search among the vectors of a folder; an inverted file is made in the folder
    `index`, unless it is there.
    """
    params = run.params[Graph]
    items = io.rows(io.shards(features, "features"))
    if choose_index(params.index, items, params.exact_up_to) == "exact":
        return ExactSearch(io.matrix(io.read_features(features)["vector"]), params.k)

    files = [index / file for file in inverted.FILES]
    if not all(map(io.is_finished, files)):
        io.remove(index)
        index.mkdir(parents=True)
        blocks = io.read_vectors(features, inverted.BLOCK_ROWS)
        try:
            inverted.build_index(blocks, params.k, index, required=name != MEANINGLESS)
        except UserError as e:
            io.remove(index)
            raise UserError(f"{features}: {one_line(e)}") from None
        for file in files:
            io.list_file(file, file)
    return Inverted(index, params.k)


def _find_shards(
    run: Run, search: Search, missing: Sequence[int]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the numbers of shards with their EDGES."""
    if run.params[Graph].engine == "ray":
        load = partial(_load_on_node, search)
        yield from cluster.run_jobs(lambda number: None, load, missing, run.warn)
        return
    for number in missing:
        yield number, search.find(number)


def _load_on_node(search: Search) -> cluster.Work[int]:
    return lambda number, nothing: search.find(number)


def _describe_graph(run: Run, name: str, search: Search) -> None:
    if isinstance(search, Inverted):
        run.note(**{name: {"index": "ivf"} | search.settings._asdict()})
    items = len(search.directed)
    run.count(f"{name}: item without direction", items - int(search.directed.sum()))
    run.rows_in += items
    run.rows_out += io.rows([run.layout.edges(name)])
