"""`alignrec leaderboard`: benchmarks of several releases and published figures on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import HEADLINE, Figure, RunFigures
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.report.page import compared_page
from alignrec.pipeline.report.sections import Section
from alignrec.pipeline.report.table import Table, Value, measure_name

RESULTS = "results.json"
PUBLISHED = Path(__file__).with_name("published.json")
MAX_BYTES = 64 << 20
MEASURED = "Test figures at the best valid epoch, mean ± sd where there are several seeds."
FIGURES = [measure_name(*key) for key in HEADLINE]
Name = Annotated[str, Field(max_length=120)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Result(BaseModel):
    """The fields of a row of results.json that the leaderboard reads."""

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


ROWS = TypeAdapter(list[Result])


@dataclass(frozen=True)
class Entry(RunFigures):
    """A run of a release, or a published figure."""

    source: str  # dataset and version of a release, or a citation


Group = tuple[
    str, str, str
]  # dataset, protocol, fingerprint; only entries of one group are comparable


def read_entries(folder: Path) -> dict[Group, list[Entry]]:
    """Return a release's test figures at the best validation epoch; raises UserError if it has no benchmark."""
    manifest = Release(folder).manifest
    listed, path = (
        next((file for file in manifest.files if file.path == RESULTS), None),
        folder / RESULTS,
    )
    if listed is None or not path.is_file():
        raise UserError(
            f"{folder}: no {RESULTS} in this release; publish it after `alignrec benchmark`"
        )
    if path.stat().st_size > MAX_BYTES or io.sha256(path) != listed.sha256:
        raise UserError(f"{path}: is not the file that the manifest names; fetch the release again")
    try:
        rows = ROWS.validate_python(orjson.loads(path.read_bytes())["results"])
    except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError) as e:
        raise UserError(
            f"{path}: not results as alignrec writes them; {str(e).splitlines()[0]}"
        ) from None
    source, found = (
        f"{manifest.dataset} {manifest.version}",
        dict[Group, dict[tuple[str, str], Entry]](),
    )
    for row in rows:
        if (row.split, row.selected_by, row.ablation) == ("test", "valid", ""):
            entries = found.setdefault((manifest.dataset, row.protocol, row.fingerprint), {})
            entry = entries.setdefault(
                (row.model, row.features), Entry(row.model, row.features, "", {}, source)
            )
            entry.cells[row.metric, row.k] = Figure(row.mean, row.sd, tuple(row.values))
    return {group: [*entries.values()] for group, entries in found.items()}


@cache
def read_published() -> dict[str, Any]:
    """Return published figures with their sources and differences in protocol, and sizes and fingerprints of splits."""
    return dict(io.read_json(PUBLISHED))


def published_entries(dataset: str) -> list[Entry]:
    published, names = read_published(), {key: f"{key[0]}@{key[1]}" for key in HEADLINE}
    entries = []
    for row in (row for row in published["figures"] if row["dataset"] == dataset):
        cells = {key: Figure(row[name], None, ()) for key, name in names.items() if name in row}
        entries.append(Entry(row["model"], "", "", cells, published["sources"][row["source"]]))
    return entries


def render_leaderboard(releases: Sequence[dict[Group, list[Entry]]]) -> str:
    groups: dict[Group, list[Entry]] = {}
    for group, entries in (pair for release in releases for pair in release.items()):
        groups.setdefault(group, []).extend(entries)
    published = read_published()
    # published figures join only rows measured with their protocol on their split
    alike = {group: published["fingerprints"].get(group[2], "") for group in groups}
    sections = []
    for number, (group, entries) in enumerate(sorted(groups.items())):
        dataset, protocol, fingerprint = group
        note, known = f"Fingerprint {fingerprint}. {MEASURED}", alike[group]
        if known:
            size = _describe_size(known)
            note += f" Rows without seeds are published figures of this split ({size}), with their source."
        table = _entry_table(
            f"{dataset} by {protocol}", note, [*entries, *published_entries(known)]
        )
        title, rule = f"{dataset} ({protocol})", f"Protocol {protocol}."
        sections.append(
            Section(f"measured-{number}", title, f"{dataset}, measured", rule, tables=[table])
        )
    note = " ".join([*published["differences"], *published["left_out"]])
    sections.append(Section("published", "Published", "Published by others", note))
    for dataset in sorted({row["dataset"] for row in published["figures"]} - {*alike.values()}):
        name, size = dataset.title(), _describe_size(dataset)
        note = f"{size}, not measured here." if size else "Not measured here."
        table = _entry_table(f"{name}, published", "", published_entries(dataset))
        sections.append(Section(f"published-{dataset}", name, name, note, tables=[table]))
    count = len(releases)
    lead = f"{count} release{'s' * (count != 1)} and published figures. Only rows of one table are comparable."
    return compared_page("leaderboard", "leaderboard", lead, sections, title="Leaderboard")


def _entry_table(heading: str, note: str, entries: list[Entry]) -> Table:
    rows: list[list[Value]] = [
        [
            e.model,
            e.features,
            e.source,
            str(e.seeds or ""),
            *(e.cells.get(key, "") for key in HEADLINE),
        ]
        for e in sorted(entries, key=lambda entry: -entry.headline)
    ]
    head = ["model", "features", "release or source", "seeds", *FIGURES]
    return Table.of(heading, note, head, rows, texts=3, best=range(4, len(head)))


def _describe_size(dataset: str) -> str:
    counts = read_published()["sizes"].get(dataset)
    return "{:,} users, {:,} items, {:,} interactions".format(*counts) if counts else ""
