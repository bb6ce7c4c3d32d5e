"""Figures and names as text."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline import models
from pipeline.evaluation.evidence import MAIN, Cell, Comparison, seeds_of
from pipeline.models import MODELS

CONTROLS = ("random", "shuffled", "constant")  # feature sets that a useful one must beat
DRAWS = re.compile(r" in (\d+) draws")  # of a protocol's name, see pipeline/evaluation/protocol.py
METRICS = {"recall": "Recall", "ndcg": "NDCG"}
ENCODERS = {"beit3": "BEiT3", "cnn": "CNN", "minilm": "MiniLM", "tfidf": "TF-IDF"}


def figure(cell: Cell | None, form: str = ".4f") -> str:
    return "" if cell is None else with_error(cell.mean, cell.sd, form)


def with_error(value: float, error: float | None, form: str = ".4f") -> str:
    """Return value ± error, or only the value; only the value may have a plus sign."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.removeprefix('+')}}")


def short(text: str) -> str:
    """Return a text with .25 for 0.25."""
    return re.sub(r"\b0\.", ".", text)


def title(name: str) -> str:
    """Return the authors' spelling of a feature set or a model, such as MiniLM + CNN; others are unchanged."""
    if name in MODELS:
        return models.title(name)
    parts = name.split("-")
    known = [part for part in parts if part in ENCODERS]
    if not known or parts[: len(known)] != known:
        return name
    return " ".join([" + ".join(ENCODERS[part] for part in known), *parts[len(known) :]])


def spread(counts: Iterable[int]) -> str:
    """Return `mean ± sd over 3 seeds`, or `1 seed`."""
    over = seeds_of(counts)
    return over if over == "1 seed" else f"mean ± sd over {over}"


def measure(metric: str, k: int) -> str:
    return f"{METRICS.get(metric, metric)}@{k}"


RECALL = measure(*MAIN)


def run(model: str, features: str, ablation: str = "") -> str:
    content = "" if features == "none" else f" on {features}"
    return f"{title(model)}{content}" + (f", {ablation}" if ablation else "")


def protocol(row: Mapping[str, Any]) -> str:
    drawn = DRAWS.search(row["protocol"])
    over = f" Runs take the {drawn[1]} draws in turn; deviations and intervals are over draws too." if drawn else ""
    return f"Protocol {row['protocol']}, fingerprint {row['fingerprint']}.{over}"


def after(text: str, label: str, mark: str = "; ") -> str:
    return f"{text}{mark}{label}" if label else text


def labelled(comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, str]]:
    """Yield each comparison with its protocol, or with an empty label where there is only one."""
    for comparison in comparisons:
        yield comparison, comparison.protocol if len(comparisons) > 1 else ""
