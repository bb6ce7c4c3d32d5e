"""Render index.html and report.md. Titles, categories and ids are untrusted, so escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from alignrec.pipeline.report import gallery, sections, verdict
from alignrec.pipeline.report.gallery import Neighbours
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.table import escape_markdown, markdown
from alignrec.pipeline.report.verdict import advise

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
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


def build_view(outputs: Outputs, near: Neighbours | None) -> GalleryView | None:
    """Collect the data of the gallery; None without items or neighbours."""
    if outputs.items is None or near is None:
        return None
    images = gallery.make_thumbnails(outputs.images("image"), near.shown)
    titles = gallery.item_titles(outputs.items)
    return GalleryView(titles, gallery.category_paths(outputs.items), images, near)


def render_index(
    outputs: Outputs,
    view: GalleryView | None,
    item_map: str = "",
    encoders: Sequence[str] = (),
    characters: int = 0,
) -> str:
    """Render index.html; a server's page (`encoders`) has a box for up to `characters` characters.

    The box searches for the items nearest to a text; `item_map` is base64 WebP.
    """
    return render_page(
        "page.html",
        view.images if view else {},
        asks=bool(encoders),
        **_page_content(outputs),
        encoders=encoders,
        characters=characters,
        item_map=item_map,
        features=outputs.released,
        near=view.neighbours if view else None,
        titles=view.titles if view else [],
        notes=view.notes if view else [],
    )


def render_page(
    template: str, images: Mapping[int, Image.Image], asks: bool = False, **content: Any
) -> str:
    """Render a self-contained page; only if it `asks` does it send requests, to its own server."""
    script = _read_text("page.js") + (_read_text("ask.js") if asks else "")
    digest = hashlib.sha256(script.encode()).digest()
    return PAGE_TEMPLATES.get_template(template).render(
        **content,
        asks=asks,
        images={item: gallery.encode_jpeg(images[item]) for item in sorted(images)},
        style=_read_text("page.css"),
        script=script,
        hash=base64.b64encode(digest).decode(),
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

    blocks += _render_sections(content, content["recorded"], "##")
    return "\n\n".join(filter(None, blocks)) + "\n"


def render_evidence(outputs: Outputs) -> str:
    """Render what the report says of the feature sets, for a card with headings of two levels.

    Facts of the data stay in the report: reasons of failed images may name files of this machine.
    """
    content = _page_content(outputs)
    recorded = [part for part in content["recorded"] if part.anchor != sections.DATA]
    return "\n\n".join(filter(None, _render_sections(content, recorded, "###")))


def _render_sections(
    content: Mapping[str, Any], recorded: Sequence[PageSection], mark: str
) -> list[str]:
    """Return blocks of Markdown, some of them empty; `mark` precedes the headings of sections."""
    judged = PageSection("verdict", "", "Verdict", tables=content["verdict"])
    blocks = []
    for part in [judged, *content["judged"], *recorded]:
        if not part.tables:
            continue
        blocks += [f"{mark} {part.heading}", part.note]
        for table in part.tables:
            if table.heading != part.heading:
                blocks.append(f"{mark}# {table.heading}")
            blocks += [table.note, table.markdown if table.rows else ""]
    return blocks


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
