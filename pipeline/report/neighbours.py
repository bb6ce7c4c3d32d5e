"""Items and their nearest neighbours under each feature set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.features.registry import CEILINGS
from pipeline.items import categories
from pipeline.report import probes
from pipeline.report.outputs import Outputs
from pipeline.report.words import CONTROLS

CLASSES = 8  # most frequent categories that have a colour of their own
COLUMNS = 3  # feature sets side by side


@dataclass(frozen=True)
class Neighbours:
    """Items of the gallery and the map, with their neighbours."""

    items: list[int]  # of the gallery
    sets: dict[str, dict[int, list[int]]]
    """feature set -> item_id -> its nearest others; only of the gallery's items where not all are on the map"""
    columns: list[str]  # the first sets, see `columns`
    searchable: bool  # whether all items are shown, with images and neighbours
    mapped: bool  # whether all items are on the map
    classes: list[str]  # names of the most frequent categories, most frequent first
    colour: list[int]  # by item_id: place of its category among `classes`, -1 for none of them

    @property
    def shown(self) -> set[int]:
        if self.searchable:
            return set(range(len(self.colour)))
        return {*self.items, *(other for of in self.sets.values() for i in self.items for other in of.get(i, []))}


def neighbours(outputs: Outputs, gallery: int, near: int, searchable: int, mapped: int, seed: int) -> Neighbours | None:
    """Choose the gallery's items; return None without items or graphs.

    Args:
        near: neighbours of each.
        searchable: largest catalogue whose items are all shown.
        mapped: largest catalogue whose items are all on the map, with the first three sets only.
    """
    if outputs.items is None or not outputs.graphs:
        return None
    n = len(outputs.items)
    has_image = [False] * n
    if outputs.statuses is not None:
        for item, status in zip(*(outputs.statuses[c].to_pylist() for c in ("item_id", "status")), strict=True):
            has_image[item] = status == "ok"
    paths = outputs.items["categories"].to_pylist()
    items = choose([p[0] if p else "" for p in paths], has_image, gallery, seed)
    names = sorted(outputs.graphs, key=lambda name: (name in CONTROLS, name != outputs.released, name))
    names = [name for name in names if name not in ("constant", *CEILINGS)]
    first = columns(names, outputs)
    shown = first if searchable < n <= mapped else names
    every = n <= max(mapped, searchable)
    sets = {name: nearest(outputs.edges(name, None if every else items), near) for name in shown}
    return Neighbours(items, sets, first, n <= searchable, every, *_classes(paths))


def columns(names: Sequence[str], outputs: Outputs) -> list[str]:
    """Return the released set, the rival that probes rate highest, and a control, as far as among `names`."""
    controls = [name for name in names if name in CONTROLS]
    rivals = [name for name in names if name not in controls and not f"{name}-".startswith(f"{outputs.released}-")]
    rated = dict.fromkeys(rivals, 0.0)
    for probed in probes.read(outputs.probes).values():
        if probed.forms:
            of = probed.of("raw", probed.figure)
            for name in rivals:
                rated[name] += of.get(name, 0.0) / (max(of.values()) or 1.0)
    best = sorted(rivals, key=lambda name: (-rated[name], name))
    own = [name for name in names if name == outputs.released]
    return list(dict.fromkeys([*own, *best[:1], *controls[:1], *best, *names]))[:COLUMNS]


def choose(categories: Sequence[str], has_image: Sequence[bool], count: int, seed: int) -> list[int]:
    """Draw items: each category once before any twice, items with images first."""
    order = np.random.default_rng(seed).permutation(len(categories))
    seen: dict[tuple[bool, str], int] = {}
    rounds = []
    for i in order:  # ranked by how many of the category came before
        key = (not has_image[i], categories[i])
        seen[key] = seen.get(key, 0) + 1
        rounds.append((key[0], seen[key]))
    ranked = sorted(range(len(order)), key=lambda j: rounds[j])
    return [int(order[j]) for j in ranked[:count]]


def nearest(edges: pa.Table, count: int) -> dict[int, list[int]]:
    """Return item_id -> its nearest others, best first, of table EDGES."""
    item, other, rank = (edges[c].to_numpy() for c in ("item_id", "neighbour_id", "rank"))
    kept = item != other
    if not kept.any():  # no item has a vector, as where every image is unreachable
        return {}
    order = np.lexsort((rank[kept], item[kept]))
    item, other = item[kept][order], other[kept][order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]][: len(item)])
    ends = np.r_[starts[1:], len(item)]
    return {int(item[a]): other[a : min(b, a + count)].tolist() for a, b in zip(starts, ends, strict=True)}


def _classes(paths: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    labels = categories.labels(paths)
    colour = np.full(len(paths), -1)
    if labels is None:
        return [], colour.tolist()
    common = np.argsort(-np.bincount(labels.label), kind="stable")[:CLASSES]
    place = np.full(len(labels.names), -1)
    place[common] = np.arange(len(common))
    colour[labels.rows] = place[labels.label]
    return [labels.names[c] for c in common], colour.tolist()
