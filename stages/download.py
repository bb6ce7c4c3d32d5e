"""download: bring the raw files of one dataset into outputs/download/<dataset>/ and list them with checksums."""

from __future__ import annotations

from pipeline import download, io
from pipeline.config import SampleSource
from pipeline.readers import READERS
from pipeline.run import Run
from pipeline.sources import sample


def main(run: Run) -> None:
    """Write the raw files and sources.json."""
    source, raw, params = run.source, run.layout.raw, run.params.download
    if isinstance(source, SampleSource):
        addresses: dict[str, str] = {}
        run.resume(raw, [], source.model_dump())
        stored = sample.make(source, raw, lambda codes: run.progress(codes, unit="picture"))
    else:
        addresses = READERS[source.kind].files(source)
        meter = lambda name: download.meter(run.progress(unit="B", what=name))  # noqa: E731
        run.resume(raw, download.local_files(addresses.values()), source.model_dump())
        stored = download.download(addresses, raw, params.timeout, params.retries, meter)
    rows = download.listing(raw, stored, addresses)
    io.write_json(run.layout.sources, rows)
    run.rows_out = len(rows)
    run.note(bytes=sum(row["bytes"] for row in rows))
