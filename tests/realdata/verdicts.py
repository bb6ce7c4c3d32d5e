"""Where features matter: each feature set against shuffled rows under each model, from the benchmark's paired tests."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pyarrow.compute as pc
from rich.table import Table

import schemas
from pipeline import io
from pipeline.facts.words import CONTROLS
from pipeline.layout import Layout

METRIC = "recall"
SURE = 0.05
"""p after Holm's correction below which a difference counts"""

Row = dict[str, Any]


def of(name: str, layout: Layout, control: str | None) -> list[Row]:
    """Return a row a protocol, model and feature set: figures of both, interval, p, and the verdict.

    Args:
        name: of the data set, as the rows have it.
        layout: of its outputs.
        control: the feature set that others are tested against; None: there are no such tests.
    """
    same_model = pc.field("model_a") == pc.field("model_b")
    against = (pc.field("features_b") == control) & (pc.field("metric") == METRIC)
    full = (pc.field("ablation_a") == "") & (pc.field("ablation_b") == "")
    tests = (
        io.read_table(layout.tests, schemas.TESTS).filter(same_model & against & full).to_pylist() if control else []
    )
    kept = ("protocol", "fingerprint", "k", "seeds", "n", "mean_a", "mean_b", "difference", "low", "high", "p_holm")
    rows = [
        {"dataset": name, "model": test["model_a"], "features": test["features_a"], "control": control}
        | {key: test[key] for key in kept}
        | {"verdict": verdict(test["difference"], test["p_holm"])}
        for test in tests
    ]
    return sorted(rows, key=lambda row: (row["fingerprint"], row["model"], -row["difference"]))


def verdict(difference: float, p: float) -> str:
    """Return better, worse, or `as good` where the difference is not sure."""
    if p >= SURE:
        return "as good"
    return "better" if difference > 0 else "worse"


def table(rows: list[Row]) -> Table:
    """Return all rows for a terminal."""
    k = rows[0]["k"]
    printed = Table(title=f"feature sets against {rows[0]['control']} rows, test Recall@{k}", title_justify="left")
    for heading in ("dataset", "protocol", "model", "features"):
        printed.add_column(heading, no_wrap=True)
    for heading in ("Recall", rows[0]["control"], "difference", "95 % interval", "p", "verdict"):
        printed.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        figures = (f"{row['mean_a']:.4f}", f"{row['mean_b']:.4f}", f"{row['difference']:+.4f}")
        interval = f"{row['low']:+.4f} .. {row['high']:+.4f}"
        names = (row["dataset"], row["protocol"], row["model"], row["features"])
        printed.add_row(*names, *figures, interval, f"{row['p_holm']:.2g}", row["verdict"])
    return printed


def sentences(rows: list[Row]) -> list[str]:
    """Return a sentence a data set, protocol and model, and one that sums up each data set and protocol."""
    said = []
    for (dataset, protocol, _), group in groupby(rows, lambda r: (r["dataset"], r["protocol"], r["fingerprint"])):
        of_models = {model: list(own) for model, own in groupby(group, lambda row: row["model"])}
        content = {m: [r for r in own if r["features"] not in CONTROLS] for m, own in of_models.items()}
        said += [f"{dataset} ({protocol}), {model}: {_one(own)}" for model, own in content.items() if own]
        said.append(f"{dataset} ({protocol}): {_sum(content)}")
    return said


def _one(rows: list[Row]) -> str:
    """Return what beats the control, what it does not, and what is worse."""
    control = rows[0]["control"]
    names = {v: _names(rows, v) for v in ("better", "as good", "worse")}
    parts = [
        f"{names['better']} beat{_s(rows, 'better')} {control} rows" if names["better"] else "",
        f"{control} rows do as well as {names['as good']}" if names["as good"] else "",
        f"{names['worse']} {'is' if _s(rows, 'worse') else 'are'} worse than {control} rows" if names["worse"] else "",
    ]
    return "; ".join(part for part in parts if part) + "."


def _sum(content: dict[str, list[Row]]) -> str:
    """Return under which models features matter."""
    matter = [model for model, rows in content.items() if any(row["verdict"] == "better" for row in rows)]
    rest = [model for model in content if model not in matter]
    if not matter:
        return "features do not matter under any model."
    under = f"features matter under {_and(matter)}"
    return f"{under}, not under {_and(rest)}." if rest else f"{under}."


def _names(rows: list[Row], wanted: str) -> str:
    signed = "" if wanted == "as good" else " ({:+.4f})"
    return _and([row["features"] + signed.format(row["difference"]) for row in rows if row["verdict"] == wanted])


def _s(rows: list[Row], wanted: str) -> str:
    return "s" if sum(row["verdict"] == wanted for row in rows) == 1 else ""


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
