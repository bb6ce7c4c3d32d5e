"""index.html and report.md from the evidence. Titles, categories and ids come from data and are escaped everywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from PIL import Image

from pipeline.report import gallery, markdown, neighbours, plots, recommended, sections, verdict
from pipeline.report.gather import Evidence
from pipeline.report.neighbours import Neighbours
from pipeline.report.recommended import User
from pipeline.report.tables import CONTROLS

HERE = Path(__file__).parent
POSTER_ITEMS, POSTER_SETS = 8, 4


@dataclass(frozen=True)
class View:
    """What the page shows of single items."""

    titles: list[str]
    notes: list[str]
    """categories, by item_id"""
    images: dict[int, Image.Image]
    neighbours: Neighbours | None
    users: list[User]


def view(evidence: Evidence, near: Neighbours | None, users: Sequence[User], images: Iterable[pa.Table]) -> View | None:
    """Return titles, categories and images of the items that the page shows; None without items.

    Args:
        evidence: of the stages.
        near: items and their neighbours.
        users: with their recommendations.
        images: item_id and image of table IMAGES, a shard at a time.
    """
    if evidence.items is None or not (near or users):
        return None
    wanted = set[int]().union(*(part.shown for part in (near, *users) if part))
    titles = [t or a for t, a in zip(*(evidence.items[c].to_pylist() for c in ("title", "asin")), strict=True)]
    notes = [" › ".join(p) for p in evidence.items["categories"].to_pylist()]
    return View(titles, notes, gallery.thumbnails(images, wanted), near, list(users))


def html(evidence: Evidence, shown: View | None) -> str:
    """Return the text of index.html."""
    packed = gallery.sheets(shown.images if shown else {})
    return render(
        "page.html", packed, **_content(evidence, shown), data=_data(shown, packed) if shown else {},
        groups=evidence.groups if shown and shown.neighbours and shown.neighbours.searchable else None,
        map_width=neighbours.MAP_WIDTH, map_height=neighbours.MAP_HEIGHT,
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


def report_md(evidence: Evidence, shown: View | None) -> str:
    """Return the text of report.md: the same verdict and tables, and the image neighbours.png."""
    return _environment(autoescape=False).get_template("page.md").render(
        **_content(evidence, shown), row=markdown.row, rule=markdown.rule, escaped=markdown.escaped
    )  # fmt: skip


def poster(near: Neighbours, shown: View) -> bytes:
    """Return neighbours.png: a few items and their neighbours under the first feature sets."""
    content = [name for name in near.sets if name not in CONTROLS and not name.endswith("-masked")]
    masked = [name for name in near.sets if name.endswith("-masked")]
    chosen = [*content, *masked, *(c for c in CONTROLS if c in near.sets)][:POSTER_SETS]
    if "random" in near.sets and "random" not in chosen:
        chosen[-1] = "random"
    sets = {name: near.sets[name] for name in chosen}
    return gallery.poster(near.items[:POSTER_ITEMS], sets, shown.images, shown.titles)


def _content(evidence: Evidence, shown: View | None) -> dict[str, Any]:
    notes = {r["stage"]: r.get("notes", {}) for r in evidence.records}
    said = verdict.sentences(evidence.released, evidence.probes, evidence.tests)
    return {
        "dataset": evidence.dataset,
        "kind": evidence.kind,
        "facts": _facts(notes.get("interactions", {})),
        "verdict": said,
        "basis": verdict.basis(evidence.probes, evidence.tests) if said else "",
        "pictured": sections.pictured(evidence),
        "recorded": sections.recorded(evidence),
        "near": shown and shown.neighbours,
        "users": shown.users if shown else [],
        "released": evidence.released,
        "seed": recommended.SEED,
        "plot": plots,
    }


def _facts(notes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{notes[name]:,}") for name in ("users", "items", "train", "valid", "test") if name in notes]


def _data(shown: View, packed: gallery.Sheets) -> dict[str, Any]:
    """Return the page's data: for every item its title, category, cell of a sheet, and neighbours."""
    near, n = shown.neighbours, len(shown.titles)
    sets = near.sets if near and near.searchable else {}
    return {
        "titles": shown.titles,
        "notes": shown.notes,
        "cells": [packed.place.get(i, -1) for i in range(n)],
        "near": {name: [nearest_of.get(i, []) for i in range(n)] for name, nearest_of in sets.items()},
        "maps": near.maps if near else {},
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
    unbroken: Callable[[str], str] = lambda text: text.replace(" ± ", "\u00a0±\u00a0").replace(" .. ", "\u00a0..\u00a0")  # noqa: E731
    environment.filters["unbroken"] = unbroken
    return environment
