"""Evaluate feature sets without training a recommender: `alignrec.probe` (method.md section 5). I items, F width."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec.interactions import Splitting, number
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.probe.controls import judge_with_controls
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.registry import PROBES, Data
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.vectors import align_sets, require_positive

CUTOFFS = tuple(Probe().ks)


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """Probe results of feature sets, of the controls and of chance. `print` shows the headline figures."""

    figures: Mapping[str, Mapping[str, Mapping[str, float]]]
    """probe -> feature set, control or `chance` -> figure -> value, such as `hit@20` and its standard error
    `hit@20_se`"""
    skipped: Mapping[str, str]
    """probe -> why it could not run"""
    processed: Mapping[str, Mapping[str, Mapping[str, float]]]
    """figures of each feature set after the preprocessing that scores highest on validation"""
    forms: Mapping[str, str]
    """feature set -> that preprocessing: raw, or centred, reduced by PCA to a common width, and relaxed or whitened"""
    verdicts: Sequence[Mapping[str, Any]]
    """for every pair of feature sets: whether one is better, both raw and processed"""
    paired: Sequence[Mapping[str, Any]]
    """paired significance tests between feature sets, Holm-corrected"""
    dropped: Mapping[str, int]
    """number of unused interactions by reason"""
    cutoff: int
    """K of the headline figures"""

    @cached_property
    def table(self) -> pa.Table:
        """All figures in long format: columns probe, features, figure, value, se."""
        rows = [
            {
                "probe": probe,
                "features": name,
                "figure": figure,
                "value": value,
                "se": values.get(f"{figure}_se"),
            }
            for probe, sets in self.figures.items()
            for name, values in sets.items()
            for figure, value in values.items()
            if not figure.endswith("_se")
        ]
        text = [(name, pa.string()) for name in ("probe", "features", "figure")]
        return pa.Table.from_pylist(
            rows, pa.schema([*text, ("value", pa.float64()), ("se", pa.float64())])
        )

    def __str__(self) -> str:
        probes = dict[str, str]()  # probe -> headline figure
        for probe, sets in self.figures.items():
            figures, measure = list(sets["chance"]), PROBES[probe].measure
            at_cutoff = next(
                (name for name in figures if name.endswith(f"@{self.cutoff}")), figures[0]
            )
            probes[probe] = measure if measure in figures else at_cutoff
        heads = [f"{probe} {figure}" for probe, figure in probes.items()]
        names = list(dict.fromkeys(name for sets in self.figures.values() for name in sets))
        width = max(map(len, names), default=0)
        lines = ["  ".join([" " * width, *heads])]
        for name in names:
            cells = [self.figures[p].get(name, {}).get(figure) for p, figure in probes.items()]
            shown = ["-" if value is None else f"{value:.4f}" for value in cells]
            lines.append(
                "  ".join(
                    [
                        name.ljust(width),
                        *(c.rjust(len(h)) for c, h in zip(shown, heads, strict=True)),
                    ]
                )
            )
        lines += [f"{probe}: skipped, {reason}" for probe, reason in self.skipped.items()]
        lines += [
            f"dropped: {rows:,} interactions, {reason}" for reason, rows in self.dropped.items()
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<ProbeResult {', '.join(self.figures) or 'of no probe'}: print shows figures>"


def probe(
    vectors: np.ndarray | Mapping[str, np.ndarray],
    interactions: Any,
    *,
    ids: Iterable[Any] | None = None,
    ks: Sequence[int] = CUTOFFS,
    protocol: str | None = None,
    user_core: int = 1,
    item_core: int = 1,
    seed: int = 0,
) -> ProbeResult:
    """Evaluate feature sets as the stage `probe` does, next to random, shuffled and constant controls.

    Probes that the data do not allow, such as zero-shot without timestamps, are listed in `skipped`.

    Args:
        vectors: One feature set [I, F], or a mapping from name to [I, F] for several sets over the same items.
        interactions: Columns user and item, optionally timestamp, rating and split; for accepted types see
            `alignrec.interactions.number`.
        ids: Item of each row of the vectors. Defaults to their `ids`, or to 0 .. I-1 without any.
        ks: Cutoffs of the figures.
        protocol: `mmrec`, `user-time`, `leave-one-out`, `global-time`, `cold-items` or `sparse`. By default the column
            `split` is kept, or `mmrec` is used without one.
        user_core: Minimum interactions per user; applied repeatedly, together with `item_core`.
        item_core: Minimum interactions per item.
        seed: Seed of the split and of the controls.

    Returns:
        Figures of each feature set and control, and the tests between them.

    Raises:
        UserError: If an argument is invalid, or the interactions do not fit the vectors.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> pairs = np.unique(rng.integers(0, [200, 50], (2000, 2)), axis=0)  # user, item
        >>> result = alignrec.probe(rng.normal(size=(50, 8)), pairs)
        >>> 0 <= result.figures["content_knn"]["vectors"]["recall@20"] <= 1
        True
    """
    sets, names = align_sets(vectors, ids)
    require_positive(ks=ks)
    data = number(interactions, names, Splitting(protocol, user_core, item_core, seed))
    result = judge_with_controls(
        sets, Data(data.table, len(names)), ks, seed_for("probe", seed), Probe().width
    )
    answered = {probe: sets for probe, sets in result["probes"].items() if "skipped" not in sets}
    return ProbeResult(
        figures=_of_sets(answered),
        skipped={
            probe: sets["skipped"] for probe, sets in result["probes"].items() if "skipped" in sets
        },
        processed=_of_sets(
            {
                probe: sets
                for probe, sets in result["processed"].items()
                if probe in result["probes"]
            }
        ),
        forms={name: facts["form"] for name, facts in result["processed"]["forms"].items()},
        verdicts=result["verdicts"],
        paired=result["paired"],
        dropped=data.dropped,
        cutoff=headline_cutoff(ks),
    )


def _of_sets(probes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        probe: {n: v for n, v in sets.items() if isinstance(v, dict)}
        for probe, sets in probes.items()
    }
