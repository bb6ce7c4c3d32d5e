"""Aggregate results for the report and dataset card: means and standard deviations over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.models.cutoff import COLD, CUTOFF

MAIN = ("recall", CUTOFF)
HEADLINE = (("recall", 10), MAIN, ("ndcg", 10), ("ndcg", CUTOFF))
WHOLE = "nothing"  # modality that is hidden in the unchanged feature set
Key = TypeVar("Key")
Value = TypeVar("Value")
Metric = tuple[str, int]  # name and k


class FigureKey(NamedTuple):
    """What identifies a figure of table RESULTS, apart from its seed."""

    model: str
    features: str
    ablation: str
    protocol: str
    fingerprint: str
    split: str
    selected_by: str
    metric: str
    k: int


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation of a figure over seeds."""

    mean: float
    sd: float | None  # sample standard deviation over seeds; None for one seed
    values: tuple[float, ...]  # one per seed


@dataclass(frozen=True)
class RunFigures:
    """Test figures of a model on a feature set, at its best valid epoch."""

    model: str
    features: str
    ablation: str  # empty for the full model
    cells: dict[Metric, Figure]

    @property
    def headline(self) -> float:
        return self.cells[MAIN].mean if MAIN in self.cells else 0.0

    @property
    def seeds(self) -> int:
        return max((len(figure.values) for figure in self.cells.values()), default=0)

    def repeats(self, other: RunFigures) -> bool:
        """Return whether figures are bit-identical for all common seeds."""
        common = self.cells.keys() & other.cells.keys()
        for metric in common:
            ours = self.cells[metric].values
            theirs = other.cells[metric].values
            if ours[: len(theirs)] != theirs[: len(ours)]:
                return False
        return bool(common)


@dataclass(frozen=True)
class Comparison:
    """Rows of a table, which share a fingerprint."""

    protocol: str
    fingerprint: str
    rows: list[RunFigures]  # sorted by Recall@20, descending

    @property
    def masked(self) -> str:
        return "train and valid" if self.protocol.startswith("strict") else "train"

    @property
    def candidates(self) -> str:
        if self.protocol.endswith(COLD):
            return "only the cold items of test are"
        return "every item is"


def figures_by_run(results: pa.Table) -> dict[FigureKey, Figure]:
    columns = FigureKey._fields
    ordered = results.sort_by([(name, "ascending") for name in (*columns, "seed")])
    rows = ordered.select([*columns, "value"]).to_pylist()  # at most a few thousand rows
    by_seed = group_values(
        (FigureKey(*(row[name] for name in columns)), row["value"]) for row in rows
    )
    return {key: mean_and_sd(values) for key, values in by_seed.items()}


def group_values(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    values: dict[Key, list[Value]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return values


def seeds_of(counts: Iterable[int]) -> str:
    distinct = sorted(set(counts))
    fewest = distinct[0]
    most = distinct[-1]
    if fewest < most:
        return f"{fewest} to {most} seeds"
    return "1 seed" if most == 1 else f"{most} seeds"


def mean_and_sd(values: list[float]) -> Figure:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Figure(float(np.mean(values)), sd, tuple(values))


def list_comparisons(results: pa.Table) -> list[Comparison]:
    return _compare_runs(results.filter(pc.field("ablation") == ""))


def list_ablations(results: pa.Table) -> list[Comparison]:
    """Return, per fingerprint, ablations and the full model on the same features and seeds."""
    names = pc.binary_join_element_wise(results["model"], results["features"], "\t")
    is_ablation = pc.not_equal(results["ablation"], "")
    is_compared = pc.is_in(names, value_set=pc.unique(names.filter(is_ablation)))

    # the same seeds, so that an ablation's effect is the difference of two rows
    seeds = pc.unique(results.filter(is_ablation)["seed"])
    has_seed = pc.is_in(results["seed"], value_set=seeds)
    return _compare_runs(results.filter(pc.and_(is_compared, has_seed)))


def _compare_runs(results: pa.Table) -> list[Comparison]:
    is_test = (pc.field("split") == "test") & (pc.field("selected_by") == "valid")
    groups: dict[tuple[str, str], dict[tuple[str, str, str], RunFigures]] = {}
    for key, figure in figures_by_run(results.filter(is_test)).items():
        runs = groups.setdefault((key.protocol, key.fingerprint), {})
        name = key.model, key.features, key.ablation
        run = runs.setdefault(name, RunFigures(*name, {}))
        run.cells[key.metric, key.k] = figure

    comparisons = []
    for (protocol, fingerprint), runs in groups.items():
        rows = sorted(runs.values(), key=lambda run: -run.headline)
        comparisons.append(Comparison(protocol, fingerprint, rows))
    return comparisons


class MaskedFigure(NamedTuple):
    """AlignRec on one feature set with a modality hidden for a share of the items."""

    protocol: str
    fingerprint: str
    features: str
    modality: str  # image or text; WHOLE for the unchanged set
    ratio: float
    recall: Figure  # Recall@20 on test
    # relative to the full set, per seed; None for the full set, or if its recall is 0
    change: Figure | None

    @property
    def items(self) -> str:
        if self.modality == WHOLE:
            return "whole"
        return f"{self.modality} of {100 * self.ratio:.4g} % masked"


class MaskedRuns(NamedTuple):
    """What identifies the runs behind a MaskedFigure, apart from their seeds."""

    protocol: str
    fingerprint: str
    features: str
    modality: str
    ratio: float

    @property
    def whole(self) -> MaskedRuns:
        return self._replace(modality=WHOLE, ratio=0.0)


def summarise_mask(mask: pa.Table) -> dict[tuple[str, str], list[MaskedFigure]]:
    """Return protocol and fingerprint -> means over seeds of table MASK."""
    recalls: dict[MaskedRuns, dict[int, float]] = {}  # by seed
    for row in mask.to_pylist():
        runs = MaskedRuns(**{name: row[name] for name in MaskedRuns._fields})
        recalls.setdefault(runs, {})[row["seed"]] = row[f"recall@{CUTOFF}"]

    figures = []
    for runs, by_seed in recalls.items():
        whole = recalls[runs.whole]
        change = None
        if runs.modality != WHOLE and all(whole[seed] for seed in by_seed):
            change = mean_and_sd([recall / whole[seed] - 1 for seed, recall in by_seed.items()])
        figures.append(MaskedFigure(*runs, mean_and_sd([*by_seed.values()]), change))
    return group_values(((figure.protocol, figure.fingerprint), figure) for figure in figures)


def as_json(
    results: pa.Table, protocols: Sequence[Mapping[str, Any]], tuning: pa.Table | None = None
) -> dict[str, Any]:
    """Return the content of results.json: protocols, figures by seed, and tried settings."""
    rows = []
    for key, figure in figures_by_run(results).items():
        figures = {"mean": figure.mean, "sd": figure.sd, "values": list(figure.values)}
        rows.append(key._asdict() | figures)
    by_fingerprint = {protocol["fingerprint"]: dict(protocol) for protocol in protocols}
    content = {"protocols": by_fingerprint, "results": rows}
    if tuning is None:
        return content

    trials = tuning.to_pylist()
    for trial in trials:
        trial["setting"] = json.loads(trial["setting"])
    return content | {"trials": trials}
