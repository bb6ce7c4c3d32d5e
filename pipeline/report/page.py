"""Render index.html and report.md. Titles, categories and ids are untrusted and always escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.report import gallery, sections, verdict
from alignrec.pipeline.report.gallery import Neighbours
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.sections import Section
from alignrec.pipeline.report.table import Table, escape_markdown, markdown

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
SCRIPTS = (
    "items",
    "page",
    "list",
    "map",
)  # scripts of every page, in order; each is a no-op without its element
LONGEST = 120  # maximum characters of a title in the page's data
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip
TEMPLATES.filters["unbroken"] = lambda text: text.replace(" ± ", "\u00a0±\u00a0").replace(
    " .. ", "\u00a0..\u00a0"
)
TEMPLATES.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}


@dataclass(frozen=True)
class View:
    """The items that the page shows."""

    titles: list[str]
    notes: list[str]  # categories of each item
    images: dict[int, Image.Image]
    neighbours: Neighbours
    map_data: dict[str, Any]  # data of the map and the search; empty without a map


def build_view(
    outputs: Outputs, near: Neighbours | None, seed: int, images: Iterable[pa.Table] | None = None
) -> View | None:
    """Collect the data of gallery, map and search; None without items or neighbours."""
    items = outputs.items
    if items is None or near is None:
        return None
    pictures = gallery.make_thumbnails(
        outputs.images("image") if images is None else images, near.shown
    )
    n, titles, paths = len(items), gallery.item_titles(items), gallery.category_paths(items)
    if not near.mapped:
        return View(titles, paths, pictures, near, {})
    kinds, popularity = {path: at for at, path in enumerate(dict.fromkeys(paths))}, []
    if outputs.interactions is not None:
        item, split = (outputs.interactions[column].to_numpy() for column in ("item_id", "split"))
        popularity = np.bincount(item[split == schemas.TRAIN], minlength=n).tolist()
    map_data = {
        "titles": [name[:LONGEST] for name in titles],
        "notes": [kinds[path] for path in paths],
        "paths": list(kinds),
        "asins": items["asin"].to_pylist(),
        "near": {
            name: [nearest_of.get(i, []) for i in range(n)]
            for name, nearest_of in near.sets.items()
        },
        "maps": {name: gallery.map_positions(outputs.edges(name), n, seed) for name in near.sets},
        "size": [gallery.WIDTH, gallery.HEIGHT],
        "columns": near.columns,
        "classes": near.classes,
        "colour": near.colour,
        "popularity": popularity,
        "first": near.items,
    }
    return View(titles, paths, pictures, near, map_data)


def render_index(
    outputs: Outputs, shown: View | None, encoders: Sequence[str] = (), characters: int = 0
) -> str:
    """Render index.html; a server's page (`encoders`) has a search box for up to `characters` characters."""
    packed = gallery.pack_sheets(shown.images if shown else {})
    data = packed.table(shown.titles, shown.notes) if shown else {}
    map_data = shown.map_data | {"cells": data["cells"]} if shown and shown.map_data else {}
    return render_page(
        "page.html", packed, asks=bool(encoders), mapped=bool(map_data), **_page_content(outputs), encoders=encoders,
        characters=characters, near=shown and shown.neighbours, map_data=map_data, data=data,
    )  # fmt: skip


def render_page(
    template: str, packed: gallery.Sheets, asks: bool = False, mapped: bool = False, **content: Any
) -> str:
    """Render a self-contained page; only if it `asks` does it send requests, and only to its own server."""
    own = "".join(_read_text(f"{name}.js") for name in (*SCRIPTS, *(["ask"] if asks else [])))
    scripts = [*([_read_text("vendor/map.js")] if mapped else []), own]
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    return TEMPLATES.get_template(template).render(
        **content, asks=asks, mapped=mapped, sheets=packed.data, style=_read_text("page.css"), scripts=scripts,
        hashes=hashes, columns=gallery.COLUMNS,
    )  # fmt: skip


def compared_page(
    command: str, dataset: str, lead: str, parts: Sequence[Section], *, kind: str = "", title: str = "",
    headline: str = "", verdict: Sequence[Table] = (), pairs: Sequence[Mapping[str, Any]] = (),
    items: pa.Table | None = None, images: Iterable[pa.Table] = (), imageless: str = "",
) -> str:  # fmt: skip
    """Render the page of a command that compares; `pairs` are the most changed of `items`, `imageless` a note."""
    wanted = set[int]()
    for near in (pair[side] for pair in pairs for side in ("near_a", "near_b")):
        wanted.update(near, *near.values())
    packed = gallery.pack_sheets(gallery.make_thumbnails(images, wanted))
    data = (
        {}
        if items is None
        else packed.table(gallery.item_titles(items), gallery.category_paths(items))
    )
    return render_page(
        "compared.html", packed, command=command, dataset=dataset, lead=lead, parts=parts, kind=kind,
        title=title or dataset, headline=headline, verdict=verdict, data=data, pairs=pairs,
        note="" if packed.data else imageless,
    )  # fmt: skip


def render_markdown(outputs: Outputs) -> str:
    found = _page_content(outputs)
    lines = [f"# {found['dataset']}: alignrec report", escape_markdown(found["headline"])]
    if found["facts"]:
        names, values = zip(*found["facts"], strict=True)
        lines.append(markdown(names, [values]))
    parts = [
        Section("verdict", "", "Verdict", tables=found["verdict"]),
        *found["judged"],
        *found["recorded"],
    ]
    for part in parts:
        lines += [f"## {part.heading}", part.note] if part.tables else []
        for table in part.tables:
            lines += [f"### {table.heading}", table.note, table.markdown if table.rows else ""]
    return "\n\n".join(filter(None, lines)) + "\n"


def _page_content(outputs: Outputs) -> dict[str, Any]:
    dataset, kind, released = outputs.layout.dataset, outputs.kind, outputs.released
    notes = outputs.records.get("interactions", {}).get("notes", {})
    return {
        "dataset": dataset,
        "kind": kind,
        "facts": [
            (name, f"{notes[name]:,}")
            for name in ("users", "items", "train", "valid", "test")
            if name in notes
        ],
        "headline": verdict.verdict_headline(
            dataset, kind, released, outputs.probes, outputs.tests
        ),
        "verdict": verdict.verdict_tables(released, outputs.probes, outputs.tests),
        "judged": sections.judged_sections(outputs),
        "recorded": sections.recorded_sections(outputs),
        "diagram": _read_text("diagram.svg"),
    }


def _read_text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
