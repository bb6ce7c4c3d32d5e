"""A league as tables and a sentence, of table LEAGUE and league.json."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.evaluation.evidence import Cell, cell, collect
from pipeline.evaluation.statistics import LEVEL
from pipeline.report.difference import FLOORED, Difference
from pipeline.report.table import CHANGE, Table
from pipeline.report.words import listed, measure, run, title

HONEST, PUBLISHED = "honest", "published style"  # valid chooses, mean over runs; test chooses, one run of one split
TAUS = {
    "seeds": "between two seeds of one split",
    "splits": "between two splits, means over seeds",
    "published": "between published style and honest figures",
}
AUDIT = {
    "repeated_pairs": "pairs of a user and an item that occur again",
    "pairs_in_train_and_later": "pairs in train that valid or test ask for again",
    "cold_users": "users in valid or test that train lacks",
    "cold_items": "items of the catalogue that train lacks",
    "cold_targets": "share of test rows whose item train lacks",
    "test_before_own_train": "share of test rows older than the same user's latest train row",
    "train_after_first_test": "share of train rows later than the first test row of any user",
    "popular_in_train": "share of train rows on the tenth of the items that train has most of",
    "popular_in_test": "share of test rows on them",
    "shift": "distance of the items' shares in train and in test, 0 to 1",
    "shift_by_chance": "the same where test is drawn at random",
}
COUNTS = 4  # of them are counts; others are shares


class Standing(NamedTuple):
    """One contender."""

    model: str
    features: str
    recall: Cell | None  # honest, by run; None where none ended
    ndcg: Cell | None
    own: Cell | None  # honest recall on the data's own split
    published: float | None
    gap: float | None  # published style to honest on the same split, relative
    tried: int  # settings a split
    hours: float | None  # of CPU, all trainings together; None where one was trained by another command
    seconds: float | None  # of CPU, the median training
    memory: int | None  # MiB, the most

    @property
    def name(self) -> str:
        return run(self.model, self.features)


def standings(league: pa.Table) -> list[Standing]:
    groups = collect(((row["model"], row["features"]), row) for row in league.to_pylist())  # some thousand trainings
    found = [_standing(*key, rows) for key, rows in groups.items()]
    return sorted(found, key=lambda one: -(one.recall.mean if one.recall else -1))


def _standing(model: str, features: str, rows: Sequence[Mapping[str, Any]]) -> Standing:
    ended = [row for row in rows if row["by_valid"] and row["recall"] is not None]
    first = [row for row in ended if not row["split"]]
    recall, ndcg = (cell([row[m] for row in ended]) if ended else None for m in ("recall", "ndcg"))
    own = cell([row["recall"] for row in first]) if first else None
    published = next((row["recall"] for row in rows if row["by_test"]), None)
    gap = round(published / own.mean - 1, 3) + 0.0 if published is not None and own and own.mean else None
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    whole = sum(seconds) / 3600 if len(seconds) == len(rows) else None
    tried, memory = len({row["number"] for row in rows}), max((row["memory_mib"] or 0 for row in rows), default=0)
    middle = float(np.median(seconds)) if seconds else None
    return Standing(model, features, recall, ndcg, own, published, gap, tried, whole, middle, memory or None)


def standing(league: pa.Table) -> Table:
    protocol, k, budget = (league[column][0].as_py() for column in ("protocol", "k", "budget"))
    splits, seeds = (len(league[column].unique()) for column in ("split", "seed"))
    marks = sorted(zip(league["split"].to_pylist(), league["fingerprint"].to_pylist(), strict=True))
    rows = [
        [one.model, one.features, *("" if cell is None else cell for cell in (one.recall, one.ndcg, one.own)),
         _optional(one.published, ".4f"), _optional(one.gap, "+.1%"), str(one.tried), _optional(one.hours, ".3f"),
         _optional(one.seconds, ".1f"), _optional(one.memory, ",d")]
        for one in standings(league)
    ]  # fmt: skip
    return Table.of(
        f"Standing, protocol {protocol}",
        f"Honest: valid chose among {budget} settings at most, test is the mean ± sd over {splits} splits of {seeds} "
        f"seeds. Published style: the best test figure of those settings, one seed, the data's own split. Gap: "
        f"published style to honest there. Time is of CPU; memory is the process's, libraries included. Fingerprints: "
        f"{', '.join(dict.fromkeys(mark for _, mark in marks))}.",
        ["model", "features", f"{measure('recall', k)}, {HONEST}", f"{measure('ndcg', k)}, {HONEST}", "own split",
         f"{measure('recall', k)}, {PUBLISHED}", "gap", "settings", "hours, all", "s/training", "MiB"],
        rows, texts=2, best=[2],
    )  # fmt: skip


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def differing(rows: Sequence[Mapping[str, Any]], heading: str, note: str, first: str = "") -> Table:
    note += (
        f" Users are paired, their figures averaged over seeds and splits; p is Holm's for all {len(rows)}. {FLOORED}"
    )
    cells = [[row["a"], row["b"], Difference.of(row)] for row in rows if first in ("", row["a"])]
    return Table.of(heading, note, ["a", "b", "a - b", *CHANGE[1:]], cells, 2)


def gains(found: Mapping[str, Any]) -> Table:
    return differing(found["gains"], "What features add", "The same model on the judged set and on another.")


def lead(found: Mapping[str, Any]) -> Table:
    note = "On the judged set, or on ids; league.json has every pair of models."
    return differing(found["pairs"], "The first against all others", note, next(iter(found["ranks"]), ""))


def stability(found: Mapping[str, Any]) -> Table:
    rows = [[TAUS[name], "" if tau is None else f"{tau:.2f}"] for name, tau in found["stability"].items()]
    note = "Kendall's tau of the models' order, the mean over pairs: 1 is the same order, 0 is chance."
    return Table("How stable the order is", note, ["order", "tau"], rows)


def audit(found: Mapping[str, Any]) -> Table:

    def text(place: int, value: float | None) -> str:
        return "no times" if value is None else f"{value:,.0f}" if place < COUNTS else f"{value:.3f}"

    rows = [[words, text(i, found["audit"][key])] for i, (key, words) in enumerate(AUDIT.items())]
    return Table("Split audit", "Of the data's own split, after filtering.", ["what", "figure"], rows)


def settings(league: pa.Table) -> Table:
    rows = [row for row in league.to_pylist() if not row["seed"]]
    chosen = [
        [run(row["model"], row["features"]), str(row["split"]), " and ".join(by), _setting(row["setting"])]
        for row in rows
        if (by := [what for what in ("valid", "test") if row[f"by_{what}"]])
    ]
    return Table("Settings", "By split.", ["contender", "split", "chosen by", "setting"], chosen, texts=4)


def _setting(text: str) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in json.loads(text).items()) or "as given"


def titled(contender: str) -> str:
    model, on, features = contender.partition(" on ")
    return f"{title(model)}{on}{features}"


def headline(found: Mapping[str, Any]) -> str:
    order = list(found["ranks"])
    if not order:
        return ""
    level = [titled(name) for name in next((group for group in found["groups"] if order[0] in group), order[:1])]
    lead = f"{level[0]} leads" if len(level) == 1 else f"{listed(level)} lead, without a significant difference"
    others = dict.fromkeys(row["b"].partition(" on ")[2] for row in found["gains"])
    return "; ".join([lead, *(_gain_clause(found["gains"], name) for name in others)]) + "."


def _gain_clause(gains: Sequence[Mapping[str, Any]], name: str) -> str:
    tested = [row["difference"] for row in gains if row["b"].endswith(f" on {name}")]
    sure = [row["difference"] for row in gains if row["b"].endswith(f" on {name}") and row["p_holm"] < LEVEL]
    lost = f" and worse in {n}" if (n := sum(gain < 0 for gain in sure)) else ""
    return f"features are better than {name} in {sum(gain > 0 for gain in sure)}{lost} of {len(tested)} models"
