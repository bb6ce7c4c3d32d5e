"""Tables of the benchmark: recommenders, paired tests, ablations, tried settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline.combine.names import LEAKED
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.evidence import (
    HEADLINE,
    MAIN,
    Comparison,
    Row,
    describe_candidates,
    group_values,
    masked_splits,
)
from alignrec.pipeline.models import RELEASED, WAYS, reading_way
from alignrec.pipeline.report.table import (
    CHANGE,
    FLOORED,
    Difference,
    Table,
    format_figure,
    measure_name,
    protocol_note,
    run_name,
)

BRIEF = (("recall", 10), MAIN, ("ndcg", CUTOFF))  # figures of narrow tables


def results_table(comparison: Comparison) -> Table:
    order = [*WAYS, ""]
    rows = sorted(((reading_way(r.model, r.features), r) for r in comparison.rows), key=lambda one: order.index(one[0]))
    return Table.of(
        "Recommenders on these features",
        f"{protocol_note(vars(comparison))} Test figures at the best valid "
        f"epoch; mean ± standard deviation over seeds; {describe_candidates(comparison)} ranked, "
        f"{masked_splits(comparison)} items masked. Content, as AlignRec's article sorts models: features as an input "
        "(a), aggregated over graphs (b), with losses of both together (c); AlignRec aligns in stages.",
        ["content", "model", "features", "seeds", *(measure_name(*key) for key in HEADLINE)],
        [[way, r.model, r.features, str(r.seeds), *(r.cells.get(key, "") for key in HEADLINE)] for way, r in rows],
        texts=3,
        best=range(4, 4 + len(HEADLINE)),
        unranked=LEAKED,
    )


def brief_table(heading: str, comparison: Comparison) -> Table:
    rows = [
        [row.ablation or row.model, row.features, str(row.seeds), *_figure_cells(row, BRIEF)] for row in comparison.rows
    ]
    return Table(heading, "", ["run", "features", "seeds", *(measure_name(*key) for key in BRIEF)], rows, texts=2)


def lead_rows(comparison: Comparison, paired: pa.Table | None, released: str) -> list[dict[str, Any]]:
    ours = {"model_a": RELEASED, "features_a": released, "ablation_a": "", "ablation_b": ""}
    wanted = ours | {"fingerprint": comparison.fingerprint, "metric": MAIN[0]}
    return [] if paired is None else paired.filter(rows_equal_to(wanted)).to_pylist()


class Ablated(NamedTuple):
    """An ablation or the full model, and its change on the same seeds."""

    name: str
    run: Row
    change: Difference | None  # None for the full model, or if nothing changes
    repeats: bool  # whether all figures of all seeds equal the full model's

    @property
    def words(self) -> str:
        return "identical" if self.repeats else self.change.words if self.change else ""

    @property
    def cells(self) -> Sequence[str | Difference | None]:
        return ["none", "identical", ""] if self.repeats else [self.change]


def ablated_rows(comparison: Comparison, paired: pa.Table | None) -> Iterator[Ablated]:
    wanted = rows_equal_to({"fingerprint": comparison.fingerprint, "metric": MAIN[0], "ablation_a": ""})
    tests = [] if paired is None else paired.filter(wanted & (pc.field("ablation_b") != "")).to_pylist()
    tested = {(t["model_b"], t["features_b"], t["ablation_b"]): Difference.of(t) for t in tests}
    full = {(t["model_a"], t["features_a"]) for t in tests}
    whole = [r for r in comparison.rows if not r.ablation and (r.model, r.features) in full]
    for run in whole + [r for r in comparison.rows if r.ablation]:
        content = "" if run.ablation and (run.model, run.features) in full else f" ({run.features})"
        test = tested.get((run.model, run.features, run.ablation))
        repeats = bool(run.ablation) and any(run.repeats(other) for other in whole)
        change = None if test is None or repeats else test.reversed
        yield Ablated(f"{run.ablation or 'full model'}{content}", run, change, repeats)


def ablation_table(rows: Sequence[Ablated]) -> Table:
    repeated = ", ".join(row.run.ablation for row in rows if row.repeats)
    nothing = (
        f" Identical to the full model in every figure of every seed: {repeated}. What they change has nothing "
        "to act on under these settings."
    )
    return Table.of(
        "Without one part, or with one modality",
        "Each row differs from the full model in what its name says; both on the same seeds. Test figures, mean ± "
        "standard deviation over seeds; the change in Recall@20 and its 95 % interval are over users; p is Holm's. "
        f"{FLOORED}{nothing if repeated else ''}",
        ["ablation", "seeds", "Recall@20", "NDCG@20", *CHANGE],
        [[row.name, str(row.run.seeds), *_figure_cells(row.run, BRIEF[1:]), *row.cells] for row in rows],
    )


def tuning_table(tuning: pa.Table) -> Table:
    contenders = group_values(((row["model"], row["features"]), row) for row in tuning.to_pylist())
    rows = []
    for contender, tried in contenders.items():
        chosen = next(row for row in tried if row["chosen"])
        setting = ", ".join(f"{key} {value:g}" for key, value in json.loads(chosen["setting"]).items())
        given, best = ("" if row["valid"] is None else f"{row['valid']:.4f}" for row in (tried[0], chosen))
        failed = sum(row["state"] == "failed" for row in tried)
        kept = "" if chosen["trial"] else " (as given)"
        rows.append([run_name(*contender), f"{setting}{kept}", str(len(tried)), str(failed), given, best])
    return Table(
        "Settings tried and chosen",
        "A model tries the same settings on every feature set, one training each; the first is the setting as given. "
        f"The best valid Recall@{CUTOFF} is chosen before test is opened.",
        ["run", "chosen setting", "tried", "failed", "valid, as given", "valid, chosen"],
        rows,
        texts=2,
    )


def rows_equal_to(wanted: Mapping[str, Any]) -> pc.Expression:
    return reduce(and_, (pc.field(column) == value for column, value in wanted.items()))


def side_name(row: Mapping[str, Any], which: str) -> str:
    return run_name(*(row[f"{column}_{which}"] for column in ("model", "features", "ablation")))


def _figure_cells(run: Row, keys: Sequence[tuple[str, int]]) -> list[str]:
    return [format_figure(run.cells.get(key)) for key in keys]
