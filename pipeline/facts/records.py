"""What stages recorded of their last run: time, memory, machines, and the rows that they dropped."""

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


def cost(records: Records) -> Iterable[Table]:
    """Yield what a million items would cost to encode as they were here; nothing where no network encoded."""
    record = records.get("encode", {})
    rated = {name: facts["items_per_s"] for name, facts in record.get("notes", {}).items()
             if isinstance(facts, Mapping) and facts.get("items_per_s")}  # fmt: skip
    if not rated or "watts" not in record["params"]:
        return
    watts, dollars = record["params"]["watts"], record["params"]["dollars"]
    hours = {name: 1e6 / rate / 3600 for name, rate in rated.items()}
    yield Table(
        "Encoding a million items",
        f"From the rate of this run's {record['rows_in']:,} items, loading aside, on {record['machine']}. The prices "
        f"are stated, not measured: {watts:g} W (`encode.watts`) and {dollars:g} dollars an hour (`encode.dollars`).",
        ["features", "items a second", "hours", "watt-hours", "dollars"],
        [[name, f"{rated[name]:,.0f}", f"{h:.2f}", f"{h * watts:,.0f}", f"{h * dollars:.2f}"]
         for name, h in hours.items()],
    )  # fmt: skip


def hardware(records: Records) -> str:
    """Return the kinds of machine that encoding and training ran on."""
    kinds: dict[str, list[str]] = {}
    for stage in TRAINING:
        if record := records.get(stage):
            kinds.setdefault(f"{record['machine']} ({record['device']})", []).append(stage)
    return "; ".join(f"{', '.join(stages)}: {kind}" for kind, stages in kinds.items())
