"""`alignrec leaderboard`: benchmarks of any number of releases and published figures, on one page."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Annotated, NamedTuple

import orjson
from pydantic import BaseModel, Field, ValidationError

from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.evidence import HEADLINE, MAIN, Cell
from pipeline.release.read import Release
from pipeline.report import plots, published
from pipeline.report.page import sides
from pipeline.report.plots import Section
from pipeline.report.table import Table, Value
from pipeline.report.words import measure, run, short, spread, title

RESULTS = "results.json"
MAX_BYTES = 64 << 20
ROWS = 14
"""most rows of a picture"""
RECALL = 4 + HEADLINE.index(MAIN)
"""sort column"""
MEASURES = [f"{metric}@{k}" for metric, k in HEADLINE]
Name = Annotated[str, Field(max_length=120)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Result(BaseModel):
    """A row of results.json, as far as it is read."""

    model: Name
    features: Name
    ablation: Name
    protocol: Name
    fingerprint: Name
    split: Name
    selected_by: Name
    metric: Name
    k: int
    mean: Finite
    sd: Finite | None
    values: list[Finite]


class Results(BaseModel):
    """results.json."""

    results: list[Result]


class Entry(NamedTuple):
    """A run of a release."""

    dataset: str
    protocol: str
    fingerprint: str
    release: str
    """dataset and version"""
    model: str
    features: str
    cells: dict[tuple[str, int], Cell]
    """metric, k -> figure"""

    @property
    def recall(self) -> float:
        return self.cells[MAIN].mean if MAIN in self.cells else -1.0


def read(folder: Path) -> list[Entry]:
    """Return the runs of a release: test figures at the best valid epoch, without ablations.

    Raises:
        UserError: not a release, no benchmark in it, or results that differ from the manifest.
    """
    manifest = Release(folder).manifest
    entry = next((file for file in manifest.files if file.path == RESULTS), None)
    path = folder / RESULTS
    if entry is None or not path.is_file():
        raise UserError(f"{folder}: no {RESULTS} in this release; publish it after `alignrec benchmark`")
    if path.stat().st_size > MAX_BYTES or io.sha256(path) != entry.sha256:
        raise UserError(f"{path}: is not the file that the manifest names; fetch the release again")
    try:
        rows = Results.model_validate(orjson.loads(path.read_bytes())).results
    except (orjson.JSONDecodeError, ValidationError) as e:
        raise UserError(f"{path}: not results as alignrec writes them; {str(e).splitlines()[0]}") from None
    entries: dict[tuple[str, ...], Entry] = {}
    for row in rows:
        if (row.split, row.selected_by, row.ablation) == ("test", "valid", ""):
            key = (row.protocol, row.fingerprint, f"{manifest.dataset} {manifest.version}", row.model, row.features)
            own = entries.setdefault(key, Entry(manifest.dataset, *key, {}))
            own.cells[row.metric, row.k] = Cell(row.mean, row.sd, tuple(row.values))
    return list(entries.values())


def html(entries: Sequence[Entry]) -> str:
    """Return the page: a section per dataset and protocol, then the published figures of each dataset.

    Published figures join the rows that were measured under their protocol on their split, and no others.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.dataset, e.protocol, e.fingerprint, -e.recall, e.release)):
        groups.setdefault(entry[:3], []).append(entry)
    alike = {key: published.fingerprints().get(key[2], "") for key in groups}
    names = sorted({figure.dataset for figure in published.figures()} - {*alike.values()})
    sections = [_measured(f"measured-{n}", rows, alike[key]) for n, (key, rows) in enumerate(groups.items())]
    note = " ".join([*published.differences(), *published.left_out()])
    sections += [Section("published", "Published", "Published by others", note), *map(_published, names)]
    count = len({entry.release for entry in entries})
    lead = f"{count} release{'s' * (count != 1)} and published figures. Only rows of one table are comparable."
    best = "; ".join(_first(rows[0]) for rows in groups.values() if MAIN in rows[0].cells)
    headline = best and f"Highest test {measure(*MAIN)} {best}."
    return sides("leaderboard", "leaderboard", lead, sections, title="Leaderboard", headline=headline)


def _first(entry: Entry) -> str:
    on = f" on {title(entry.features)}" if entry.features != "none" else ""
    return f"on {entry.dataset} ({entry.protocol}): {title(entry.model)}{on}, {short(f'{entry.recall:.3f}')}"


def _measured(anchor: str, rows: Sequence[Entry], alike: str) -> Section:
    """Return the runs of one dataset under one protocol.

    Args:
        alike: dataset whose published figures have this protocol and split; empty if there is none.
    """
    dataset, protocol, fingerprint = rows[0][:3]
    lines = [*map(_own, rows), *([row.model, "", row.source, "", *_cells(row)] for row in _figures(alike))]
    note = f"Fingerprint {fingerprint}. Test figures at the best valid epoch, mean ± sd where there are several seeds."
    if alike:
        note += f" Rows without seeds are published figures of this split ({_size(alike)}), with their source."
    head = ["model", "features", f"release{' or source' if alike else ''}", "seeds", *(measure(*k) for k in HEADLINE)]
    best = range(4, 4 + len(HEADLINE))
    table = Table.of(f"{dataset} by {protocol}", note, head, sorted(lines, key=_worst_last), texts=3, best=best)
    shown = [e for e in rows if MAIN in e.cells][:ROWS]
    several = len({e.release for e in rows}) > 1
    drawn = plots.intervals(
        f"Test {measure(*MAIN)}, {spread(len(e.cells[MAIN].values) for e in shown) if shown else ''}",
        [plots.mean(run(e.model, e.features) + (f", {e.release}" if several else ""), e.cells[MAIN]) for e in shown],
        axis=measure(*MAIN),
    )
    note = f"Protocol {protocol}. All rows have one fingerprint, so they were judged on the same questions."
    return Section(anchor, f"{dataset} ({protocol})", f"{dataset}, measured", note, [drawn], tables=[table])


def _worst_last(line: Sequence[Value]) -> float:
    recall = line[RECALL]
    return -recall.mean if isinstance(recall, Cell) else inf


def _own(entry: Entry) -> list[Value]:
    seeds = str(max(len(cell.values) for cell in entry.cells.values()))
    return [entry.model, entry.features, entry.release, seeds, *(entry.cells.get(key, "") for key in HEADLINE)]


def _figures(dataset: str) -> list[published.Figure]:
    found = (row for row in published.figures() if row.dataset == dataset)
    return sorted(found, key=lambda row: -row.cells[MEASURES[HEADLINE.index(MAIN)]])


def _cells(row: published.Figure) -> list[Value]:
    return [Cell(row.cells[m], None, ()) if m in row.cells else "" for m in MEASURES]


def _size(dataset: str) -> str:
    counts = published.sizes().get(dataset)
    return "{:,} users, {:,} items, {:,} interactions".format(*counts) if counts else ""


def _published(dataset: str) -> Section:
    head = ["model", "read in", *(measure(*key) for key in HEADLINE)]
    rows = [[row.model, row.source, *_cells(row)] for row in _figures(dataset)]
    name, size = dataset.title(), _size(dataset)
    table = Table.of(f"{name}, published", "", head, rows, texts=2)
    note = f"{size}, not measured here." if size else "Not measured here."
    return Section(f"published-{dataset}", name, name, note, tables=[table])
