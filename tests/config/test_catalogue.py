"""The list of datasets: sizes as counted, else as published, and which are downloaded."""

from pathlib import Path

from rich.console import Console

from pipeline import io
from pipeline.layout import Layout
from pipeline.report.terminal import datasets as table
from stages.params import Params

SOURCES = {
    "baby": {"kind": "amazon2014", "category": "Baby"},
    "books": {"kind": "amazon2023", "category": "Books"},
    "mine": {"kind": "tabular", "interactions": "x.csv"},
}


def test_sizes_are_counted_or_published(tmp_path: Path) -> None:
    counted = {"rows_out": 12345, "notes": {"users": 1000, "items": 7}}
    io.write_json(Layout(tmp_path, "mine").run_record("interactions"), counted)
    io.write_json(Layout(tmp_path, "mine").run_record("download"), {})
    params = Params.model_validate({"datasets": ["mine"], "sources": SOURCES})
    console = Console(width=80, record=True)
    console.print(table(params.sources, tmp_path))
    assert [line.split() for line in console.export_text().splitlines()][2:5] == [
        ["baby", "amazon2014", "Baby", "19,445", "7,050", "160,792"],
        ["books", "amazon2023", "Books"],
        ["mine*", "tabular", "1,000", "7", "12,345"],
    ]
