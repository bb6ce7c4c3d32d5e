"""A comparison as tables for the terminal, and as a page with images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table as Terminal
from rich.text import Text

from pipeline.compare import geometry
from pipeline.compare.feature_set import FeatureSet
from pipeline.errors import printable
from pipeline.probe.registry import PROBES
from pipeline.report import gallery, tables
from pipeline.report.markdown import probe_remark, with_error
from pipeline.report.page import render
from pipeline.report.tables import FLOORED, Table, p_value

NEAR = 6
"""neighbours beside an item"""


def judged(comparison: Mapping[str, Any]) -> list[Table]:
    """Return the tables of probes, trainings and paired tests."""
    fair = {key: comparison[key] for key in ("processed", "verdicts")}
    evaluated = tables.probes(comparison["probes"] | fair)
    if "training" in comparison:
        for training in (comparison["training"], *comparison["training"].get("also", [])):
            evaluated.append(_training(training))
            evaluated.append(_paired("Trained recommenders, pair by pair", "users", training["paired"]))
    if comparison["paired"]:
        evaluated.insert(
            len(comparison["probes"]), _paired("Probes, pair by pair", "users or items", comparison["paired"])
        )
    return [t for t in evaluated if t.rows or t.note]


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    """Return whose rows seem to be out of order, the caveats of the probes, and what they are not shown for."""
    written = {PROBES[key].title: probe_remark(probe) for key, probe in comparison["probes"].items()}
    return [*doubts(comparison), *(f"{title}: {remark}" for title, remark in written.items() if remark)]


def doubts(comparison: Mapping[str, Any]) -> list[str]:
    """Return a sentence a feature set whose rows seem to lie in another order than the items."""
    said = []
    for doubt in comparison.get("order", []):
        k, chance, both = doubt["neighbours"], doubt["chance"], doubt["overlap"].items()
        shares = " and ".join(f"{share:.1%} of {k} neighbours with {name}" for name, share in both)
        said.append(
            f"{doubt['features']}: the order of its rows looks wrong, or they are of other items. It shares {shares}, "
            f"which is chance ({chance:.1%}); these two share {doubt['shared']:.1%}. Give its order with --order, or a "
            "file with identifiers."
        )
    return said


def sources(comparison: Mapping[str, Any]) -> Table:
    """Return the table of the files, and of how their rows were matched with items."""
    rows = [[name, source] for name, source in comparison["sources"].items()]
    return Table("Files", "", ["feature set", "file, and how its rows were matched with items"], rows, texts=2)


def shapes(comparison: Mapping[str, Any]) -> list[Table]:
    """Return the tables of geometry and similarity."""
    rows = [
        [name, str(s["width"]), f"{s['effective_rank']:.1f}", f"{s['mean_cosine']:.3f}", str(s["zero_rows"])]
        for name, s in comparison["sets"].items()
    ]
    note = "Effective rank: number of directions in use. Mean cosine: 0 for isotropic features, 1 for equal directions."
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    geometric = [Table("Shape", note, head, rows)]
    if comparison["pairs"]:
        pairs = [[p["a"], p["b"], f"{p['overlap']:.1%}", f"{p['cka']:.4f}"] for p in comparison["pairs"]]
        shared = f"shared of {comparison['pairs'][0]['neighbours']} neighbours"
        note = "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
        geometric.append(Table("Similarity", note, ["a", "b", shared, "linear CKA"], pairs, texts=2))
    return geometric


def terminal(table: Table) -> Terminal:
    """Return a table for the terminal."""
    printed = Terminal(title=table.heading, title_justify="left", box=box.SIMPLE, show_edge=False, padding=0)
    for i, name in enumerate(table.head):
        printed.add_column(Text(printable(name)), justify="left" if i < table.texts else "right", overflow="fold")
    for row in table.rows:
        printed.add_row(*(Text(printable(cell)) for cell in row))
    return printed


def html(
    dataset: str,
    kind: str,
    comparison: Mapping[str, Any],
    sets: Sequence[FeatureSet],
    titles: Sequence[str],
    notes: Sequence[str],
    images: Iterable[pa.Table],
) -> str:
    """Return the page of a comparison.

    Args:
        dataset: its name.
        kind: of its source.
        comparison: see command.compare.
        sets: the feature sets, in the order of `comparison`.
        titles: of all items.
        notes: categories of all items.
        images: item_id and image of table IMAGES, a shard at a time; may be empty.
    """
    named = {g.name: g for g in sets}
    pairs = [
        changed(named[p["a"]], named[p["b"]], [(e["item_id"], e["overlap"]) for e in p["most_changed"]])
        for p in comparison["pairs"]
    ]
    packed, data = with_images(pairs, titles, notes, images)
    return render(
        "compare.html", packed, dataset=dataset, kind=kind, data=data, pairs=pairs, sets=list(named),
        doubts=doubts(comparison), judged=judged(comparison), shapes=[sources(comparison), *shapes(comparison)],
    )  # fmt: skip


def changed(a: FeatureSet, b: FeatureSet, items: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return two sets' neighbours of the most changed items (rows, and shares of common neighbours), for a page."""
    neighbours = [geometry.nearest(g.vectors, [i for i, _ in items], NEAR) for g in (a, b)]
    return {"a": a.name, "b": b.name, "items": items, "near_a": neighbours[0], "near_b": neighbours[1]}


def with_images(
    pairs: Iterable[Mapping[str, Any]], titles: Sequence[str], notes: Sequence[str], images: Iterable[pa.Table]
) -> tuple[gallery.Sheets, dict[str, Any]]:
    """Return the images of all items in `pairs` (see `changed`), and the page's table of items."""
    wanted = set[int]()
    for p in pairs:
        wanted |= {i for i, _ in p["items"]}
        wanted |= {other for side in (p["near_a"], p["near_b"]) for others in side.values() for other in others}
    packed = gallery.sheets(gallery.thumbnails(images, wanted))
    cells = [packed.place.get(i, -1) for i in range(len(titles))]
    return packed, {"titles": titles, "notes": notes, "cells": cells}


def _training(training: Mapping[str, Any]) -> Table:
    figure = next(key for key in training if "@" in key)
    rows = [
        [model, name, with_error(v["mean"], v["sd"])]
        for model, by_set in training[figure].items()
        for name, v in by_set.items()
    ]
    note = (
        f"Test figures at the best valid epoch, mean ± standard deviation over {training['seeds']} seeds; protocol "
        f"{training['protocol']} ({training['fingerprint']})."
    )
    return Table("Trained recommenders", note, ["model", "feature set", figure], rows, texts=2)


def _paired(heading: str, unit: str, tests: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [t["measure"], t["a"], t["b"], f"{t['difference']:+.4f}",
         f"{t['low']:+.4f} .. {t['high']:+.4f}", p_value(t["p"]), p_value(t["p"], t["p_holm"])]
        for t in tests
    ]  # fmt: skip
    note = (
        f"The same {unit} under both sets; 95 % interval of the mean difference and p by paired bootstrap; the last "
        f"column is p corrected (Holm) for all rows. {FLOORED}"
    )
    return Table(heading, note, ["measure", "a", "b", "a - b", "95 % interval", "p", "p, Holm"], rows, texts=3)
