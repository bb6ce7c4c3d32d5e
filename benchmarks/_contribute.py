"""Write the test figures of a release as a file of results/, for others to compare with.

python -m benchmarks._contribute release --by "Jane Doe" --source https://example.org/run --to results/NAME.json
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import HEADLINE
from alignrec.pipeline.release.contributed import ContributedRun
from alignrec.pipeline.release.leaderboard import read_results
from alignrec.pipeline.release.manifest import MANIFEST_FILE
from alignrec.pipeline.release.read import Release


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="contribute", description=__doc__.partition("\n")[0])
    parser.add_argument("release", type=Path)
    parser.add_argument("--by", required=True, help="who ran it")
    parser.add_argument("--source", required=True, help="address of its code, log or article")
    parser.add_argument("--to", type=Path, required=True)
    own = parser.parse_args(arguments)
    run = make_run(own.release, own.by, own.source, datetime.date.today())
    io.write_json(own.to, run.model_dump(mode="json"))


def make_run(folder: Path, by: str, source: str, date: datetime.date) -> ContributedRun:
    """Return the headline figures of a release on test, as a run that others can compare with."""
    release = Release(folder).verify()
    rows = read_results(folder, release.manifest)
    return ContributedRun(
        dataset=release.manifest.dataset,
        by=by,
        date=date,
        source=source,
        release=io.sha256(folder / MANIFEST_FILE),
        results=[row for row in rows if row.is_compared and (row.metric, row.k) in HEADLINE],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
