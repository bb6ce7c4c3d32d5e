"""Judge feature sets by their leading columns alone, at several widths.

I items, F width of a set, W number of leading columns.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.judge import Answers, answer_sets, summarise_answers
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data, Refit
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.features.names import DeclaredSets, is_control
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import require_known

JUDGED_BY = ("zero_shot", "cold_items")  # probes
# kinds whose columns are principal components, singular vectors or predictions of those, largest
# first
ORDERED_KINDS = ("tfidf", "linear", "whitened", "mapped")
Fingerprint = Mapping[str, Any]
Vectors = Iterable[tuple[str, np.ndarray]]  # feature sets, float32 [I, F] each


class WidthPlan(NamedTuple):
    """Which sets to judge at which widths."""

    widths: Mapping[str, list[int]]  # set -> ascending numbers of columns below its own
    left_out: Mapping[str, str]  # set -> why it is not judged at several widths


def plan_widths(
    layout: Layout, declared: DeclaredSets, names: Sequence[str], params: ProbeParams
) -> WidthPlan:
    """Raises UserError if `probe.matryoshka` names an unknown set."""
    known = dict.fromkeys([*names, *declared.names()])
    require_known(params.matryoshka, known, "probe.matryoshka")

    widths: dict[str, list[int]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        fingerprint = read_fingerprint(layout, name)
        fault = explain_disorder(fingerprint, name in params.matryoshka)
        if name in CONTROLS or is_control(declared.combined, name):
            fault = "it is a control or an upper bound"

        n_columns = io.width(layout.features(name))
        narrower = [width for width in sorted(set(params.widths)) if width < n_columns]
        if fault:
            left_out[name] = fault
        elif narrower:
            widths[name] = narrower
        else:
            left_out[name] = "it has no more columns than the least of the widths"
    return WidthPlan(widths, left_out)


def read_fingerprint(layout: Layout, name: str) -> Fingerprint:
    shard = io.shards(layout.features(name), "features")[0]
    return io.fingerprint_of(io.record(shard))


def explain_disorder(fingerprint: Fingerprint, is_matryoshka: bool) -> str:
    """Return why a set's leading columns mean nothing without the others; empty if they do."""
    reads = fingerprint.get("reads", [])
    if fingerprint.get("join") == "concat" and len(reads) > 1:
        return "its leading columns are those of one modality"
    kind = fingerprint.get("kind")
    # one part of one modality is a single block, with or without PCA over all
    is_single = len(fingerprint.get("parts", ())) == len(reads) == 1
    is_joined = kind == "linear" and not fingerprint.get("reduced") and not is_single
    if kind == "concat" or is_joined:
        return "its parts are side by side"

    # `dim` is set for networks whose leading columns are meant to be kept
    if is_matryoshka or fingerprint.get("dim") or kind in ORDERED_KINDS:
        return ""
    return "no record says that its columns are ordered (see probe.matryoshka)"


def judge_widths(
    data: Data,
    sets: Vectors,
    widths: Mapping[str, Sequence[int]],
    ks: Sequence[int],
    whole: Answers,
) -> list[dict[str, Any]]:
    """Return a row per set and width: `features`, `width`, and the raw figures of each probe.

    `whole` has the answers of the sets with all columns, whose rows are last.
    """
    columns: dict[str, int] = {}

    def cut() -> Iterator[tuple[str, np.ndarray]]:
        for name, vectors in sets:
            columns[name] = vectors.shape[1]
            for width in widths[name]:
                yield label(name, width), np.ascontiguousarray(vectors[:, :width])

    refits: dict[str, Refit | None] = {}
    for name, refit in data.refits.items():
        for width in widths.get(name, ()):
            refits[label(name, width)] = refit and cut_refit(refit, width)

    with threadpool_limits(1):  # as in `judge_sets`
        tasks = {probe: PROBES[probe].ask(data) for probe in JUDGED_BY}
        answers, _ = answer_sets(tasks, cut(), ks, refits)
        for probe, by_set in answers.items():
            by_set |= {
                label(name, columns[name]): whole[probe][name]
                for name in widths
                if name in whole[probe]
            }
        summaries = summarise_answers(tasks, answers, ks)

    rows: list[dict[str, Any]] = []
    for name in widths:
        for width in [*widths[name], columns[name]]:
            row: dict[str, Any] = {"features": name, "width": width}
            for probe, summary in summaries.items():
                figures = summary.get(label(name, width))
                if figures is not None:
                    row[probe] = figures
            rows.append(row)
    return rows


def label(name: str, width: int) -> str:
    return f"{name}@{width}"


def cut_refit(refit: Refit, width: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda cold: np.ascontiguousarray(refit(cold)[:, :width])
