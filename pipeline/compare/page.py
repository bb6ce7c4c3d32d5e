"""A comparison as tables for the terminal and as a page with pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table as Terminal
from rich.text import Text

from pipeline.compare import geometry
from pipeline.compare.given import Given
from pipeline.report import gallery, tables
from pipeline.report.markdown import with_error
from pipeline.report.page import render
from pipeline.report.tables import Table

NEAR = 6
"""neighbours shown beside an item"""


def judged(found: Mapping[str, Any]) -> list[Table]:
    """Return the tables of what was measured: probes, trainings, paired tests."""
    shown = tables.probes(found["probes"])
    if "training" in found:
        shown.append(_training(found["training"]))
        shown.append(_paired("Trained recommenders, pair by pair", "users", found["training"]["paired"]))
    if found["paired"]:
        shown.insert(len(found["probes"]), _paired("Probes, pair by pair", "users or items", found["paired"]))
    return [t for t in shown if t.rows or t.note]


def shapes(found: Mapping[str, Any]) -> list[Table]:
    """Return the tables of how the sets lie in space."""
    rows = [
        [name, str(s["width"]), f"{s['effective_rank']:.1f}", f"{s['mean_cosine']:.3f}", str(s["zero_rows"])]
        for name, s in found["sets"].items()
    ]
    note = (
        "Effective rank: how many directions are really used. Mean cosine: 0 for features that point everywhere alike, "
        "1 for features that all point the same way."
    )
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    made = [Table("Shape", note, head, rows)]
    if found["pairs"]:
        pairs = [[p["a"], p["b"], f"{p['overlap']:.1%}", f"{p['cka']:.4f}"] for p in found["pairs"]]
        shared = f"shared of {found['pairs'][0]['neighbours']} neighbours"
        note = "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
        made.append(Table("Likeness", note, ["a", "b", shared, "linear CKA"], pairs, texts=2))
    return made


def terminal(shown: Table) -> Terminal:
    """Return a table for the terminal; control characters in cells are dropped by Rich's Text."""
    made = Terminal(title=shown.heading, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
    for i, name in enumerate(shown.head):
        made.add_column(Text(name), justify="left" if i < shown.texts else "right", overflow="fold")
    for row in shown.rows:
        made.add_row(*(Text("".join(c for c in cell if c.isprintable())) for cell in row))
    return made


def html(
    dataset: str,
    kind: str,
    found: Mapping[str, Any],
    sets: Sequence[Given],
    titles: Sequence[str],
    notes: Sequence[str],
    pictures: Iterable[pa.Table],
) -> str:
    """Return the page of a comparison.

    Args:
        dataset: its name.
        kind: of its source.
        found: see command.compare.
        sets: the feature sets, in the order of `found`.
        titles: of all items.
        notes: categories of all items.
        pictures: item_id and image of table IMAGES, a shard at a time; may be empty.
    """
    named = {g.name: g for g in sets}
    pairs = [
        changed(named[p["a"]], named[p["b"]], [(e["item_id"], e["overlap"]) for e in p["most_changed"]])
        for p in found["pairs"]
    ]
    packed, data = pictured(pairs, titles, notes, pictures)
    return render(
        "compare.html", packed, dataset=dataset, kind=kind, data=data, pairs=pairs, sets=list(named),
        judged=judged(found), shapes=shapes(found),
    )  # fmt: skip


def changed(a: Given, b: Given, items: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return what a page shows of two sets' most changed items (rows and shares of neighbours): both neighbourhoods."""
    near = [geometry.nearest(g.vectors, [i for i, _ in items], NEAR) for g in (a, b)]
    return {"a": a.name, "b": b.name, "items": items, "near_a": near[0], "near_b": near[1]}


def pictured(
    pairs: Iterable[Mapping[str, Any]], titles: Sequence[str], notes: Sequence[str], pictures: Iterable[pa.Table]
) -> tuple[gallery.Sheets, dict[str, Any]]:
    """Return the pictures of all items that `pairs` (see `changed`) show, and the page's table of items."""
    wanted = set[int]()
    for p in pairs:
        wanted |= {i for i, _ in p["items"]}
        wanted |= {other for near in (p["near_a"], p["near_b"]) for others in near.values() for other in others}
    packed = gallery.sheets(gallery.thumbnails(pictures, wanted))
    cells = [packed.place.get(i, -1) for i in range(len(titles))]
    return packed, {"titles": titles, "notes": notes, "cells": cells}


def _training(found: Mapping[str, Any]) -> Table:
    figure = next(key for key in found if "@" in key)
    rows = [
        [model, name, with_error(v["mean"], v["sd"])]
        for model, by_set in found[figure].items()
        for name, v in by_set.items()
    ]
    note = (
        f"Test figures at the best valid epoch, mean ± standard deviation over {found['seeds']} seeds; protocol "
        f"{found['protocol']} ({found['fingerprint']})."
    )
    return Table("Trained recommenders", note, ["model", "feature set", figure], rows, texts=2)


def _paired(heading: str, unit: str, tests: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [t["measure"], t["a"], t["b"], f"{t['difference']:+.4f}",
         f"{t['low']:+.4f} .. {t['high']:+.4f}", _p(t["p"]), _p(t["p_holm"])]
        for t in tests
    ]  # fmt: skip
    note = (
        f"The same {unit} under both sets; 95 % interval of the mean difference and p by paired bootstrap; the last "
        "column is p corrected (Holm) for all rows."
    )
    return Table(heading, note, ["measure", "a", "b", "a - b", "95 % interval", "p", "p, Holm"], rows, texts=3)


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
