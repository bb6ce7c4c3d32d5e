"""index.html and report.md from the evidence. Titles, categories and ids come from data and are escaped everywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config import Report
from pipeline.probe import categories
from pipeline.report import atlas, gallery, markdown, plots, sections
from pipeline.report.gather import Evidence
from pipeline.report.tables import CONTROLS

HERE = Path(__file__).parent
POSTER_ITEMS, POSTER_SETS = 8, 4
MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 1000, 620, 12
COLOURS = 8
"""categories with a colour of their own on the map"""


@dataclass(frozen=True)
class GalleryView:
    """The gallery: items, their neighbours under each feature set, images, and the map."""

    items: list[int]
    sets: dict[str, dict[int, list[int]]]
    """feature set -> item_id -> its nearest others"""
    titles: list[str]
    notes: list[str]
    """categories, by item_id"""
    images: dict[int, Image.Image]
    searchable: bool
    """whether it has images and neighbours of all items"""
    maps: dict[str, list[list[int]]]
    """feature set -> position of each item on the map; empty if not searchable"""
    classes: list[str]
    """names of the categories that the map colours, most frequent first"""
    colour: list[int]
    """by item_id: place of its category among `classes`, -1 for none of them"""


def gallery_view(evidence: Evidence, params: Report, seed: int, images: Iterable[pa.Table]) -> GalleryView | None:
    """Choose the gallery's items and load their images; return None without items or graphs."""
    if evidence.items is None or not evidence.edges:
        return None
    n = len(evidence.items)
    has_image = [False] * n
    if evidence.statuses is not None:
        for item, status in zip(*(evidence.statuses[c].to_pylist() for c in ("item_id", "status")), strict=True):
            has_image[item] = status == "ok"
    paths = evidence.items["categories"].to_pylist()
    items = gallery.choose([p[0] if p else "" for p in paths], has_image, params.gallery_items, seed)
    names = sorted(evidence.edges, key=lambda name: (name in CONTROLS, name))
    sets = {name: gallery.nearest(evidence.edges[name], params.neighbours) for name in names if name != "constant"}
    searchable = n <= params.searchable
    nearest_items = (other for nearest in sets.values() for i in items for other in nearest.get(i, []))
    wanted = set(range(n)) if searchable else {*items, *nearest_items}
    titles = [t or a for t, a in zip(*(evidence.items[c].to_pylist() for c in ("title", "asin")), strict=True)]
    notes = [" › ".join(p) for p in paths]
    maps = {name: _positions(evidence.edges[name], n, seed) for name in sets} if searchable else {}
    thumbnails = gallery.thumbnails(images, wanted)
    return GalleryView(items, sets, titles, notes, thumbnails, searchable, maps, *_classes(paths))


def _positions(edges: pa.Table, n: int, seed: int) -> list[list[int]]:
    """Return whole positions inside the map's frame."""
    spread = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * MAP_MARGIN
    return (atlas.layout(edges, n, seed) * spread + MAP_MARGIN).round().astype(int).tolist()


def _classes(paths: list[list[str]]) -> tuple[list[str], list[int]]:
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


def html(evidence: Evidence, view: GalleryView | None) -> str:
    """Return the text of index.html."""
    packed = gallery.sheets(view.images if view else {})
    return render("page.html", packed, **_content(evidence, view), view=view, data=_data(view, packed) if view else {},
        groups=evidence.groups if view and view.searchable else None,
        map_width=MAP_WIDTH, map_height=MAP_HEIGHT,
    )  # fmt: skip


def render(template: str, packed: gallery.Sheets, **content: Any) -> str:
    """Return a self-contained page: no address in it is ever fetched.

    Args:
        template: a file beside this one that extends base.html.
        packed: the images.
        content: variables of the template.
    """
    script, style = (
        "".join((HERE / f"{name}.{kind}").read_text(encoding="utf-8") for name in ("page", "codes"))
        for kind in ("js", "css")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment(autoescape=True).get_template(template).render(
        **content, sheets=packed.data, style=style, script=script, script_hash=digest, cell=gallery.CELL,
        columns=gallery.COLUMNS,
    )  # fmt: skip


def report_md(evidence: Evidence, view: GalleryView | None) -> str:
    """Return the text of report.md: the same tables, and the image neighbours.png."""
    return _environment(autoescape=False).get_template("page.md").render(
        **_content(evidence, view), row=markdown.row, rule=markdown.rule, view=view
    )  # fmt: skip


def poster(view: GalleryView) -> bytes:
    """Return neighbours.png: a few items and their neighbours under the first feature sets."""
    content = [name for name in view.sets if name not in CONTROLS and not name.endswith("-masked")]
    masked = [name for name in view.sets if name.endswith("-masked")]
    chosen = [*content, *masked, *(c for c in CONTROLS if c in view.sets)][:POSTER_SETS]
    if "random" in view.sets and "random" not in chosen:
        chosen[-1] = "random"
    sets = {name: view.sets[name] for name in chosen}
    return gallery.poster(view.items[:POSTER_ITEMS], sets, view.images, view.titles)


def _content(evidence: Evidence, view: GalleryView | None) -> dict[str, Any]:
    notes = {r["stage"]: r.get("notes", {}) for r in evidence.records}
    return {
        "dataset": evidence.dataset,
        "kind": evidence.kind,
        "facts": _facts(notes.get("interactions", {})),
        "before": sections.before(evidence),
        "after": sections.after(evidence),
        "plot": plots,
    }


def _facts(notes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{notes[name]:,}") for name in ("users", "items", "train", "valid", "test") if name in notes]


def _data(view: GalleryView, packed: gallery.Sheets) -> dict[str, Any]:
    """Return the page's data: for every item its title, category, cell of a sheet, and neighbours."""
    n = len(view.titles)
    nearest = {name: [nearest_of.get(i, []) for i in range(n)] for name, nearest_of in view.sets.items()}
    return {
        "titles": view.titles,
        "notes": view.notes,
        "cells": [packed.place.get(i, -1) for i in range(n)],
        "near": nearest if view.searchable else {},
        "maps": view.maps,
    }


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    heading: Callable[[str], str] = lambda text: "".join(c if c.isalnum() else "-" for c in text.lower())  # noqa: E731
    environment.filters["anchor"] = heading
    return environment
