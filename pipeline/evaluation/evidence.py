"""Aggregate results for the report and dataset card: means and standard deviations over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.evaluation.cutoff import COLD, CUTOFF

MAIN = ("recall", CUTOFF)
HEADLINE = (("recall", 10), MAIN, ("ndcg", 10), ("ndcg", CUTOFF))
WHOLE = "nothing"  # modality that is hidden in the unchanged feature set
Key = TypeVar("Key")
Value = TypeVar("Value")
KEYS = (
    "model",
    "features",
    "ablation",
    "protocol",
    "fingerprint",
    "split",
    "selected_by",
    "metric",
    "k",
)


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation of a figure over seeds."""

    mean: float
    sd: float | None  # sample standard deviation over seeds; None for one seed
    values: tuple[float, ...]  # one per seed


@dataclass(frozen=True)
class Row:
    """Test figures of a model on a feature set, at its best valid epoch."""

    model: str
    features: str
    ablation: str  # empty for the full model
    cells: dict[tuple[str, int], Cell]  # (metric, k) -> figure

    @property
    def headline(self) -> float:
        return self.cells[MAIN].mean if MAIN in self.cells else 0.0

    @property
    def seeds(self) -> int:
        return max((len(c.values) for c in self.cells.values()), default=0)

    def repeats(self, other: Row) -> bool:
        """Return whether figures are bit-identical for all common seeds."""
        cells = [
            (self.cells[key].values, other.cells[key].values)
            for key in self.cells
            if key in other.cells
        ]
        return bool(cells) and all(a[: len(b)] == b[: len(a)] for a, b in cells)


@dataclass(frozen=True)
class Comparison:
    """Rows of a table, which share a fingerprint."""

    protocol: str
    fingerprint: str
    rows: list[Row]  # sorted by Recall@20, descending

    @property
    def masked(self) -> str:
        return "train and valid" if self.protocol.startswith("strict") else "train"

    @property
    def candidates(self) -> str:
        return (
            "only the cold items of test are" if self.protocol.endswith(COLD) else "every item is"
        )


def figures_by_run(results: pa.Table) -> dict[tuple[Any, ...], Cell]:
    ordered = results.sort_by([(k, "ascending") for k in (*KEYS, "seed")])
    rows = ordered.select([*KEYS, "value"]).to_pylist()  # at most a few thousand rows
    values = group_values((tuple(row[k] for k in KEYS), row["value"]) for row in rows)
    return {key: mean_and_sd(by_seed) for key, by_seed in values.items()}


def group_values(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    values: dict[Key, list[Value]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return values


def seeds_of(counts: Iterable[int]) -> str:
    few, many = min(counts := list(counts)), max(counts)
    return f"{few} to {many} seeds" if few < many else f"{many} seed{'s' * (many > 1)}"


def mean_and_sd(values: list[float]) -> Cell:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(float(np.mean(values)), sd, tuple(values))


def list_comparisons(results: pa.Table) -> list[Comparison]:
    return _compare_runs(results.filter(pc.field("ablation") == ""))


def list_ablations(results: pa.Table) -> list[Comparison]:
    """Return, per fingerprint, ablations and the full model on the same features and seeds."""
    names = [
        f"{m}\t{f}"
        for m, f in zip(results["model"].to_pylist(), results["features"].to_pylist(), strict=True)
    ]
    left_out = pc.not_equal(results["ablation"], "")
    compared = pc.is_in(
        pa.array(names, pa.string()), value_set=pa.array(names, pa.string()).filter(left_out)
    )
    seeds = pc.unique(
        results.filter(left_out)["seed"]
    )  # so that an ablation's effect is the difference of two rows
    return _compare_runs(
        results.filter(pc.and_(compared, pc.is_in(results["seed"], value_set=seeds)))
    )


def _compare_runs(results: pa.Table) -> list[Comparison]:
    groups: dict[tuple[str, str], dict[tuple[str, str, str], dict[tuple[str, int], Cell]]] = {}
    kept = results.filter((pc.field("split") == "test") & (pc.field("selected_by") == "valid"))
    for (
        model,
        features,
        ablation,
        protocol,
        fingerprint,
        _,
        _,
        metric,
        k,
    ), figure in figures_by_run(kept).items():
        rows = groups.setdefault((protocol, fingerprint), {})
        rows.setdefault((model, features, ablation), {})[metric, k] = figure
    return [
        Comparison(
            *key,
            sorted(
                (Row(*run, cells) for run, cells in rows.items()), key=lambda row: -row.headline
            ),
        )
        for key, rows in groups.items()
    ]


class MaskedFigure(NamedTuple):
    """AlignRec on one feature set with a modality hidden for a share of the items."""

    protocol: str
    fingerprint: str
    features: str
    modality: str  # image or text; WHOLE for the unchanged set
    ratio: float
    recall: Cell  # Recall@20 on test
    change: (
        Cell | None
    )  # relative to the full set, per seed; None for the full set, or if its recall is 0

    @property
    def items(self) -> str:
        return (
            "whole"
            if self.modality == WHOLE
            else f"{self.modality} of {100 * self.ratio:.4g} % masked"
        )


def summarise_mask(mask: pa.Table) -> dict[tuple[str, str], list[MaskedFigure]]:
    """Return protocol and fingerprint -> means over seeds of table MASK."""
    values: dict[tuple[str, str, str, str, float], dict[int, float]] = {}
    for row in mask.to_pylist():
        key = row["protocol"], row["fingerprint"], row["features"], row["modality"], row["ratio"]
        values.setdefault(key, {})[row["seed"]] = row[f"recall@{CUTOFF}"]
    rows = []
    for (protocol, fingerprint, features, modality, ratio), recall in values.items():
        whole, change = values[protocol, fingerprint, features, WHOLE, 0.0], None
        if modality != WHOLE and all(whole[seed] for seed in recall):
            change = mean_and_sd([value / whole[seed] - 1 for seed, value in recall.items()])
        rows.append(
            MaskedFigure(
                protocol,
                fingerprint,
                features,
                modality,
                ratio,
                mean_and_sd([*recall.values()]),
                change,
            )
        )
    return group_values(((row.protocol, row.fingerprint), row) for row in rows)


def as_json(results: pa.Table, protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "protocols": {protocol["fingerprint"]: dict(protocol) for protocol in protocols},
        "results": [
            dict(zip(KEYS, key, strict=True))
            | {"mean": c.mean, "sd": c.sd, "values": list(c.values)}
            for key, c in figures_by_run(results).items()
        ],
    }
