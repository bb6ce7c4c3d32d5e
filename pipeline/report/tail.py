"""The section of the long tail: who is shown, and whom AlignRec serves."""

from __future__ import annotations

import schemas
from pipeline.evaluation.evidence import seeds_of
from pipeline.facts import tail as facts
from pipeline.facts import words
from pipeline.facts.outputs import Outputs
from pipeline.facts.tail import Groups, Shown
from pipeline.models import RELEASED
from pipeline.report import plots
from pipeline.report.plots import Intervals, Picture, Shares
from pipeline.report.section import Section

LINES = 4
"""runs in a picture of groups, best Recall@20 first"""
WHOSE = {"popularity": "Recall of targets by popularity of the item",
         "history": "Recall of users by number of train interactions"}  # fmt: skip
UNITS = {"popularity": {str(n): f"tenth {n}" for n in range(1, 11)} | {"cold": "cold items"}, "history": {}}
"""slice -> label -> its name where it stands alone"""


def section(outputs: Outputs) -> Section:
    """Return the section; an empty one without slices and without the study of the tail."""
    studied = outputs.study.get("tail", schemas.TAIL.empty_table())
    drawn: list[Picture | None] = []
    said: list[str] = []
    tables = facts.tails(studied)
    tested = bool(tables)
    for comparison, label in words.labelled(outputs.compared):
        k, slices = facts.sliced(outputs.slices, comparison)
        over = words.after(f"mean over {seeds_of(r.seeds for r in comparison.rows)}", label)
        who = facts.shown(slices)
        said += facts.in_words(who, words.run(RELEASED, outputs.released))
        drawn.append(shares(who, f"Who is shown: share of the top {k}, {over}"))
        for which in facts.SLICES:
            groups = facts.by_study(studied, comparison, which) if tested else facts.by_slices(slices, which)
            title = f"{WHOSE[which]}, {'95 % interval, ' if tested else ''}{over}"
            drawn.append(served(groups, which, title, outputs.released))
        of_slices = [] if tested else [table for which in facts.SLICES for table in facts.means(slices, which, k)]
        tables += [table.under(label) for table in (*facts.catalogue(slices, k), *of_slices)]
    note = " ".join(["A recommender can be right by showing everybody the same few items.", *said])
    return Section("tail", "Long tail", "The long tail", note, drawn, tables=tables)


def shares(who: Shown, title: str) -> Shares | None:
    """Return a bar a run, and that of the test targets."""
    rows = [(run, list(parts.values())) for run, parts in who.items()]
    return Shares(title, list(next(iter(who.values()))), rows) if rows else None


def served(groups: Groups, which: str, title: str, released: str) -> Intervals | None:
    """Return recall of each group, for each model on the released features or on ids alone; the best few models."""
    runs = [run for run in groups if run[1] in (released, "none")][:LINES]
    labels = list(dict.fromkeys(label for run in runs for label in groups[run]))
    rows = [plots.Row(UNITS[which].get(label, label), [groups[run].get(label) for run in runs], "") for label in labels]
    return plots.intervals(title, rows, [words.run(*run) for run in runs], axis="recall")
