"""The league, a benchmark on several splits, as a section."""

import pyarrow as pa

from pipeline.report import plots
from pipeline.report import standings as facts
from pipeline.report.difference import Difference
from pipeline.report.outputs import Outputs
from pipeline.report.plots import Section
from pipeline.report.words import figure

RANKED = "Mean rank over splits and seeds; a bar joins models without a significant difference"


def section(outputs: Outputs) -> Section:
    name, heading, (league, found) = "league", "Over splits and seeds", (outputs.league, outputs.league_facts)
    if league is None or not found:
        return Section(name, "Splits", heading)
    gained = [
        plots.change(f"{facts.titled(row['a'])}, minus on {row['b'].partition(' on ')[2]}", Difference.of(row))
        for row in found["gains"]
    ]
    gain = plots.intervals("Gain in test recall, 95 % interval over users", gained)
    ranks = {facts.titled(name): rank for name, rank in found["ranks"].items()}
    level = [[facts.titled(name) for name in group] for group in found["groups"]]
    drawn = [_recalls(league), gain, plots.ranks(RANKED, ranks, level)]
    tables = [
        *(facts.standing(league), facts.gains(found), facts.lead(found), facts.stability(found)),
        *(facts.audit(found), facts.settings(league)),
    ]
    note = " ".join([facts.headline(found), *(f"Left out: {reason}." for reason in found["left_out"].values())])
    return Section(name, "Splits", heading, note, drawn, tables=[table for table in tables if table.rows])


def _recalls(league: pa.Table) -> plots.Picture | None:
    rows = []
    for one in facts.standings(league):
        if one.recall:
            sd, flat = one.recall.sd or 0.0, one.published or 0.0
            spans = [(one.recall.mean - sd, one.recall.mean, one.recall.mean + sd), (flat, flat, flat)]
            rows.append(plots.Row(one.name, spans, figure(one.recall)))
    return plots.intervals("Test recall, mean ± sd over splits and seeds:", rows, [facts.HONEST, facts.PUBLISHED])
