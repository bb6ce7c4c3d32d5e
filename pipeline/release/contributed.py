"""Benchmark runs that others contribute to results/, a JSON file per run.

schemas/result.schema.json is the JSON Schema of `ContributedRun`.
"""

import datetime
import json
import math
import statistics
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import MAIN
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import Sha256
from alignrec.pipeline.runtime.section import Part, first_fault

MAX_RUN_BYTES = 4 << 20
ROUNDING = 1e-4  # of figures with four decimals
Name = Annotated[str, Field(max_length=120)]
Given = Annotated[str, Field(min_length=1, max_length=120)]
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


class ContributedRun(Part):
    """Test figures of a benchmark run on one dataset, split and protocol."""

    dataset: Given
    by: Given
    """who ran it"""
    date: Annotated[datetime.date, Field(strict=False)]  # JSON has it as text
    source: Annotated[str, Field(min_length=1, max_length=300)]
    """address or citation of the code, log or article of the run"""
    release: Sha256 | None = None
    """sha256 of manifest.json of the release with these rows; null if there is none"""
    results: Annotated[list[ResultRow], Field(min_length=1, max_length=10_000)]
    """rows of results.json of a release: test figures, selected by validation"""

    @model_validator(mode="after")
    def _refuse_inconsistent_rows(self) -> Self:
        first = self.results[0]
        runs: dict[tuple[str, str], set[tuple[str, int]]] = {}
        for number, row in enumerate(self.results):
            fault = _find_fault(row)
            metrics = runs.setdefault((row.model, row.features), set())
            if (row.metric, row.k) in metrics:
                fault = "repeats an earlier row"
            if (row.protocol, row.fingerprint) != (first.protocol, first.fingerprint):
                fault = "is of another protocol than row 0; write a file per protocol"
            if fault:
                raise ValueError(f"row {number} of results {fault}")
            metrics.add((row.metric, row.k))

        for (model, features), metrics in runs.items():
            if MAIN not in metrics:
                raise ValueError(f"{model} on {features} has no {MAIN[0]} at {MAIN[1]}")
        return self


def _find_fault(row: ResultRow) -> str:
    """Return what is wrong with a row; empty if nothing is."""
    if not row.is_compared:
        return "is no test figure of a whole model, selected by valid"
    if not all((row.model, row.features, row.protocol, row.fingerprint)):
        return "names no model, features, protocol or fingerprint"
    if row.k < 1:
        return "has a cutoff below 1"
    if not row.values:
        return "has no values, one per seed"
    if min(row.values) < 0 or max(row.values) > 1:
        return "has a value outside 0 to 1"
    if not math.isclose(row.mean, statistics.fmean(row.values), abs_tol=ROUNDING):
        return "has a mean that is not that of its values"
    return "" if _has_spread(row) else "has an sd that is not that of its values"


def _has_spread(row: ResultRow) -> bool:
    if len(row.values) == 1:
        return row.sd is None
    spread = statistics.stdev(row.values)
    return row.sd is not None and math.isclose(row.sd, spread, abs_tol=ROUNDING)


def read_run(path: Path) -> ContributedRun:
    """Read a contributed file; UserError names its first fault."""
    content = io.read_json(path, MAX_RUN_BYTES)
    try:
        return ContributedRun.model_validate(content)
    except ValidationError as e:
        raise UserError(f"{path}: {_describe_fault(e)}; see docs/results.md") from None


def _describe_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # of the whole, whose content would be long
        return str(first["msg"]).removeprefix("Value error, ")
    return first_fault(error, ContributedRun)


def read_runs(folder: Path) -> list[ContributedRun]:
    """Read all runs of a folder, in the order of their files' names."""
    return [read_run(path) for path in io.list_plain(folder, "*.json")]


def schema_json() -> str:
    return json.dumps(ContributedRun.model_json_schema(), indent=1) + "\n"
