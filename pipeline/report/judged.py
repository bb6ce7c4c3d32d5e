"""The benchmark as sections: recommenders with their paired tests, ablations, settings that were tried."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.evidence import (
    HEADLINE,
    MAIN,
    Comparison,
    Row,
    ablations,
    candidates,
    comparisons,
    masked_splits,
    seeds_of,
)
from pipeline.models import RELEASED
from pipeline.probe.verdicts import LEVEL
from pipeline.report import plots
from pipeline.report.gather import Evidence
from pipeline.report.markdown import figure
from pipeline.report.plots import Intervals, Span
from pipeline.report.section import Section, named
from pipeline.report.tables import FLOORED, Table, metric_name, p_value

METRIC = f"{metric_name(MAIN[0])}@{MAIN[1]}"


def name(model: str, features: str, ablation: str = "") -> str:
    """Return the name of a run, for one cell."""
    content = "" if features == "none" else f" on {features}"
    return f"{model}{content}" + (f", {ablation}" if ablation else "")


def recommenders(evidence: Evidence) -> Section:
    """Return every run under each protocol, and AlignRec's lead on the released features."""
    compared = [] if evidence.results is None else comparisons(evidence.results)
    several = len(compared) > 1
    pictures = [
        picture
        for comparison in compared
        for picture in (_means(comparison, several), _leads(comparison, evidence, several))
        if picture is not None
    ]
    paired = [] if evidence.tests is None else list(tests(evidence.tests))
    tables = [named(results(comparison), comparison.protocol, several) for comparison in compared] + paired
    note = f"Hollow marks: not decided, p is not below {LEVEL} after Holm's correction."
    return Section("results", "Recommenders", "Recommenders on these features", note, pictures, tables=tables)


def _means(comparison: Comparison, several: bool) -> Intervals | None:
    """Return test Recall@20 of every run."""
    rows = [
        plots.Row(name(r.model, r.features), [plots.around(r.cells[MAIN])], figure(r.cells[MAIN]))
        for r in comparison.rows if MAIN in r.cells
    ]  # fmt: skip
    title = f"Test {METRIC}, mean ± sd over {seeds_of(r.seeds for r in comparison.rows)}"
    return plots.intervals(title + (f"; {comparison.protocol}" if several else ""), rows)


def _leads(comparison: Comparison, evidence: Evidence, several: bool) -> Intervals | None:
    """Return what AlignRec on the released features has more than each other run it was tested against."""
    if evidence.tests is None:
        return None
    ours = {"model_a": RELEASED, "features_a": evidence.released, "ablation_a": "", "ablation_b": ""}
    wanted = ours | {"fingerprint": comparison.fingerprint, "metric": MAIN[0]}
    found = evidence.tests.filter(equal(wanted)).to_pylist()
    if not found:
        return None
    rows = [
        plots.Row(
            _side(r, "b"), [_span(r)], f"{r['difference']:+.4f}, p {p_value(r['p'], r['p_holm'])}", r["p_holm"] < LEVEL
        )
        for r in found
    ]
    title = (
        f"{name(RELEASED, evidence.released)}, minus each other run: test {METRIC}, mean over "
        f"{seeds_of(r['seeds'] for r in found)}, 95 % interval over {found[0]['n']:,} users"
    )
    return plots.intervals(title + (f"; {comparison.protocol}" if several else ""), rows)


def results(comparison: Comparison) -> Table:
    """Return the headline comparison under one protocol."""
    best = set()
    for column, key in enumerate(HEADLINE):
        means = [r.cells[key].mean if key in r.cells else -1.0 for r in comparison.rows]
        best.add((means.index(max(means)), 3 + column))
    return Table(
        "Recommenders on these features",
        f"Protocol {comparison.protocol}, fingerprint {comparison.fingerprint}. Test figures at the best valid "
        f"epoch; mean ± standard deviation over seeds; {candidates(comparison)} ranked, "
        f"{masked_splits(comparison)} items masked.",
        ["model", "features", "seeds", *(f"{metric_name(m)}@{k}" for m, k in HEADLINE)],
        [[r.model, r.features, str(r.seeds), *(figure(r.cells.get(key)) for key in HEADLINE)] for r in comparison.rows],
        texts=2,
        best=frozenset(best),
    )


def tests(paired: pa.Table) -> Iterable[Table]:
    """Yield the paired tests of table TESTS, a table for each fingerprint and metric; without ablations."""
    groups = paired.group_by(["protocol", "fingerprint", "metric", "k"]).aggregate([]).sort_by("metric").to_pylist()
    several = len({group["fingerprint"] for group in groups}) > 1
    for group in sorted(groups, key=lambda g: (g["metric"] != MAIN[0], g["protocol"])):
        rows = paired.filter(equal(group | {"ablation_a": "", "ablation_b": ""})).to_pylist()
        if not rows:  # one run and its ablations alone
            continue
        what = f"{metric_name(group['metric'])}@{group['k']}"
        yield Table(
            f"Differences in {what}" + (f", protocol {group['protocol']}" if several else ""),
            f"a - b on test: each user's figure is averaged over the {seeds_of(r['seeds'] for r in rows)} of both, "
            f"then users are paired. The interval is of {rows[0]['n']:,} users resampled (95 %); p is corrected for "
            f"all {len(paired)} comparisons together, those with ablations too (Holm). {FLOORED} Differences with p "
            f"below {LEVEL} are marked.",
            ["a", "b", "a - b", "95 % interval", "p"],
            [
                [_side(r, "a"), _side(r, "b"), f"{r['difference']:+.4f}", f"{r['low']:+.4f} .. {r['high']:+.4f}",
                 p_value(r['p'], r['p_holm'])]
                for r in rows
            ],
            texts=2,
            best=frozenset((i, 2) for i, r in enumerate(rows) if r["p_holm"] < LEVEL),
        )  # fmt: skip


class Ablated(NamedTuple):
    """An ablation, or the full model, and its change against the full model on the same seeds."""

    name: str
    run: Row
    span: Span | None
    """low end, change in Recall@20, high end; None for the full model, and where nothing changes"""
    p: str
    sure: bool
    repeats: bool
    """whether every figure of every seed is the full model's"""

    @property
    def change(self) -> str:
        """The change and its p, in words."""
        if self.repeats:
            return "identical"
        return f"{self.span[1]:+.4f}, p {self.p}" if self.span else ""


def without_parts(evidence: Evidence) -> Section:
    """Return the ablations under each protocol."""
    compared = [] if evidence.results is None else ablations(evidence.results)
    pictures, tables = [], []
    for comparison in compared:
        rows = list(ablated(comparison, evidence.tests))
        changes = [plots.Row(r.name, [r.span], r.change, r.sure) for r in rows if r.run.ablation]
        title = (
            f"Change in test {METRIC} against the full model over {seeds_of(r.run.seeds for r in rows)}, 95 % interval"
        )
        pictures.append(plots.intervals(title + (f"; {comparison.protocol}" if len(compared) > 1 else ""), changes))
        tables.append(named(ablation_table(rows), comparison.protocol, len(compared) > 1))
    note = "AlignRec with one part left out, with one modality, or with one habit of the published code undone."
    shown = [picture for picture in pictures if picture is not None]
    return Section("ablations", "Ablations", "Ablations", note, shown, tables=tables)


def ablated(comparison: Comparison, paired: pa.Table | None) -> Iterator[Ablated]:
    """Yield the full models, then each ablation with its test.

    Args:
        comparison: the ablations and the full models.
        paired: table TESTS, where the full model is tested against each ablation.
    """
    wanted = equal({"fingerprint": comparison.fingerprint, "metric": MAIN[0], "ablation_a": ""})
    tests = [] if paired is None else paired.filter(wanted & (pc.field("ablation_b") != "")).to_pylist()
    tested: Mapping[tuple[str, str, str], Mapping[str, Any]] = {
        (t["model_b"], t["features_b"], t["ablation_b"]): t for t in tests
    }
    full = {(t["model_a"], t["features_a"]) for t in tests}
    whole = [r for r in comparison.rows if not r.ablation and (r.model, r.features) in full]
    for run in whole + [r for r in comparison.rows if r.ablation]:
        content = "" if run.ablation and (run.model, run.features) in full else f" ({run.features})"
        heading = f"{run.ablation or 'full model'}{content}"
        test = tested.get((run.model, run.features, run.ablation))
        repeats = bool(run.ablation) and any(run.repeats(other) for other in whole)
        if test is None or repeats:
            yield Ablated(heading, run, None, "", False, repeats)
            continue
        low, middle, high = _span(test)
        yield Ablated(
            heading,
            run,
            (0 - high, 0 - middle, 0 - low),
            p_value(test["p"], test["p_holm"]),
            test["p_holm"] < LEVEL,
            False,
        )


def ablation_table(rows: Sequence[Ablated]) -> Table:
    """Return each ablation, and its change against the full model."""
    cells = []
    for row in rows:
        figures = [figure(row.run.cells.get(key)) for key in (MAIN, ("ndcg", CUTOFF))]
        change = ["none", "identical"] if row.repeats else ["", ""]
        if row.span is not None:
            change = [f"{row.span[1]:+.4f}", f"{row.span[0]:+.4f} .. {row.span[2]:+.4f}"]
        cells.append([row.name, str(row.run.seeds), *figures, *change, row.p])
    return Table(
        "Without one part, or with one modality",
        "Each row differs from the full model in what its name says; both on the same seeds. Test figures, mean ± "
        "standard deviation over seeds; the change in Recall@20 and its 95 % interval are over users; p is Holm's. "
        f"{FLOORED}{_nothing_to_undo([row.run.ablation for row in rows if row.repeats])}",
        ["ablation", "seeds", "Recall@20", "NDCG@20", "change", "95 % interval", "p"],
        cells,
        best=frozenset((i, 4) for i, row in enumerate(rows) if row.sure),
    )


def _nothing_to_undo(names: Sequence[str]) -> str:
    """Return why some ablations are no evidence; nothing without such."""
    if not names:
        return ""
    return (
        f" Identical to the full model in every figure of every seed: {', '.join(names)}. What they change has nothing "
        "to act on under these settings."
    )


def tuned(tuning: pa.Table) -> Table:
    """Return how many settings each model tried on each feature set, the chosen one, and valid figures.

    Args:
        tuning: table TUNING.
    """
    contenders: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in tuning.to_pylist():
        contenders.setdefault((row["model"], row["features"]), []).append(row)
    rows = []
    for (model, features), tried in contenders.items():
        chosen = next(row for row in tried if row["chosen"])
        setting = ", ".join(f"{key} {value:g}" for key, value in json.loads(chosen["setting"]).items())
        words = setting if chosen["trial"] else f"{setting} (as given)"
        failed = sum(row["state"] == "failed" for row in tried)
        given, best = ("" if row["valid"] is None else f"{row['valid']:.4f}" for row in (tried[0], chosen))
        rows.append([name(model, features), words, str(len(tried)), str(failed), given, best])
    return Table(
        "Settings tried and chosen",
        "A model tries the same settings on every feature set, one training each; the first is the setting as given. "
        f"The best valid Recall@{CUTOFF} is chosen before test is opened.",
        ["run", "chosen setting", "tried", "failed", "valid, as given", "valid, chosen"],
        rows,
        texts=2,
    )


def winners(where: str, results: pa.Table) -> Table:
    """Return the test figures of a sweep's winning settings, by what selected them, from table RESULTS."""
    chosen = {"valid": "valid", "test": "test, as published tables do"}
    keys = (MAIN, ("ndcg", MAIN[1]))
    rows = [
        [
            f"{words}; {judged.protocol}" if len(both) > 1 else words,
            str(run.seeds),
            *(figure(run.cells.get(key)) for key in keys),
        ]
        for by, words in chosen.items()
        for both in [comparisons(results, by)]
        for judged in both
        for run in judged.rows
    ]
    return Table(
        f"{where}: the setting that won",
        "Test figures of new trainings, mean ± standard deviation over seeds, by what chose the setting.",
        ["chosen by", "seeds", *(f"{metric_name(m)}@{k}" for m, k in keys)],
        rows,
    )


def equal(wanted: Mapping[str, Any]) -> pc.Expression:
    """Return the condition that every column has the value that is wanted of it."""
    condition = pc.scalar(True)
    for column, value in wanted.items():
        condition = condition & (pc.field(column) == value)
    return condition


def _span(test: Mapping[str, Any]) -> Span:
    return test["low"], test["difference"], test["high"]


def _side(row: dict[str, Any], side: str) -> str:
    return name(*(row[f"{column}_{side}"] for column in ("model", "features", "ablation")))
