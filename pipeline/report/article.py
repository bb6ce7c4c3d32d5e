"""The article's tables of a run, which git keeps and docs/study.md shows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.evidence import seeds_of
from pipeline.report import recommenders, study, tail
from pipeline.report.difference import Difference
from pipeline.report.outputs import Outputs
from pipeline.report.table import Table
from pipeline.report.words import labelled, protocol, short

PARTS = ("ablation", "mask", "tail", "hyper-parameters")


def tables(outputs: Outputs) -> dict[str, list[Table]]:
    mask, leads = (outputs.study.get(part, schemas.STUDY[part].empty_table()) for part in ("mask", "tail"))
    found: dict[str, Iterable[Table]] = {
        "ablation": (
            recommenders.ablations(list(recommenders.ablated(comparison, outputs.tests))).under(label)
            for comparison, label in labelled(outputs.ablated)
        ),
        "mask": study.masked(mask),
        "tail": _leads(leads),
        "hyper-parameters": [
            *study.sweep_points(outputs.plotted("curves")), *study.heatmaps(outputs.plotted("heatmaps"))
        ],
    }  # fmt: skip
    return {part: several for part in PARTS if (several := list(found[part]))}


def kept(table: Table) -> dict[str, Any]:
    rows = [[short(cell) for cell in row] for row in table.rows]
    for row, column in table.marks:
        rows[row][column] = f"**{rows[row][column]}**"
    return {"heading": table.heading, "note": short(table.note), "head": list(table.head), "rows": rows}


def _leads(table: pa.Table) -> Iterator[Table]:
    for rows in tail.parts(table):
        if tested := [row for row in rows if row["difference"] is not None]:
            note = (
                f"{protocol(rows[0])} What AlignRec on the released features has more, Recall@{rows[0]['k']} on test, "
                f"mean over {seeds_of(row['seeds'] for row in tested)}; * p below .05 by Holm's correction of these "
                "tests."
            )
            yield tail.by_group(f"AlignRec's lead by {rows[0]['slice']}", note, tested, _lead, marked=False)


def _lead(row: Mapping[str, Any]) -> str:
    test = Difference.if_any(row)
    return f"{row['difference']:+.4f}" + ("*" if test is not None and test.sure else "")
