"""The article's argument: wrong content, what each loss of AlignRec prevents, joint or staged training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.evaluation.evidence import Cell, cell
from pipeline.evaluation.statistics import LEVEL
from pipeline.probe.registry import PROBES
from pipeline.report import words
from pipeline.report.difference import FLOORED, Difference
from pipeline.report.table import CHANGE, Table, mean
from pipeline.report.words import figure, measure, spread
from pipeline.study.summaries import WHOLE

Row = Mapping[str, Any]
PROBED = ("zero_shot", "item_cf", "content_knn")  # probes of table JOINT
SPOILT = {"image": "another item's image", "text": "another item's text", "noise": "noise"}  # what is wrong, in words


class Shape(NamedTuple):
    """A column of table GEOMETRY."""

    column: str
    name: str
    form: str = ".4f"


SHAPES = (
    Shape("recall@20", "valid Recall@20"),
    Shape("id_rank", "effective rank, ID", ".1f"),
    Shape("content_rank", "effective rank, content", ".1f"),
    Shape("id_energy", "energy in one direction, ID"),
    Shape("content_energy", "energy in one direction, content"),
    Shape("content_id", "cosine of content and ID"),
    Shape("user_item", "cosine of user and item"),
    Shape("kept", "likeness of content to features"),
)


def content(row: Row) -> str:
    return "whole" if row["what"] == WHOLE else f"{SPOILT[row['what']]}, {100 * row['ratio']:.4g} %"


def by_fingerprint(table: pa.Table) -> Iterator[list[Row]]:
    rows = table.to_pylist()
    for fingerprint in dict.fromkeys(row["fingerprint"] for row in rows):
        yield [row for row in rows if row["fingerprint"] == fingerprint]


def wrong(table: pa.Table) -> list[Table]:
    return [
        Table.of(
            "Wrong content",
            f"{words.protocol(rows[0])} Retrained with wrong content for a share of the items. Figures: "
            f"{spread(row['seeds'] for row in rows)}. The change is against the same model on the whole set, its "
            f"interval (95 %) over {rows[0]['n']:,} users, p Holm's; below {LEVEL} it is marked. {FLOORED}",
            ["model", "features", "content", measure("recall", rows[0]["k"]), *CHANGE],
            [[row["model"], row["features"], content(row), mean(row), Difference.if_any(row)] for row in rows],
            texts=3,
        )
        for rows in by_fingerprint(table)
    ]


def shapes(table: pa.Table) -> dict[str, dict[str, dict[int, Cell]]]:
    rows = table.to_pylist()
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        for column, *_ in SHAPES:
            line = values.setdefault(column, {}).setdefault(left_out(row["without"]), {})
            line.setdefault(row["epoch"], []).append(row[column])
    return {
        column: {name: {epoch: cell(each) for epoch, each in line.items()} for name, line in lines.items()}
        for column, lines in values.items()
    }


def left_out(weight: str) -> str:
    """Return what a training is without, in words."""
    return "AlignRec" if weight == WHOLE else f"without {weight.upper()}"


def geometry(table: pa.Table) -> list[Table]:
    found = shapes(table)
    if not found:
        return []
    recall = found[SHAPES[0].column]
    last = {name: max(line) for name, line in recall.items()}
    row = table.slice(0, 1).to_pylist()[0]
    over = spread(len(one.values) for line in recall.values() for one in line.values())
    return [
        Table(
            "What each loss prevents",
            f"{words.protocol(row)} {row['features']}, trained to the last epoch without stopping; the shape of the "
            f"item vectors after it, {over}. Rank is of the centred vectors, energy of the "
            "others. Likeness is linear CKA with the features as given. Valid recall is also that of the best epoch.",
            ["loss", "best " + SHAPES[0].name, *(shape.name for shape in SHAPES)],
            [
                [name, figure(max(recall[name].values(), key=lambda one: one.mean)),
                 *(figure(found[column][name][end], form) for column, _, form in SHAPES)]
                for name, end in last.items()
            ],
        )
    ]  # fmt: skip


def trained(row: Row) -> str:
    return f"{row['variant']}, encoder's rate x {row['rate']:g}" if row["rate"] else str(row["variant"])


def joint(table: pa.Table) -> list[Table]:
    return [_joint(rows) for rows in by_fingerprint(table)]


def _joint(rows: Sequence[Row]) -> Table:
    return Table.of(
        "Joint or staged",
        f"{words.protocol(rows[0])} Staged: AlignRec on CLS of the pre-trained encoder. Joint: its losses train the "
        "encoder too, from the weights that pre-training starts from. Figures: "
        f"{spread(row['seeds'] for row in rows)}. The change is against staged, its interval (95 %) over "
        f"{rows[0]['n']:,} users, p Holm's; below {LEVEL} it is marked. Probes: hit@20 of the encoder's processed "
        "features at the best epoch.",
        ["training", measure("recall", rows[0]["k"]), *CHANGE,
         *(PROBES[name].name for name in PROBED), "best epoch"],
        [
            [trained(row), mean(row), Difference.if_any(row),
             *("" if row[name] is None else f"{row[name]:.4f}" for name in PROBED), f"{row['best_epoch']:.1f}"]
            for row in rows
        ],
    )  # fmt: skip


def lines(epochs: pa.Table, figure: str) -> dict[str, dict[float, Cell]]:
    found: dict[str, dict[int, list[Row]]] = {}
    for row in epochs.to_pylist():
        if row[figure] is not None:
            found.setdefault(trained(row), {}).setdefault(row["epoch"], []).append(row)
    return {
        name: {float(epoch): cell([row[figure] for row in rows]) for epoch, rows in line.items()}
        for name, line in found.items()
    }
