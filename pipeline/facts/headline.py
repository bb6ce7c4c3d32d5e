"""What DVC shows of a run, and git keeps: about ten headline figures, and the rows of the plots."""

from collections.abc import Iterable
from typing import Any

from pipeline import io
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import Row
from pipeline.facts import article, probes
from pipeline.facts.outputs import Outputs
from pipeline.facts.words import CONTROLS

PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")  # those that ask what the features know by themselves
DIGITS = 4  # after the point, as in every table


def write(outputs: Outputs, model: str) -> None:
    """Write metrics.json, and a file of rows a plot; a part that did not run has no figure and no row.

    Of the article's tables those that the run has are written, and others stay: CLIP, say, has a run of its own.
    """
    curves = {stage: outputs.history(stage) for stage in ("pretrain", "train")}
    studied = {part: outputs.plotted(part) for part in ("mask", "curves", "heatmaps")}
    for plot, rows in (curves | studied).items():
        io.write_json(outputs.layout.figures(plot), rows)
    for part, tables in article.tables(outputs).items():
        io.write_json(outputs.layout.figures(f"article-{part}"), [article.kept(table) for table in tables])
    figures = _valid(curves["train"]) | _test(outputs, model) | _probed(outputs) | _pretrained(curves["pretrain"])
    io.write_json(outputs.layout.figures("metrics"), {name: round(value, DIGITS) for name, value in figures.items()})


def _valid(history: list[dict[str, Any]]) -> dict[str, float]:
    return {"valid": max(line["valid_recall@20"] for line in history)} if history else {}


def _test(outputs: Outputs, model: str) -> dict[str, float]:
    rows = outputs.compared[0].rows if outputs.compared else []
    k = headline(sorted({k for row in rows for _, k in row.cells}) or [0])
    figures: dict[str, float] = {}
    for row in rows:
        if (row.model, row.features) == (model, outputs.released):
            recall, ndcg = row.cells["recall", k], row.cells["ndcg", k]
            sd = {} if recall.sd is None else {"sd": recall.sd}
            figures |= {f"recall@{k}": recall.mean, **sd, f"ndcg@{k}": ndcg.mean}
    figures |= _best("baseline", (row for row in rows if row.model != model), k)
    return figures | _best("control", (row for row in rows if row.model == model and row.features in CONTROLS), k)


def _best(name: str, rows: Iterable[Row], k: int) -> dict[str, float]:
    means = [row.cells["recall", k].mean for row in rows]
    return {name: max(means)} if means else {}


def _probed(outputs: Outputs) -> dict[str, float]:
    read = probes.read(outputs.probes)
    found = {key: read[key].of("raw", read[key].probe.figure) for key in PROBES if key in read}
    return {key: of[outputs.released] for key, of in found.items() if outputs.released in of}


def _pretrained(history: list[dict[str, Any]]) -> dict[str, float]:
    last = history[-1] if history else {}
    return {task: last[f"{task}_accuracy"] for task in ("mim", "mlm") if last.get(f"{task}_accuracy") is not None}
