"""Groups of special items: no image, shared images and texts, changed neighbours, no history."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.content import paths
from pipeline.report.neighbours import Neighbours
from pipeline.report.outputs import Outputs
from pipeline.report.words import title
from schemas import TRAIN

WORD = re.compile(r"\w+")
LONGEST = 160  # characters of an item's words for the search, beyond its title and category
Facets = dict[str, list[int]]  # name -> item_ids, ascending


@dataclass(frozen=True)
class Items:
    """Facts of every item, by item_id."""

    facets: Facets
    popularity: list[int]  # train interactions; empty where they are not known
    words: list[str]  # searched besides title and category: the identifier, and other words of the text


def read(outputs: Outputs, near: Neighbours) -> Items:
    items, texts = outputs.items, outputs.texts
    assert items is not None
    assert texts is not None  # the same file
    bought = popularity(outputs.interactions, len(items))
    facets: Facets = {}
    if outputs.statuses is not None:
        rows = zip(*(outputs.statuses[column].to_pylist() for column in ("item_id", "status")), strict=True)
        facets["no image"] = sorted(item for item, status in rows if status != "ok")
    if outputs.hashes is not None:
        hashes = dict(zip(*(outputs.hashes[column].to_pylist() for column in ("item_id", "sha256")), strict=True))
        facets["duplicate image"] = shared([hashes.get(item) or "" for item in range(len(items))])
    facets["no text"] = [item for item, status in enumerate(items["text_status"].to_pylist()) if status != "ok"]
    facets["shared text"] = shared([" ".join(text.lower().split()) for text in texts["text"].to_pylist()])
    if near.columns[1:]:
        ours, rival = near.columns[:2]
        facets[f"nothing near in common with {title(rival)}"] = changed(
            outputs.edges(ours), outputs.edges(rival), len(items)
        )
    facets["cold"] = [item for item, n in enumerate(bought) if not n]
    return Items({name: found for name, found in facets.items() if found}, bought, words(items, texts))


def popularity(interactions: pa.Table | None, items: int) -> list[int]:
    if interactions is None:
        return []
    item, split = (interactions[column].to_numpy() for column in ("item_id", "split"))
    return np.bincount(item[split == TRAIN], minlength=items).tolist()


def shared(values: Sequence[Hashable]) -> list[int]:
    """Return the places of repeated values, without empty ones."""
    counted = Counter(value for value in values if value)
    return [place for place, value in enumerate(values) if counted[value] > 1]


def changed(a: pa.Table, b: pa.Table, items: int) -> list[int]:
    """Return the items without a common neighbour in two tables EDGES, of those with neighbours in both."""
    pairs, some = [], np.ones(items, bool)
    for edges in (a, b):
        item, other = (edges[column].to_numpy().astype(np.int64) for column in ("item_id", "neighbour_id"))
        kept = item != other
        some &= np.bincount(item[kept], minlength=items) > 0
        pairs.append(item[kept] * items + other[kept])
    some[np.intersect1d(*pairs) // max(items, 1)] = False
    return np.flatnonzero(some).tolist()


def words(items: pa.Table, texts: pa.Table) -> list[str]:
    found = []
    columns = (texts["asin"].to_pylist(), items["title"].to_pylist(), paths(items), texts["text"].to_pylist())
    for asin, name, path, text in zip(*columns, strict=True):
        known = {*WORD.findall(f"{name} {path}".lower())}
        new = [word for word in dict.fromkeys(WORD.findall(text.lower())) if word not in known]
        found.append(f"{asin} {' '.join(new)}"[:LONGEST].strip())
    return found
