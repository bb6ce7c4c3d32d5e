"""Items and their nearest neighbours under each feature set: the gallery, the search and the map of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.probe import categories
from pipeline.report import atlas, gallery
from pipeline.report.gather import Evidence
from pipeline.report.params import Report
from pipeline.report.tables import CONTROLS

MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 1000, 620, 12
COLOURS = 8
"""categories with a colour of their own on the map"""


@dataclass(frozen=True)
class Neighbours:
    """Items, and what is near them."""

    items: list[int]
    """of the gallery"""
    sets: dict[str, dict[int, list[int]]]
    """feature set -> item_id -> its nearest others"""
    searchable: bool
    """whether the page has images and neighbours of all items"""
    maps: dict[str, list[list[int]]]
    """feature set -> position of each item on the map; empty if not searchable"""
    classes: list[str]
    """names of the categories that the map colours, most frequent first"""
    colour: list[int]
    """by item_id: place of its category among `classes`, -1 for none of them"""

    @property
    def shown(self) -> set[int]:
        """The items whose images the page needs."""
        if self.searchable:
            return set(range(len(self.colour)))
        return {*self.items, *(other for of in self.sets.values() for i in self.items for other in of.get(i, []))}


def neighbours(evidence: Evidence, params: Report, seed: int) -> Neighbours | None:
    """Choose the gallery's items; return None without items or graphs."""
    if evidence.items is None or not evidence.edges:
        return None
    n = len(evidence.items)
    has_image = [False] * n
    if evidence.statuses is not None:
        for item, status in zip(*(evidence.statuses[c].to_pylist() for c in ("item_id", "status")), strict=True):
            has_image[item] = status == "ok"
    paths = evidence.items["categories"].to_pylist()
    items = gallery.choose([p[0] if p else "" for p in paths], has_image, params.gallery_items, seed)
    names = sorted(evidence.edges, key=lambda name: (name in CONTROLS, name != evidence.released, name))
    sets = {name: gallery.nearest(evidence.edges[name], params.neighbours) for name in names if name != "constant"}
    searchable = n <= params.searchable
    maps = {name: _positions(evidence.edges[name], n, seed) for name in sets} if searchable else {}
    return Neighbours(items, sets, searchable, maps, *_classes(paths))


def _positions(edges: pa.Table, n: int, seed: int) -> list[list[int]]:
    """Return whole positions inside the map's frame."""
    spread = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * MAP_MARGIN
    return (atlas.layout(edges, n, seed) * spread + MAP_MARGIN).round().astype(int).tolist()


def _classes(paths: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """Return the most frequent categories, and of each item which of them it has."""
    labels = categories.labels(paths)
    colour = np.full(len(paths), -1)
    if labels is None:
        return [], colour.tolist()
    common = np.argsort(-np.bincount(labels.label), kind="stable")[:COLOURS]
    place = np.full(len(labels.names), -1)
    place[common] = np.arange(len(common))
    colour[labels.rows] = place[labels.label]
    return [labels.names[c] for c in common], colour.tolist()
