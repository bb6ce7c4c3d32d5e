"""`alignrec leaderboard`: benchmarks of any number of releases, and what others published, on one page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import orjson
from pydantic import BaseModel, Field, ValidationError

from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.evidence import HEADLINE, MAIN, Cell, seeds_of
from pipeline.facts import published
from pipeline.facts.chips import BETTER, Chip
from pipeline.facts.table import Table
from pipeline.facts.words import figure, measure, run, short, title
from pipeline.release.read import Release
from pipeline.report import plots
from pipeline.report.gallery import Sheets
from pipeline.report.page import render
from pipeline.report.plots import Section

RESULTS = "results.json"
MAX_BYTES = 64 << 20
"""a larger file of results is refused unread: it comes from anywhere"""
ROWS = 14
"""of a picture"""
PUBLISHED = "published"
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
    """Return the page: a section a data set and protocol, then the published figures, a section a data set."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.dataset, e.protocol, e.fingerprint, -e.recall, e.release)):
        groups.setdefault(entry[:3], []).append(entry)
    names = sorted({figure.dataset for figure in published.figures()})
    sections = [_measured(number, *key, rows) for number, (key, rows) in enumerate(groups.items())]
    sections += [Section(PUBLISHED, "Published", "Published by others", " ".join(published.differences()))]
    sections += [_published(name) for name in names]
    count = len({entry.release for entry in entries})
    return render(
        "compared.html", Sheets([], {}), what="leaderboard", command="leaderboard", dataset="leaderboard",
        title="Leaderboard", kind="", parts=sections, data={}, pairs=[], note="", plot=plots,
        lead=f"{count} release{'s' * (count != 1)}, and what others published. Only rows of one table are comparable.",
        chips=list(_best(groups.values())),
        verdict=[],
    )  # fmt: skip


def _best(groups: Iterable[Sequence[Entry]]) -> Iterable[Chip]:
    for rows in groups:
        first = rows[0]
        if MAIN in first.cells:
            on = f" on {title(first.features)}" if first.features != "none" else ""
            text = f"{first.dataset}: {title(first.model)}{on}, {short(f'{first.recall:.3f}')} {measure(*MAIN)}"
            detail = (
                f"{run(first.model, first.features)} has the highest mean test {measure(*MAIN)} by {first.protocol}"
            )
            yield Chip(text, BETTER, detail)


def _measured(number: int, dataset: str, protocol: str, fingerprint: str, rows: Sequence[Entry]) -> Section:
    """Return the runs of one data set under one protocol: they were judged alike, whatever release they are of."""
    columns = [(c, [e.cells[key].mean if key in e.cells else -1.0 for e in rows]) for c, key in enumerate(HEADLINE)]
    best = frozenset((means.index(max(means)), 4 + c) for c, means in columns)
    table = Table(
        f"{dataset} by {protocol}",
        f"Fingerprint {fingerprint}. Test figures at the best valid epoch, mean ± sd over seeds.",
        ["model", "features", "release", "seeds", *(measure(*key) for key in HEADLINE)],
        [[e.model, e.features, e.release, str(max(len(c.values) for c in e.cells.values())),
          *(figure(e.cells.get(key)) for key in HEADLINE)] for e in rows],
        texts=3, best=best,
    )  # fmt: skip
    shown = [e for e in rows if MAIN in e.cells][:ROWS]
    several = len({e.release for e in rows}) > 1
    drawn = plots.intervals(
        f"Test {measure(*MAIN)}, mean ± sd over {seeds_of(len(e.cells[MAIN].values) for e in shown) if shown else 0}",
        [plots.mean(run(e.model, e.features) + (f", {e.release}" if several else ""), e.cells[MAIN]) for e in shown],
        axis=measure(*MAIN),
    )
    note = f"Protocol {protocol}. All rows have one fingerprint, so they were judged on the same questions."
    return Section(
        f"measured-{number}", f"{dataset} ({protocol})", f"{dataset}, measured", note, [drawn], tables=[table]
    )


def _published(dataset: str) -> Section:
    """Return what others published of one data set."""
    rows = sorted((f for f in published.figures() if f.dataset == dataset), key=lambda f: -f.cells["recall@20"])
    measures = [f"{metric}@{k}" for metric, k in HEADLINE]
    cells = [[f.model, f.source, *(short(f"{f.cells[m]:.4f}") if m in f.cells else "" for m in measures)] for f in rows]
    counts = published.sizes().get(dataset)
    size = "{:,} users, {:,} items, {:,} interactions. ".format(*counts) if counts else ""
    note = f"{size}Not measured here."
    heads = [measure(*key) for key in HEADLINE]
    table = Table(f"{dataset.title()}, published", "", ["model", "read in", *heads], cells, texts=2)
    return Section(f"{PUBLISHED}-{dataset}", dataset.title(), dataset.title(), note, tables=[table])
