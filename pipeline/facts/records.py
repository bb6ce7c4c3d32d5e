"""What stages recorded of their last run: time, memory, machines, and the rows that they dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.facts.table import Table

TRAINING = ("pretrain", "encode", "train", "probe", "benchmark", "study")
"""stages whose results can depend on the machine"""
Records = Mapping[str, Mapping[str, Any]]
"""stage -> its run.json"""


def drops(records: Records) -> Iterable[Table]:
    """Yield the dropped or incomplete rows of each stage, by reason; nothing where there are none."""
    rows = [[stage, reason, f"{n:,}"] for stage, r in records.items() for reason, n in r["drops"].items()]
    if rows:
        note = "As counted by each stage."
        yield Table("Dropped or incomplete rows", note, ["stage", "reason", "rows"], rows, texts=2)


def speed(records: Records) -> Iterable[Table]:
    """Yield time and memory of every stage; nothing where none ran."""
    if not records:
        return
    kinds = " and ".join(dict.fromkeys(r["machine"] for r in records.values()))
    yield Table(
        "By stage",
        f"As each stage recorded when it last ran, on {kinds}. Peak memory is of the process and its largest child.",
        ["stage", "device", "seconds", "rows in", "rows out", "peak MiB"],
        [
            [stage, r["device"], f"{r['seconds']:.1f}", f"{r['rows_in']:,}", f"{r['rows_out']:,}",
             f"{r['peak_memory_mib']:,}"]
            for stage, r in records.items()
        ],
        texts=2,
    )  # fmt: skip


def hardware(records: Records) -> str:
    """Return the kinds of machine that encoding and training ran on."""
    kinds: dict[str, list[str]] = {}
    for stage in TRAINING:
        if record := records.get(stage):
            kinds.setdefault(f"{record['machine']} ({record['device']})", []).append(stage)
    return "; ".join(f"{', '.join(stages)}: {kind}" for kind, stages in kinds.items())
