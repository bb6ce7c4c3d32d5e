"""index.html and report.md. Titles, categories and ids come from data and are escaped everywhere."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import pyarrow as pa
from PIL import Image

from pipeline.report import atlas, codes, content, facets, gallery, plots, sections, verdict
from pipeline.report.facets import Items
from pipeline.report.neighbours import Neighbours
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Section
from pipeline.report.table import Table, escaped, markdown
from pipeline.report.users import SEED, User
from pipeline.report.words import CONTROLS, title

HERE = Path(__file__).parent
POSTER_ITEMS, POSTER_SETS = 8, 4
PARTS = ("items", "map", "list", "codes", "page")
"""scripts of every page, in order; without their element they do nothing"""
LONGEST = 120
"""most characters of a title in the page's data"""
NO_IMAGES = gallery.Sheets([], {})


@dataclass(frozen=True)
class View:
    """The items that the page shows."""

    titles: list[str]
    notes: list[str]
    """categories of each item"""
    images: dict[int, Image.Image]
    neighbours: Neighbours | None
    maps: dict[str, list[list[int]]]
    """feature set -> position of each item"""
    users: list[User]
    known: Items | None
    """data of the map and the lists; None without a map"""


def view(outputs: Outputs, near: Neighbours | None, users: Sequence[User], seed: int,
         images: Iterable[pa.Table] | None = None) -> View | None:  # fmt: skip
    """Return the items that the page shows, None without any; images are those of `outputs` by default."""
    items = outputs.items
    if items is None or not (near or users):
        return None
    wanted = set[int]().union(*(part.shown for part in (near, *users) if part))
    mapped = near if near and near.mapped else None
    maps = {name: atlas.positions(outputs.edges(name), len(items), seed) for name in (mapped.sets if mapped else ())}
    pictures = gallery.thumbnails(outputs.images() if images is None else images, wanted)
    known = facets.read(outputs, mapped) if mapped else None
    return View(content.titles(items), content.paths(items), pictures, near, maps, list(users), known)


def html(outputs: Outputs, shown: View | None, encoders: Sequence[str] = (), characters: int = 0) -> str:
    """Return index.html; given encoders of a server, with a box for questions of up to `characters`."""
    packed = gallery.sheets(shown.images if shown else {})
    all_shown = shown and shown.neighbours and shown.neighbours.searchable
    return render(
        "page.html", packed, asks=bool(encoders), mapped=bool(shown and shown.maps), **_content(outputs, shown),
        encoders=encoders, characters=characters, carried=_carried(shown, packed) if shown else None,
        data=packed.table(shown.titles, shown.notes) if shown else {},
        groups=codes.groups(outputs.layout, outputs.coded, len(shown.titles)) if shown and all_shown else None,
    )  # fmt: skip


def render(template: str, packed: gallery.Sheets, asks: bool = False, mapped: bool = False, **content: Any) -> str:
    """Return a self-contained page: it loads nothing, and sends requests to its own server only if it `asks`."""
    own = "".join(_text(f"{name}.js") for name in (*PARTS, *(["ask"] if asks else [])))
    scripts = [*([_text("vendor/map.js")] if mapped else []), own]
    style = "".join(_text(f"{name}.css") for name in ("page", "explore", "codes"))
    return _environment(autoescape=True).get_template(template).render(
        **content, asks=asks, mapped=mapped, sheets=packed.data, style=style, scripts=scripts,
        hashes=[_hash(script) for script in scripts], cell=gallery.CELL, columns=gallery.COLUMNS,
    )  # fmt: skip


def sides(
    command: str, dataset: str, lead: str, parts: Sequence[Section], *, kind: str = "", title: str = "",
    headline: str = "", verdict: Sequence[Table] = (), packed: gallery.Sheets = NO_IMAGES,
    data: Mapping[str, Any] = MappingProxyType({}), pairs: Sequence[Mapping[str, Any]] = (), note: str = "",
) -> str:  # fmt: skip
    """Return the page of a command that compares feature sets, codes or releases.

    Args:
        kind: source of the dataset; the images of `sample` need an attribution.
        title: the dataset by default.
        headline, verdict: a sentence, and the tables that support it.
        packed, data: images of the items in `pairs`, and their table, see gallery.Sheets.table.
        pairs, note: most changed items, see pipeline/compare/page.py, and a note on them.
    """
    return render(
        "compared.html", packed, command=command, dataset=dataset, lead=lead, parts=parts, kind=kind,
        title=title or dataset, headline=headline, verdict=verdict, data=data, pairs=pairs, note=note, plot=plots,
    )  # fmt: skip


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def report_md(outputs: Outputs, shown: View | None) -> str:
    template = _environment(autoescape=False).get_template("page.md")
    return template.render(**_content(outputs, shown), markdown=markdown, escaped=escaped)


def poster(near: Neighbours, shown: View) -> bytes:
    content = [name for name in near.sets if name not in CONTROLS and not name.endswith("-masked")]
    masked = [name for name in near.sets if name.endswith("-masked")]
    chosen = [*content, *masked, *(c for c in CONTROLS if c in near.sets)][:POSTER_SETS]
    if "random" in near.sets and "random" not in chosen:
        chosen[-1] = "random"
    sets = {name: near.sets[name] for name in chosen}
    return gallery.poster(near.items[:POSTER_ITEMS], sets, shown.images, shown.titles)


def _content(outputs: Outputs, shown: View | None) -> dict[str, Any]:
    dataset, kind, released = outputs.layout.dataset, outputs.kind, outputs.released
    notes = outputs.records.get("interactions", {}).get("notes", {})
    return {
        "dataset": dataset,
        "kind": kind,
        "facts": [(name, f"{notes[name]:,}") for name in ("users", "items", "train", "valid", "test") if name in notes],
        "headline": verdict.headline(dataset, kind, released, outputs.probes, outputs.tests),
        "advice": verdict.advice(outputs.probes),
        "verdict": verdict.tables(released, outputs.probes, outputs.tests),
        "pictured": sections.pictured(outputs),
        "recorded": sections.recorded(outputs),
        "near": shown and shown.neighbours,
        "users": shown.users if shown else [],
        "released": released,
        "seed": SEED,
        "diagram": _text("diagram.svg"),
        "plot": plots,
    }


def _carried(shown: View, packed: gallery.Sheets) -> dict[str, Any] | None:
    """Return the script's data of every item; None without a map."""
    near, known, n = shown.neighbours, shown.known, len(shown.titles)
    if near is None or known is None:
        return None
    kinds = {path: at for at, path in enumerate(dict.fromkeys(shown.notes))}
    return {
        "titles": [name[:LONGEST] for name in shown.titles],
        "cells": [packed.place.get(i, -1) for i in range(n)],
        "notes": [kinds[path] for path in shown.notes],
        "paths": list(kinds),
        "words": known.words,
        "near": {name: [nearest_of.get(i, []) for i in range(n)] for name, nearest_of in near.sets.items()},
        "maps": {name: [axis for place in places for axis in place] for name, places in shown.maps.items()},
        "size": [atlas.WIDTH, atlas.HEIGHT],
        "columns": near.columns,
        "classes": near.classes,
        "colour": near.colour,
        "popularity": known.popularity,
        "facets": known.facets,
        "first": near.items,
    }


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=autoescape, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    unbroken: Callable[[str], str] = lambda text: text.replace(" ± ", "\u00a0±\u00a0").replace(" .. ", "\u00a0..\u00a0")  # noqa: E731
    environment.filters["unbroken"] = unbroken
    environment.filters["named"] = title
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment
