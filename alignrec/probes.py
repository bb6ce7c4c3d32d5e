"""Evaluate feature sets without training a recommender: `alignrec.probe` (method.md section 5). I
items, F width.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec.interactions import Splitting, number
from alignrec.pipeline.evaluation.probe.controls import judge_with_controls
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.vectors import align_sets, require_positive

PROBE_CUTOFFS = tuple(ProbeParams().ks)


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """Probe results of feature sets, of the controls and of chance. `print` shows the headline
    figures.
    """

    figures: Mapping[str, Mapping[str, Mapping[str, float]]]
    """probe -> feature set, control or `chance` -> figure -> value, such as `hit@20` and its
    standard error
    `hit@20_se`"""
    skipped: Mapping[str, str]
    """probe -> why it could not run"""
    processed: Mapping[str, Mapping[str, Mapping[str, float]]]
    """figures of each feature set after the preprocessing that scores highest on validation"""
    forms: Mapping[str, str]
    """feature set -> that preprocessing: raw, or centred, reduced by PCA to a common width, and
    relaxed or whitened"""
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
        rows = []
        for probe, sets in self.figures.items():
            for name, values in sets.items():
                rows += _rows_of(values, {"probe": probe, "features": name})

        text = [(name, pa.string()) for name in ("probe", "features", "figure")]
        numbers = [(name, pa.float64()) for name in ("value", "se")]
        return pa.Table.from_pylist(rows, pa.schema([*text, *numbers]))

    def _headline_figures(self) -> dict[str, str]:
        """Return probe -> headline figure."""
        headlines = {}
        for probe, sets in self.figures.items():
            figures = list(sets["chance"])
            at_cutoff = [name for name in figures if name.endswith(f"@{self.cutoff}")]
            measure = PROBES[probe].measure
            headlines[probe] = measure if measure in figures else (at_cutoff or figures)[0]

        return headlines

    def __str__(self) -> str:
        headlines = self._headline_figures()
        heads = [f"{probe} {figure}" for probe, figure in headlines.items()]
        names = list(dict.fromkeys(chain.from_iterable(self.figures.values())))
        width = max(map(len, names), default=0)

        lines = ["  ".join([" " * width, *heads])]
        for name in names:
            cells = [name.ljust(width)]
            for head, (probe, figure) in zip(heads, headlines.items(), strict=True):
                value = self.figures[probe].get(name, {}).get(figure)
                text = "-" if value is None else f"{value:.4f}"
                cells.append(text.rjust(len(head)))
            lines.append("  ".join(cells))

        lines += [f"{probe}: skipped, {reason}" for probe, reason in self.skipped.items()]
        for reason, rows in self.dropped.items():
            lines.append(f"dropped: {rows:,} interactions, {reason}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<ProbeResult {', '.join(self.figures) or 'of no probe'}: print shows figures>"


def probe(
    vectors: np.ndarray | Mapping[str, np.ndarray],
    interactions: Any,
    *,
    ids: Iterable[Any] | None = None,
    ks: Sequence[int] = PROBE_CUTOFFS,
    protocol: str | None = None,
    user_core: int = 1,
    item_core: int = 1,
    seed: int = 0,
) -> ProbeResult:
    """Evaluate feature sets as the stage `probe` does, next to random, shuffled and constant
    controls.

    Probes that the data do not allow, such as zero-shot without timestamps, are listed in
    `skipped`.

    Args:
        vectors: One feature set [I, F], or a mapping from name to [I, F] for several sets over the
            same items.
        interactions: Columns user and item, optionally timestamp, rating and split; for accepted
            types see
            `alignrec.interactions.number`.
        ids: Item of each row of the vectors. Defaults to their `ids`, or to 0 .. I-1 without any.
        ks: Cutoffs of the figures.
        protocol: `mmrec`, `user-time`, `leave-one-out`, `global-time`, `cold-items` or `sparse`. By
            default the column
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
        sets, Data(data.table, len(names)), ks, seed_for("probe", seed), ProbeParams().width
    )

    raw = result["probes"]
    answered = {probe: figures for probe, figures in raw.items() if "skipped" not in figures}
    skipped = {probe: figures["skipped"] for probe, figures in raw.items() if probe not in answered}
    processed = {probe: figures for probe, figures in result["processed"].items() if probe in raw}
    forms = result["processed"]["forms"]
    return ProbeResult(
        figures=_of_sets(answered),
        skipped=skipped,
        processed=_of_sets(processed),
        forms={name: facts["form"] for name, facts in forms.items()},
        verdicts=result["verdicts"],
        paired=result["paired"],
        dropped=data.dropped,
        cutoff=headline_cutoff(ks),
    )


def _rows_of(values: Mapping[str, float], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for figure, value in values.items():
        if not figure.endswith("_se"):
            error = values.get(f"{figure}_se")
            rows.append({**labels, "figure": figure, "value": value, "se": error})

    return rows


def _of_sets(probes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep the figures of feature sets, not those of a probe as a whole."""
    figures = {}
    for probe, answers in probes.items():
        figures[probe] = {n: values for n, values in answers.items() if isinstance(values, dict)}

    return figures
