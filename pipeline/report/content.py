"""Content and gaps of items, and the stages' records: time, memory, machines, dropped rows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline.encode.quality import text_shares
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.report.table import Table

REASONS = 20  # reasons listed, most frequent first
TRAINING = ("pretrain", "encode", "train", "probe", "benchmark", "study")  # stages with machine-dependent results
States = Counter[tuple[str | None, str]]  # (status of image, status of text) -> items
Records = Mapping[str, Mapping[str, Any]]  # stage -> its run.json


def item_titles(items: pa.Table) -> list[str]:
    return [title or asin for title, asin in zip(*(items[c].to_pylist() for c in ("title", "asin")), strict=True)]


def category_paths(items: pa.Table) -> list[str]:
    return [" › ".join(path) for path in items["categories"].to_pylist()]


def quality_table(what: str, status: pa.ChunkedArray, reason: pa.ChunkedArray, note: str) -> Table:
    counted = Counter(zip(status.to_pylist(), reason.to_pylist(), strict=True)).items()
    most = sorted(counted, key=lambda one: (-one[1], one[0]))[:REASONS]
    rows = [[*words, *_count_and_share(n, len(status))] for words, n in most]
    return Table(what, note, ["status", "reason", "items", "share"], rows, texts=2)


def count_states(items: Iterable[pa.Table]) -> States:
    counted = Counter[tuple[str | None, str]]()
    for part in items:
        for row in part.group_by(["image_status", "text_status"]).aggregate([([], "count_all")]).to_pylist():
            counted[row["image_status"], row["text_status"]] += row["count_all"]
    return counted


def gap_rows(states: States) -> list[list[str]]:
    rows = []
    for place, what in enumerate(("image", "text")):
        of = Counter[str]()
        for state, n in states.items():
            if (status := state[place]) not in (None, "ok"):
                of[str(status)] += n
        counted = sorted(of.items(), key=lambda one: (-one[1], one[0]))
        rows += [[what, status, *_count_and_share(n, states.total())] for status, n in counted]
    return rows


def count_incomplete(states: States) -> dict[str, str]:
    lacking: dict[str, str] = {}
    for what, places in {"image": (0,), "text": (1,), "either": (0, 1)}.items():
        absent = sum(n for state, n in states.items() if all(state[place] != "ok" for place in places))
        count, share = _count_and_share(absent, max(states.total(), 1))
        lacking[what] = f"{count} ({share})"
    return lacking


def coverage_rows(features: Mapping[str, list[Path]]) -> list[list[Any]]:
    """Return rows of name, width and four shares: items with image, with text, tokens encoded, truncated texts."""
    rows = []
    for name, files in features.items():
        flags = pa.concat_tables(
            [pq.read_table(p, columns=["has_image", "has_text"], partitioning=None) for p in files]
        )
        shares = (pc.mean(flags[column]).as_py() for column in ("has_image", "has_text"))
        read = text_shares(files) or (None, None)
        width = pq.read_schema(files[0]).field("vector").type.list_size
        rows.append([name, width, *("" if share is None else f"{share:.1%}" for share in (*shares, *read))])
    return rows


def _count_and_share(n: int, of: int) -> tuple[str, str]:
    return f"{n:,}", f"{n / of:.1%}"


def drop_tables(records: Records) -> Iterable[Table]:
    rows = [[stage, reason, f"{n:,}"] for stage, r in records.items() for reason, n in r["drops"].items()]
    if rows:
        note = "As counted by each stage."
        yield Table("Dropped or incomplete rows", note, ["stage", "reason", "rows"], rows, texts=2)


def describe_hardware(records: Records) -> str:
    ran = [(records[stage], stage) for stage in TRAINING if records.get(stage)]
    kinds = group_values((f"{record['machine']} ({record['device']})", stage) for record, stage in ran)
    return "; ".join(f"{', '.join(stages)}: {kind}" for kind, stages in kinds.items())
