"""`alignrec leaderboard`: benchmarks of several releases and published figures in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import HEADLINE, Figure, RunFigures
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.report.table import format_figure, markdown, measure_name

RESULTS = "results.json"
PUBLISHED = Path(__file__).with_name("published.json")
MAX_RESULTS_BYTES = 64 << 20  # of results.json
HEAD = (
    *("dataset", "protocol", "fingerprint", "model", "features", "seeds"),
    *(measure_name(*key) for key in HEADLINE),
    "release or source",
)
MEASURED = (
    "Only rows of one fingerprint are comparable. Test figures at the best valid epoch, mean ± sd "
    "where there are several seeds; rows without seeds are published figures, with their source."
)
Name = Annotated[str, Field(max_length=120)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ResultRow(BaseModel):
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

    @property
    def is_compared(self) -> bool:
        """Whether it is a test figure of a whole model at the best validation epoch."""
        return (self.split, self.selected_by, self.ablation) == ("test", "valid", "")


ROWS = TypeAdapter(list[ResultRow])


@dataclass(frozen=True)
class LeaderboardEntry(RunFigures):
    """A run of a release, or a published figure."""

    dataset: str
    protocol: str  # empty if published
    fingerprint: str  # of the protocol and split; empty if unknown
    source: str  # dataset and version of a release, or a citation


def read_entries(folder: Path) -> list[LeaderboardEntry]:
    """Return the test figures of a release at the best validation epoch.

    Raises UserError if it has no benchmark.
    """
    manifest = Release(folder).manifest
    source = f"{manifest.dataset} {manifest.version}"
    entries: dict[tuple[str, ...], LeaderboardEntry] = {}
    for row in read_results(folder, manifest):
        if not row.is_compared:
            continue
        run = (row.model, row.features, "")
        split = (manifest.dataset, row.protocol, row.fingerprint)
        entry = entries.setdefault((*run, *split), LeaderboardEntry(*run, {}, *split, source))
        entry.cells[row.metric, row.k] = Figure(row.mean, row.sd, tuple(row.values))
    return list(entries.values())


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
    """Return published figures with their sources, and fingerprints of their splits."""
    return dict(io.read_json(PUBLISHED))


def published_entries() -> Iterator[LeaderboardEntry]:
    published = read_published()
    fingerprint_of = {dataset: name for name, dataset in published["fingerprints"].items()}
    for row in published["figures"]:
        dataset = row["dataset"]
        cells = {}
        for metric, k in HEADLINE:
            if (name := f"{metric}@{k}") in row:
                cells[metric, k] = Figure(row[name], None, ())
        split = (dataset, "", fingerprint_of.get(dataset, ""))
        yield LeaderboardEntry(
            row["model"], "", "", cells, *split, published["sources"][row["source"]]
        )


def render_leaderboard(releases: Sequence[Sequence[LeaderboardEntry]]) -> str:
    """Return a table in Markdown, comparable rows together and best first, and what to know."""
    entries = [entry for release in releases for entry in release]
    entries += published_entries()
    rows = []
    for entry in sorted(entries, key=_place):
        split = (entry.dataset, entry.protocol, entry.fingerprint)
        figures = [format_figure(entry.cells.get(key)) for key in HEADLINE]
        seeds = str(entry.seeds or "")
        rows.append([*split, entry.model, entry.features, seeds, *figures, entry.source])

    published = read_published()
    notes = [MEASURED, *published["differences"], *published["left_out"]]
    return "\n".join([markdown(HEAD, rows), "", " ".join(notes)])


def _place(entry: LeaderboardEntry) -> tuple[bool, str, str, float]:
    """Return the place in the table: by split, those of unknown ones last, then by Recall@20."""
    known = entry.fingerprint
    return (not known, known, "" if known else entry.dataset, -entry.headline)
