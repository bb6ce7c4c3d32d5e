"""`alignrec leaderboard`: benchmarks of any number of releases, and what others published, on one page."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Annotated, NamedTuple

import orjson
from pydantic import BaseModel, Field, ValidationError

from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.evidence import HEADLINE, MAIN, Cell
from pipeline.facts import published
from pipeline.facts.table import Table, Value
from pipeline.facts.words import measure, run, short, spread, title
from pipeline.release.read import Release
from pipeline.report import plots
from pipeline.report.page import sides
from pipeline.report.plots import Section

RESULTS = "results.json"
MAX_BYTES = 64 << 20
"""a larger file of results is refused unread: it comes from anywhere"""
ROWS = 14
"""of a picture"""
PUBLISHED = "published"
RECALL = 4 + HEADLINE.index(MAIN)
"""column that rows are sorted by"""
MEASURES = [f"{metric}@{k}" for metric, k in HEADLINE]
"""names of published figures"""
Name = Annotated[str, Field(max_length=120)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rows = dict[tuple[str, int], Cell]
"""metric, k -> figure"""


class Result(BaseModel):
    """A row of results.json."""

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
    """results.json, as far as it is read."""

    results: list[Result]


class Entry(NamedTuple):
    """A run of a release."""

    dataset: str
    protocol: str
    fingerprint: str
    release: str
    """data set and version"""
    model: str
    features: str
    cells: Rows

    @property
    def recall(self) -> float:
        """What rows are sorted by."""
        return self.cells[MAIN].mean if MAIN in self.cells else -1.0


def read(folder: Path) -> list[Entry]:
    """Return the runs of a release: test figures at the best valid epoch, without ablations.

    Raises:
        UserError: it is no release, has no benchmark, or its file of results is not the manifest's.
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
    found: dict[tuple[str, str, str, str], Rows] = {}
    for row in rows:
        if (row.split, row.selected_by, row.ablation) == ("test", "valid", ""):
            run_of = found.setdefault((row.protocol, row.fingerprint, row.model, row.features), {})
            run_of[row.metric, row.k] = Cell(row.mean, row.sd, tuple(row.values))
    name = f"{manifest.dataset} {manifest.version}"
    return [Entry(manifest.dataset, key[0], key[1], name, key[2], key[3], cells) for key, cells in found.items()]


def html(entries: Sequence[Entry]) -> str:
    """Return the page: a section a data set and protocol, then the published figures, a section a data set.

    Published figures join the rows that were measured under their protocol on their split, and no others.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.dataset, e.protocol, e.fingerprint, -e.recall, e.release)):
        groups.setdefault(entry[:3], []).append(entry)
    alike = {key: published.fingerprints().get(key[2], "") for key in groups}
    names = sorted({figure.dataset for figure in published.figures()} - {*alike.values()})
    sections = [_measured(number, *key, rows, alike[key]) for number, (key, rows) in enumerate(groups.items())]
    note = " ".join([*published.differences(), *published.left_out()])
    sections += [Section(PUBLISHED, "Published", "Published by others", note)]
    sections += [_published(name) for name in names]
    count = len({entry.release for entry in entries})
    lead = f"{count} release{'s' * (count != 1)}, and what others published. Only rows of one table are comparable."
    best = [_first(rows[0]) for rows in groups.values() if MAIN in rows[0].cells]
    said = f"Highest test {measure(*MAIN)} {'; '.join(best)}." if best else ""
    return sides("leaderboard", "leaderboard", lead, sections, title="Leaderboard", headline=said)


def _first(entry: Entry) -> str:
    on = f" on {title(entry.features)}" if entry.features != "none" else ""
    mean = short(f"{entry.recall:.3f}")
    return f"on {entry.dataset} ({entry.protocol}): {title(entry.model)}{on}, {mean}"


def _measured(number: int, dataset: str, protocol: str, fingerprint: str, rows: Sequence[Entry], alike: str) -> Section:
    """Return the runs of one data set under one protocol: they were judged alike, whatever release they are of.

    `alike` is the data set whose published figures are of this protocol and split; empty if there is none.
    """
    lines = [*map(_own, rows), *([row.model, "", row.source, "", *_cells(row)] for row in _figures(alike))]
    note = f"Fingerprint {fingerprint}. Test figures at the best valid epoch, mean ± sd where there are several seeds."
    if alike:
        note += f" Rows without seeds are published figures of this split ({_size(alike)[:-2]}), with their source."
    table = Table.of(
        f"{dataset} by {protocol}",
        note,
        ["model", "features", f"release{' or source' if alike else ''}", "seeds", *(measure(*key) for key in HEADLINE)],
        sorted(lines, key=_worst_last),
        texts=3,
        best=range(4, 4 + len(HEADLINE)),
    )
    shown = [e for e in rows if MAIN in e.cells][:ROWS]
    several = len({e.release for e in rows}) > 1
    drawn = plots.intervals(
        f"Test {measure(*MAIN)}, {spread(len(e.cells[MAIN].values) for e in shown) if shown else ''}",
        [plots.mean(run(e.model, e.features) + (f", {e.release}" if several else ""), e.cells[MAIN]) for e in shown],
        axis=measure(*MAIN),
    )
    said = f"Protocol {protocol}. All rows have one fingerprint, so they were judged on the same questions."
    return Section(
        f"measured-{number}", f"{dataset} ({protocol})", f"{dataset}, measured", said, [drawn], tables=[table]
    )


def _worst_last(line: Sequence[Value]) -> float:
    recall = line[RECALL]
    return -recall.mean if isinstance(recall, Cell) else inf


def _own(entry: Entry) -> list[Value]:
    seeds = str(max(len(cell.values) for cell in entry.cells.values()))
    return [entry.model, entry.features, entry.release, seeds, *(entry.cells.get(key, "") for key in HEADLINE)]


def _figures(dataset: str) -> list[published.Figure]:
    """Return published figures of one data set, best first."""
    found = (row for row in published.figures() if row.dataset == dataset)
    return sorted(found, key=lambda row: -row.cells[MEASURES[HEADLINE.index(MAIN)]])


def _cells(row: published.Figure) -> list[Value]:
    return [Cell(row.cells[m], None, ()) if m in row.cells else "" for m in MEASURES]


def _size(dataset: str) -> str:
    """Return the size of a data set with a comma after it; nothing where it is not known."""
    counts = published.sizes().get(dataset)
    return "{:,} users, {:,} items, {:,} interactions, ".format(*counts) if counts else ""


def _published(dataset: str) -> Section:
    """Return what others published of one data set."""
    head = ["model", "read in", *(measure(*key) for key in HEADLINE)]
    rows = [[row.model, row.source, *_cells(row)] for row in _figures(dataset)]
    table = Table.of(f"{dataset.title()}, published", "", head, rows, texts=2)
    note = f"{_size(dataset)}not measured here."
    return Section(
        f"{PUBLISHED}-{dataset}", dataset.title(), dataset.title(), note[0].upper() + note[1:], tables=[table]
    )
