"""`alignrec leaderboard`: benchmarks of several releases and published figures on one page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import HEADLINE, Figure, RunFigures
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.contributed import ContributedRun, ResultRow, read_run
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import PageSection
from alignrec.pipeline.report.table import Table, Value, measure_name

RESULTS = "results.json"
PUBLISHED = Path(__file__).with_name("published.json")
MAX_RESULTS_BYTES = 64 << 20  # of results.json
MEASURED = "Test figures at the best valid epoch, mean ± sd where there are several seeds."
FIGURES = [measure_name(*key) for key in HEADLINE]
ROWS = TypeAdapter(list[ResultRow])


@dataclass(frozen=True)
class LeaderboardEntry(RunFigures):
    """A run of a release, or a published figure."""

    source: str  # dataset and version of a release, who ran it and where, or a citation


# dataset, protocol, fingerprint; only entries of one group are comparable
Group = tuple[str, str, str]
Groups = dict[Group, list[LeaderboardEntry]]


def read_entries(path: Path) -> Groups:
    """Return the test figures at the best validation epoch of a release, or of a contributed run, a
    JSON file.

    Raises UserError if a release has no benchmark.
    """
    if path.suffix == ".json":
        return group_run(read_run(path))
    manifest = Release(path).manifest
    rows = read_results(path, manifest)
    return _group_rows(manifest.dataset, rows, f"{manifest.dataset} {manifest.version}")


def group_run(run: ContributedRun) -> Groups:
    return _group_rows(run.dataset, run.results, f"{run.by}, {run.date}: {run.source}")


def _group_rows(dataset: str, rows: Iterable[ResultRow], source: str) -> Groups:
    groups: dict[Group, dict[tuple[str, str], LeaderboardEntry]] = {}
    for row in rows:
        if not row.is_compared:
            continue
        entries = groups.setdefault((dataset, row.protocol, row.fingerprint), {})
        entry = LeaderboardEntry(row.model, row.features, "", {}, source)
        entry = entries.setdefault((row.model, row.features), entry)
        entry.cells[row.metric, row.k] = Figure(row.mean, row.sd, tuple(row.values))
    return {group: list(entries.values()) for group, entries in groups.items()}


def read_results(folder: Path, manifest: Manifest) -> list[ResultRow]:
    """Return the rows of a release's results.json; UserError if it has none or they are damaged."""
    path = folder / RESULTS
    hashes = {file.path: file.sha256 for file in manifest.files}
    if RESULTS not in hashes or not path.is_file():
        raise UserError(
            f"{folder}: no {RESULTS} in this release; publish it after `alignrec benchmark`"
        )
    if path.stat().st_size > MAX_RESULTS_BYTES or io.sha256(path) != hashes[RESULTS]:
        raise UserError(f"{path}: is not the file that the manifest names; fetch the release again")
    try:
        return ROWS.validate_python(orjson.loads(path.read_bytes())["results"])
    except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError) as e:
        fault = str(e).splitlines()[0]
        raise UserError(f"{path}: not results as alignrec writes them; {fault}") from None


@cache
def read_published() -> dict[str, Any]:
    """Return published figures with their sources and protocols, and sizes of splits."""
    return dict(io.read_json(PUBLISHED))


def published_entries(dataset: str) -> list[LeaderboardEntry]:
    published = read_published()
    entries = []
    for row in published["figures"]:
        if row["dataset"] == dataset:
            source = published["sources"][row["source"]]
            entries.append(LeaderboardEntry(row["model"], "", "", _published_cells(row), source))
    return entries


def _published_cells(row: dict[str, Any]) -> dict[tuple[str, int], Figure]:
    cells = {}
    for metric, k in HEADLINE:
        name = f"{metric}@{k}"
        if name in row:
            cells[metric, k] = Figure(row[name], None, ())
    return cells


def render_leaderboard(releases: Sequence[Groups]) -> str:
    groups: Groups = {}
    for release in releases:
        for group, entries in release.items():
            groups.setdefault(group, []).extend(entries)
    published = read_published()
    # published figures join only rows measured with their protocol on their split
    joined = {group: published["fingerprints"].get(group[2], "") for group in groups}

    sections = []
    for number, group in enumerate(sorted(groups)):
        sections.append(_measured_section(number, group, groups[group], joined[group]))
    note = " ".join([*published["differences"], *published["left_out"]])
    sections.append(PageSection("published", "Published", "Published by others", note))
    datasets = {row["dataset"] for row in published["figures"]}
    sections += map(_published_section, sorted(datasets.difference(joined.values())))

    plural = "" if len(releases) == 1 else "s"
    lead = f"{len(releases)} benchmark{plural} and published figures."
    lead += " Only rows of one table are comparable."
    return compared_page("leaderboard", "leaderboard", lead, sections, title="Leaderboard")


def _measured_section(
    number: int, group: Group, entries: list[LeaderboardEntry], published: str
) -> PageSection:
    """Return the section of a group; `published` is the dataset of the figures that join it."""
    dataset, protocol, fingerprint = group
    note = f"Fingerprint {fingerprint}. {MEASURED}"
    if published:
        split = f"this split ({_describe_size(published)})"
        note += f" Rows without seeds are published figures of {split}, with their source."
    rows = [*entries, *published_entries(published)]
    return PageSection(
        f"measured-{number}",
        f"{dataset} ({protocol})",
        f"{dataset}, measured",
        f"Protocol {protocol}.",
        tables=[_entry_table(f"{dataset} by {protocol}", note, rows)],
    )


def _published_section(dataset: str) -> PageSection:
    title = dataset.title()
    size = _describe_size(dataset)
    note = f"{size}, not measured here." if size else "Not measured here."
    table = _entry_table(f"{title}, published", "", published_entries(dataset))
    return PageSection(f"published-{dataset}", title, title, note, tables=[table])


def _entry_table(heading: str, note: str, entries: list[LeaderboardEntry]) -> Table:
    rows: list[list[Value]] = []
    for entry in sorted(entries, key=lambda entry: -entry.headline):
        cells = [entry.cells.get(key, "") for key in HEADLINE]
        rows.append([entry.model, entry.features, entry.source, str(entry.seeds or ""), *cells])
    head = ["model", "features", "release or source", "seeds", *FIGURES]
    filled = [column for column in range(len(head)) if any(row[column] for row in rows)]
    rows = [[row[column] for column in filled] for row in rows]
    head = [head[column] for column in filled]

    texts = sum(column < 3 for column in filled)
    best = [at for at, name in enumerate(head) if name in FIGURES]
    return Table.of(heading, note, head, rows, texts=texts, best=best)


def _describe_size(dataset: str) -> str:
    counts = read_published()["sizes"].get(dataset)
    return "{:,} users, {:,} items, {:,} interactions".format(*counts) if counts else ""
