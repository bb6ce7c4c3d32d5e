"""index.html and report.md from the evidence. Titles, categories and ids come from data and are escaped everywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from pipeline.facts import codes, content, verdict
from pipeline.facts.neighbours import Neighbours
from pipeline.facts.outputs import Outputs
from pipeline.facts.table import escaped, markdown
from pipeline.facts.users import SEED, User
from pipeline.facts.words import CONTROLS
from pipeline.report import atlas, gallery, plots, sections

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
    maps: dict[str, list[list[int]]]
    """feature set -> position of each item on the map; empty if not all items are shown"""
    users: list[User]


def view(outputs: Outputs, near: Neighbours | None, users: Sequence[User], seed: int) -> View | None:
    """Return titles, categories and images of the items that the page shows; None without items.

    Args:
        outputs: of the stages.
        near: items and their neighbours.
        users: with their recommendations.
        seed: of the maps.
    """
    items = outputs.items
    if items is None or not (near or users):
        return None
    wanted = set[int]().union(*(part.shown for part in (near, *users) if part))
    shown = near.sets if near and near.searchable else ()
    maps = {name: atlas.positions(outputs.edges[name], len(items), seed) for name in shown}
    images = gallery.thumbnails(outputs.images(), wanted)
    return View(content.titles(items), content.paths(items), images, near, maps, list(users))


def html(outputs: Outputs, shown: View | None) -> str:
    """Return the text of index.html."""
    packed = gallery.sheets(shown.images if shown else {})
    all_shown = shown and shown.neighbours and shown.neighbours.searchable
    return render(
        "page.html", packed, **_content(outputs, shown), data=_data(shown, packed) if shown else {},
        groups=codes.groups(outputs.layout, outputs.coded, len(shown.titles)) if shown and all_shown else None,
        maps=shown.maps if shown else {}, map_width=atlas.WIDTH, map_height=atlas.HEIGHT,
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


def report_md(outputs: Outputs, shown: View | None) -> str:
    """Return the text of report.md: the same verdict and tables, and the image neighbours.png."""
    template = _environment(autoescape=False).get_template("page.md")
    return template.render(**_content(outputs, shown), markdown=markdown, escaped=escaped)


def poster(near: Neighbours, shown: View) -> bytes:
    """Return neighbours.png: a few items and their neighbours under the first feature sets."""
    content = [name for name in near.sets if name not in CONTROLS and not name.endswith("-masked")]
    masked = [name for name in near.sets if name.endswith("-masked")]
    chosen = [*content, *masked, *(c for c in CONTROLS if c in near.sets)][:POSTER_SETS]
    if "random" in near.sets and "random" not in chosen:
        chosen[-1] = "random"
    sets = {name: near.sets[name] for name in chosen}
    return gallery.poster(near.items[:POSTER_ITEMS], sets, shown.images, shown.titles)


def _content(outputs: Outputs, shown: View | None) -> dict[str, Any]:
    said = verdict.sentences(outputs.released, outputs.probes, outputs.tests)
    return {
        "dataset": outputs.layout.dataset,
        "kind": outputs.kind,
        "facts": _facts(outputs.records.get("interactions", {}).get("notes", {})),
        "verdict": said,
        "basis": verdict.basis(outputs.probes, outputs.tests) if said else "",
        "pictured": sections.pictured(outputs),
        "recorded": sections.recorded(outputs),
        "near": shown and shown.neighbours,
        "users": shown.users if shown else [],
        "released": outputs.released,
        "seed": SEED,
        "plot": plots,
    }


def _facts(notes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{notes[name]:,}") for name in ("users", "items", "train", "valid", "test") if name in notes]


def _data(shown: View, packed: gallery.Sheets) -> dict[str, Any]:
    """Return the page's data: for every item its title, category, cell of a sheet, and neighbours."""
    near, n = shown.neighbours, len(shown.titles)
    sets = near.sets if near and near.searchable else {}
    return packed.table(shown.titles, shown.notes) | {
        "near": {name: [nearest_of.get(i, []) for i in range(n)] for name, nearest_of in sets.items()},
        "maps": shown.maps,
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
