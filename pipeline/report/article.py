"""The article's tables of a run, which git keeps and docs/study.md shows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

import schemas
from pipeline.evaluation.evidence import MAIN, seeds_of
from pipeline.models import RELEASED
from pipeline.report import probes, recommenders, study, tail
from pipeline.report.argument import PROBED
from pipeline.report.difference import Difference
from pipeline.report.outputs import Outputs
from pipeline.report.table import Table
from pipeline.report.words import RECALL, figure, labelled, protocol, short, spread

PARTS = ("ablation", "mask", "tail", "hyper-parameters", "clip")


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
        "clip": _clip(outputs),
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


def _clip(outputs: Outputs) -> Iterator[Table]:
    if not outputs.compared or outputs.probes is None:
        return
    comparison, asked = outputs.compared[0], probes.read(outputs.probes)
    rows = {row.features: row for row in comparison.rows if row.model == RELEASED and not row.ablation}
    names = [name for name in rows if name.split("-")[0] in ("beit3", "clip")]
    if not any(name.startswith("clip") for name in names):
        return
    shown = [asked[key] for key in PROBED if key in asked]
    figures = [probe.of("raw", probe.probe.figure) for probe in shown]
    yield Table(
        "CLIP and BEiT3",
        f"Probes of the features as they are, and test {RECALL} of AlignRec, "
        f"{spread(row.seeds for row in rows.values())}; protocol {comparison.protocol}, {comparison.fingerprint}.",
        ["features", *(probe.name for probe in shown), RECALL],
        [
            [name, *(f"{of[name]:.3f}" if name in of else "" for of in figures), figure(rows[name].cells.get(MAIN))]
            for name in names
        ],
    )
