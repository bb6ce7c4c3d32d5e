"""league.html: one self-contained page of a league."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.facts import league as facts
from pipeline.facts.difference import Difference
from pipeline.facts.words import figure
from pipeline.report import plots
from pipeline.report.gallery import Sheets
from pipeline.report.page import render
from pipeline.report.plots import Section

RANKED = "Mean rank over splits and seeds; a bar joins models without a significant difference"


def html(dataset: str, kind: str, league: pa.Table, found: Mapping[str, Any]) -> str:
    """Return the page of table LEAGUE, other data sets' rows too, and of what follows from it, league.json."""
    others = [name for name in dict.fromkeys(league["dataset"].to_pylist()) if name != dataset]
    gained = [plots.change(f"{row['a']} - {row['b']}", Difference.of(row)) for row in found["gains"]]
    gain = plots.intervals("Gain in test recall, 95 % interval over users", gained)
    order = plots.ranks(RANKED, found["ranks"], found["groups"])
    standing = [facts.standing(league, dataset), *facts.fused(found)]
    rest = [*facts.across(league), *(facts.standing(league, name) for name in others)]
    parts = [
        Section("standing", "Standing", "Who stands where", "", [_recalls(league, dataset)], tables=standing),
        Section("gains", "Features", "What features add", "", [gain], tables=[facts.gains(found)]),
        Section(
            "tests", "Tests", "Paired comparisons", "", [order], tables=[facts.lead(found), facts.stability(found)]
        ),
        Section("audit", "Split audit", "Split audit", tables=[facts.audit(found)]),
        Section("settings", "Settings", "Settings", _left_out(found), tables=[facts.settings(league, dataset)]),
        Section("others", "Other data sets", "Other data sets", tables=rest),
    ]
    return render(
        "compared.html", Sheets([], {}), what="league", command="league", dataset=dataset, title=f"{dataset}: league",
        kind=kind, parts=[part for part in parts if part], data={}, pairs=[], note="", plot=plots, verdict=[],
        lead=f"{len(found['ranks'])} models, the same number of settings each, chosen on valid.",
        chips=facts.claims(found),
    )  # fmt: skip


def _left_out(found: Mapping[str, Any]) -> str:
    return " ".join(f"Left out: {reason}." for reason in found["left_out"].values())


def _recalls(league: pa.Table, dataset: str) -> plots.Picture | None:
    rows = [one for one in facts.standings(league) if one.dataset == dataset and one.recall]
    keys = [facts.HONEST, facts.PUBLISHED]
    drawn = []
    for one in rows:
        assert one.recall
        sd, flat = one.recall.sd or 0.0, one.published or 0.0
        spans = [(one.recall.mean - sd, one.recall.mean, one.recall.mean + sd), (flat, flat, flat)]
        drawn.append(plots.Row(one.name, spans, figure(one.recall)))
    return plots.intervals("Test recall, ± sd over splits and seeds:", drawn, keys)
