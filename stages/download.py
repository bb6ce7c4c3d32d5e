"""download: fetch the raw files of one dataset into outputs/download/<dataset>/ and list them with checksums."""

from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.harness.progress import meter
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import SOURCE, Stage
from alignrec.pipeline.sources.base import SOURCES, Download, Downloaded, Generated

UNAWARE = "dvc.yaml knows no local files, so that DVC would not see them change; run `alignrec new`, which adds them"


def main(run: Run) -> None:
    from alignrec.pipeline.sources import download

    source, raw, params = run.source, run.layout.raw, run.params[Download]
    rows: list[download.Row] = []
    code = SOURCES.source_files(source.kind)
    run.drop_altered(raw)
    if isinstance(source, Generated):
        run.resume(raw, code, source.model_dump())
        rows = download.list_files(raw, source.make(raw, lambda names: run.progress(names, unit="image")), {})
    elif isinstance(source, Downloaded):
        listed = [path for path in (run.layout.sources, run.out / run.layout.sources.name) if path.exists()]
        earlier: list[dict[str, Any]] = io.read_json(listed[0]) if listed else []
        addresses = download.with_copies(source.files(), run.out, earlier)
        run.resume(raw, code, source.model_dump(), download.local_hashes(addresses))
        if download.names_local_files(addresses) and _is_unaware(run.layout.root):
            run.warn(UNAWARE, recorded=False)
        io.write_json(run.layout.sources, earlier)  # the first checksums must survive a failure here
        bars = lambda name: meter(run.progress(unit="B", what=name))  # noqa: E731
        rows = download.download_files(
            run.layout.dataset, addresses, raw, source.sha256, earlier, params.timeout, params.retries, bars
        )
    io.write_json(run.layout.sources, rows)
    run.rows_out = len(rows)
    run.note(bytes=sum(row["bytes"] for row in rows))


def _is_unaware(root: Path) -> bool:
    path = Path("dvc.yaml")
    if root != Path("outputs") or not path.is_file():
        return False
    return "always_changed: true" not in path.read_text(encoding="utf-8", errors="replace")


DOWNLOAD = Stage(
    "download",
    does="raw reviews and metadata, with checksums",
    writes="raw files, `sources.json` (url, bytes, sha256)",
    sections=(SOURCE,),
    params=Download,
    main=main,
    resumes=True,
    loads=(SOURCES,),
)
