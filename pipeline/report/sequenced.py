"""Codes judged by use, as tables: sequential recommenders on codes and on item ids, by leave-one-out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import Cell, cell, seeds_of
from pipeline.probe.verdicts import LEVEL
from pipeline.report import markdown, plots
from pipeline.report.plots import Picture
from pipeline.report.section import Section
from pipeline.report.tables import FLOORED, Table, p_value

NONE = "none"
NOTE = "TIGER writes the codes of the next item, SASRec reads item ids. All items are ranked."
METRICS = {"recall": "Recall", "ndcg": "NDCG"}


def section(study: Mapping[str, pa.Table]) -> Section:
    """Return codes in use; empty where nothing was trained."""
    note = "What semantic IDs are worth to a recommender that writes them, beside one on item ids."
    return Section("generative", "Codes in use", "Codes in use", note, pictures(study), tables=used(study))


def pictures(study: Mapping[str, pa.Table]) -> list[Picture]:
    """Return test NDCG of every contender, and the differences between them."""
    if not len(study.get("generative", ())):
        return []
    found = figures(study["generative"])
    k = headline(sorted({k for _, k in next(iter(found.values()))}))
    cells = {name(*one): own["ndcg", k] for one, own in found.items()}
    rows = [plots.Row(one, [plots.around(figure)], markdown.figure(figure)) for one, figure in cells.items()]
    seeds = seeds_of(len(figure.values) for figure in cells.values())
    means = plots.intervals(f"Test NDCG@{k}, leave-one-out, mean ± sd over {seeds}", rows)
    tests = study["generative_tests"].to_pylist() if "generative_tests" in study else []
    differences = plots.intervals(
        f"Differences in test NDCG@{k}, 95 % interval over users",
        [
            plots.Row(
                f"{name(*_side(r, 'a'))} - {name(*_side(r, 'b'))}", [(r["low"], r["difference"], r["high"])],
                f"{r['difference']:+.4f}, p {p_value(r['p'], r['p_holm'])}", r["p_holm"] < LEVEL,
            )
            for r in tests if (r["metric"], r["k"]) == ("ndcg", k)
        ],
    )  # fmt: skip
    return [picture for picture in (means, differences) if picture is not None]


def used(study: Mapping[str, pa.Table]) -> list[Table]:
    """Return tables GENERATIVE and GENERATIVE_TESTS over seeds; none where nothing was trained."""
    tables = [_means(study["generative"])] if len(study.get("generative", ())) else []
    return [*tables, *([_tests(study["generative_tests"])] if len(study.get("generative_tests", ())) else [])]


def name(model: str, features: str, method: str) -> str:
    """Return a contender in words."""
    return model if features == NONE else f"{model}, {method} codes of {features}"


def figures(table: pa.Table) -> dict[tuple[str, str, str], dict[tuple[str, int], Cell]]:
    """Return, of table GENERATIVE, model, features and method -> metric and cutoff -> test figure, best first."""
    values: dict[tuple[str, str, str], dict[tuple[str, int], list[float]]] = {}
    for row in table.to_pylist():
        if row["split"] == "test" and row["metric"] in METRICS:
            own = values.setdefault((row["model"], row["features"], row["method"]), {})
            own.setdefault((row["metric"], row["k"]), []).append(row["value"])
    cells = {one: {key: cell(by_seed) for key, by_seed in own.items()} for one, own in values.items()}
    return dict(sorted(cells.items(), key=lambda item: -item[1]["recall", max(k for _, k in item[1])].mean))


def _means(table: pa.Table) -> Table:
    found = figures(table)
    columns = [(m, k) for m in METRICS for k in sorted({k for _, k in next(iter(found.values()))})]
    rates = {(r["model"], r["features"], r["method"]): r["rate"] for r in table.to_pylist() if r["split"] == "test"}
    rows = [
        [name(*one), "" if rates[one] is None else f"{rates[one]:g}", str(len(own[columns[0]].values)),
         *(markdown.figure(own[column]) for column in columns)]
        for one, own in found.items()
    ]  # fmt: skip
    return Table(
        "Codes in use",
        f"{_protocol(table)} {NOTE} Test figures at the best valid epoch, mean ± standard deviation over seeds. Random "
        "codes are the control: what is written with them knows no content.",
        ["recommender", "learning rate", "seeds", *(f"{METRICS[m]}@{k}" for m, k in columns)],
        rows,
    )


def _tests(table: pa.Table) -> Table:
    rows = table.to_pylist()
    return Table(
        "Codes in use: paired tests",
        f"{_protocol(table)} First less second; figures of a user are means over seeds. Intervals (95 %) and p are of "
        f"the bootstrap over users, p after Holm's correction for all rows; below {LEVEL} it is marked. {FLOORED}",
        ["first", "second", "metric", "difference", "95 % interval", "p"],
        [
            [name(*_side(r, "a")), name(*_side(r, "b")), f"{METRICS[r['metric']]}@{r['k']}", f"{r['difference']:+.4f}",
             f"{r['low']:+.4f} .. {r['high']:+.4f}", p_value(r["p"], r["p_holm"])]
            for r in rows
        ],
        texts=3,
        best=frozenset((i, 3) for i, r in enumerate(rows) if r["p_holm"] < LEVEL),
    )  # fmt: skip


def _protocol(table: pa.Table) -> str:
    return f"Protocol {table['protocol'][0]}, fingerprint {table['fingerprint'][0]}."


def _side(row: Mapping[str, Any], side: str) -> tuple[str, str, str]:
    return row[f"model_{side}"], row[f"features_{side}"], row[f"method_{side}"]
