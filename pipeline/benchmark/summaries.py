"""Summaries of table MASK over seeds. Loads no torch, so that reports and release cards can import it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from alignrec.pipeline.encode.params import MODALITIES
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.evidence import Cell, mean_and_sd

RECALL = f"recall@{CUTOFF}"
WHOLE = "nothing"
DIGITS = 6


class Masked(NamedTuple):
    """AlignRec on one feature set with a modality hidden for a share of the items."""

    protocol: str
    fingerprint: str
    features: str
    modality: str  # image or text; WHOLE for the unchanged set
    ratio: float
    recall: Cell  # on test, by seed
    change: Cell | None  # relative to the whole set, seed by seed; None for the whole set, or if its recall is 0

    @property
    def items(self) -> str:
        return "whole" if self.modality == WHOLE else f"{self.modality} of {100 * self.ratio:.4g} % masked"


def summarise_mask(table: pa.Table) -> list[Masked]:
    values: dict[tuple[str, str, str, str, float], dict[int, float]] = {}
    for row in table.to_pylist():
        key = row["protocol"], row["fingerprint"], row["features"], row["modality"], row["ratio"]
        values.setdefault(key, {})[row["seed"]] = row[RECALL]
    rows = []
    for (protocol, fingerprint, features, modality, ratio), recall in values.items():
        whole, change = values[protocol, fingerprint, features, WHOLE, 0.0], None
        if modality != WHOLE and all(whole[seed] for seed in recall):
            change = mean_and_sd([value / whole[seed] - 1 for seed, value in recall.items()])
        rows.append(Masked(protocol, fingerprint, features, modality, ratio, mean_and_sd([*recall.values()]), change))
    return rows


def by_protocol(rows: Sequence[Masked]) -> Iterator[tuple[tuple[str, str], list[Masked]]]:
    for label in dict.fromkeys((row.protocol, row.fingerprint) for row in rows):
        yield label, [row for row in rows if (row.protocol, row.fingerprint) == label]


def mask_metrics(mask: pa.Table) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (protocol, fingerprint), rows in by_protocol(summarise_mask(mask)):
        judged = nested.setdefault(protocol, {"fingerprint": fingerprint})
        for row in rows:
            change = {} if row.change is None else _mean_and_sd("relative_change", row.change)
            judged.setdefault(row.features, {})[row.items] = _mean_and_sd(RECALL, row.recall) | change
    return {"mask_modality": nested}


def mask_points(mask: pa.Table) -> list[dict[str, Any]]:
    read = mask.to_pylist()
    names = dict.fromkeys(row["features"] for row in read)
    # every line starts at the whole set
    rows = [(name, modality, row) for name in names for modality in MODALITIES for row in read
            if row["features"] == name and row["modality"] in (modality, WHOLE)]  # fmt: skip
    several = len({row["protocol"] for row in read}) > 1
    return [
        {"line": f"{name}, {modality} masked" + (f", {row['protocol']}" if several else ""), "ratio": row["ratio"],
         "seed": row["seed"], RECALL: row[RECALL]}
        for name, modality, row in rows
    ]  # fmt: skip


def _mean_and_sd(name: str, figure: Cell) -> dict[str, float]:
    sd = {} if figure.sd is None else {f"{name}_sd": round(figure.sd, DIGITS)}
    return {name: round(figure.mean, DIGITS)} | sd
