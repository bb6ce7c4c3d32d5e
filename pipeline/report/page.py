"""Render index.html and report.md. Titles, categories and ids are untrusted, so escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.report import gallery, sections, verdict
from alignrec.pipeline.report.advice import advise
from alignrec.pipeline.report.gallery import Neighbours
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.table import Fields, Table, escape_markdown, markdown

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
# scripts of every page, in order; each is a no-op without its element
SCRIPTS = ("items", "page", "list", "map")
MAX_TITLE_CHARACTERS = 120  # of an item, in the page's data
COUNTS = ("users", "items", "train", "valid", "test")  # of stage `interactions`
UNBROKEN = {" ± ": "\u00a0±\u00a0", " .. ": "\u00a0..\u00a0"}


def _keep_unbroken(text: str) -> str:
    for sign, unbroken in UNBROKEN.items():
        text = text.replace(sign, unbroken)
    return text


PAGE_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
PAGE_TEMPLATES.filters["unbroken"] = _keep_unbroken
PAGE_TEMPLATES.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}


@dataclass(frozen=True)
class GalleryView:
    """The items that the page shows."""

    titles: list[str]
    notes: list[str]  # categories of each item
    images: dict[int, Image.Image]
    neighbours: Neighbours
    map_data: dict[str, Any]  # data of the map and the search; empty without a map


def build_view(
    outputs: Outputs, near: Neighbours | None, seed: int, images: Iterable[pa.Table] | None = None
) -> GalleryView | None:
    """Collect the data of gallery, map and search; None without items or neighbours."""
    items = outputs.items
    if items is None or near is None:
        return None
    tables = outputs.images("image") if images is None else images
    thumbnails = gallery.make_thumbnails(tables, near.shown)
    titles = gallery.item_titles(items)
    paths = gallery.category_paths(items)
    map_data = _map_data(outputs, items, near, seed) if near.mapped else {}
    return GalleryView(titles, paths, thumbnails, near, map_data)


def _map_data(outputs: Outputs, items: pa.Table, near: Neighbours, seed: int) -> dict[str, Any]:
    n_items = len(items)
    titles = gallery.item_titles(items)
    paths = gallery.category_paths(items)
    distinct_paths = list(dict.fromkeys(paths))
    number = {path: at for at, path in enumerate(distinct_paths)}

    neighbours = {}
    maps = {}
    for name, near_items in near.sets.items():
        neighbours[name] = [near_items.get(item, []) for item in range(n_items)]
        maps[name] = gallery.map_positions(outputs.edges(name), n_items, seed)

    return {
        "titles": [title[:MAX_TITLE_CHARACTERS] for title in titles],
        "notes": [number[path] for path in paths],
        "paths": distinct_paths,
        "asins": items["asin"].to_pylist(),
        "near": neighbours,
        "maps": maps,
        "size": [gallery.MAP_WIDTH, gallery.MAP_HEIGHT],
        "columns": near.columns,
        "classes": near.classes,
        "colour": near.colour,
        "popularity": _count_popularity(outputs, n_items),
        "first": near.items,
    }


def _count_popularity(outputs: Outputs, n_items: int) -> list[int]:
    if outputs.interactions is None:
        return []
    items = outputs.interactions["item_id"].to_numpy()
    is_train = outputs.interactions["split"].to_numpy() == schemas.TRAIN
    counts: list[int] = np.bincount(items[is_train], minlength=n_items).tolist()
    return counts


def render_index(
    outputs: Outputs, view: GalleryView | None, encoders: Sequence[str] = (), characters: int = 0
) -> str:
    """Render index.html; a server's page (`encoders`) has a box for up to `characters` characters.

    The box searches for the items nearest to a text.
    """
    packed = gallery.pack_sheets(view.images if view else {})
    data: dict[str, Any] = {}
    map_data: dict[str, Any] = {}
    if view:
        data = packed.table(view.titles, view.notes)
        if view.map_data:
            map_data = view.map_data | {"cells": data["cells"]}

    return render_page(
        "page.html",
        packed,
        asks=bool(encoders),
        mapped=bool(map_data),
        **_page_content(outputs),
        encoders=encoders,
        characters=characters,
        near=view.neighbours if view else None,
        map_data=map_data,
        data=data,
    )


def render_page(
    template: str, packed: gallery.Sheets, asks: bool = False, mapped: bool = False, **content: Any
) -> str:
    """Render a self-contained page; only if it `asks` does it send requests, to its own server."""
    names = [*SCRIPTS, "ask"] if asks else SCRIPTS
    scripts = ["".join(_read_text(f"{name}.js") for name in names)]
    if mapped:
        scripts.insert(0, _read_text("vendor/map.js"))

    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    return PAGE_TEMPLATES.get_template(template).render(
        **content,
        asks=asks,
        mapped=mapped,
        sheets=packed.data,
        style=_read_text("page.css"),
        scripts=scripts,
        hashes=[base64.b64encode(digest).decode() for digest in digests],
        columns=gallery.COLUMNS,
    )


def compared_page(
    command: str,
    dataset: str,
    lead: str,
    parts: Sequence[PageSection],
    *,
    kind: str = "",
    title: str = "",
    advice: Sequence[str] = (),
    verdict: Sequence[Table] = (),
    pairs: Sequence[Fields] = (),
    items: pa.Table | None = None,
    images: Iterable[pa.Table] = (),
    imageless: str = "",
) -> str:
    """Render the page of a command that compares.

    `pairs` are the most changed of `items`; `imageless` is the note of a page without images.
    """
    shown_items: set[int] = set()
    for pair in pairs:
        for near in (pair["near_a"], pair["near_b"]):
            shown_items.update(near, *near.values())
    packed = gallery.pack_sheets(gallery.make_thumbnails(images, shown_items))

    data: dict[str, Any] = {}
    if items is not None:
        data = packed.table(gallery.item_titles(items), gallery.category_paths(items))
    return render_page(
        "compared.html",
        packed,
        command=command,
        dataset=dataset,
        lead=lead,
        parts=parts,
        kind=kind,
        title=title or dataset,
        advice=advice,
        verdict=verdict,
        data=data,
        pairs=pairs,
        note="" if packed.data else imageless,
    )


def render_markdown(outputs: Outputs) -> str:
    content = _page_content(outputs)
    blocks = [
        f"# {content['dataset']}: alignrec report",
        escape_markdown(" ".join(content["advice"])),
    ]
    if content["facts"]:
        names, values = zip(*content["facts"], strict=True)
        blocks.append(markdown(names, [values]))

    verdict_part = PageSection("verdict", "", "Verdict", tables=content["verdict"])
    for part in [verdict_part, *content["judged"], *content["recorded"]]:
        if not part.tables:
            continue
        blocks += [f"## {part.heading}", part.note]
        for table in part.tables:
            if table.heading != part.heading:
                blocks.append(f"### {table.heading}")
            blocks += [table.note, table.markdown if table.rows else ""]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _page_content(outputs: Outputs) -> dict[str, Any]:
    dataset = outputs.layout.dataset
    counts = outputs.records.get("interactions", {}).get("notes", {})
    return {
        "dataset": dataset,
        "kind": outputs.kind,
        "facts": [(name, f"{counts[name]:,}") for name in COUNTS if name in counts],
        "advice": advise(outputs),
        "verdict": verdict.verdict_tables(outputs.released, outputs.probes, outputs.tests),
        "judged": sections.judged_sections(outputs),
        "recorded": sections.recorded_sections(outputs),
        "diagram": _read_text("diagram.svg"),
    }


def _read_text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
