"""Feature files that came with a source, as `download` stores them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.sources.base import raw_dims, raw_files
from pipeline.sources.feature_files import FEATURE, ROWS, format_of
from pipeline.vectors.matching import Matched, match


class File(NamedTuple):
    """A feature file."""

    path: Path
    order: Path | None = None  # mapping file for a format without identifiers; None: row i is item i
    dim: int | None = None  # numbers of a row of raw float32

    @property
    def format(self) -> str:
        return format_of(self.path.name, self.dim)

    def matched(self, asins: Sequence[str]) -> Matched:
        return match(self.path, asins, self.order, self.dim, ROWS)


def files(sources: Path) -> dict[str, File]:
    raw, dims = raw_files(sources), raw_dims(sources)
    given = {role: path for role, path in raw.items() if role.startswith(FEATURE)}
    return {role.removeprefix(FEATURE): File(path, raw.get(ROWS), dims.get(role)) for role, path in given.items()}


def check(found: Mapping[str, File], asins: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return feature set -> counts of its file, for run.json; UserError if a file does not fit."""
    facts: dict[str, dict[str, Any]] = {}
    for name, file in found.items():
        matched = file.matched(asins)
        counts = {"rows": matched.vectors.count, "width": matched.vectors.width, "matched": matched.how}
        more = {"rows_of_no_item": matched.unknown, "items_without_a_row": matched.missing, "such_as": matched.example}
        facts[name] = counts | {key: value for key, value in more.items() if value}
    return facts
