"""Semantic IDs: the quality of codes, and items grouped by prefix."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline import io
from pipeline.evaluation.evidence import cell, collect
from pipeline.layout import Layout
from pipeline.probe.registry import PROBES
from pipeline.report.table import Table
from pipeline.report.words import figure, short
from pipeline.semantic_ids.quality import POPULARITY
from pipeline.semantic_ids.registry import METHODS

HEADING = "Semantic IDs"
AS_IT_IS = "as it is"  # method of a file's codes
PROBED = ("zero_shot", "item_cf")
AGREEMENT = {"neighbours": "neighbours", "co_purchase": "bought together", "category": "category"}


class Judged(NamedTuple):
    """Semantic IDs with their figures."""

    features: str
    method: str
    quality: Mapping[str, Any]  # see pipeline/semantic_ids/quality.py
    seed: int = 0  # number of the codebooks, where there are several

    @property
    def name(self) -> str:
        return f"{self.features} · {self.method}"


def gathered(layout: Layout) -> list[Judged]:
    from pipeline.semantic_ids import files  # loads safetensors, which a light install's pages do without

    order = list(METHODS)
    found = [path.parent for path in layout.folder("semantic_ids").glob(f"*/*/{files.FACTS}")]
    found.sort(key=lambda p: (p.parent.name, order.index(p.name) if p.name in order else len(order), p.name))
    judged = (Judged(p.parent.name, p.name, io.read_json(p / files.FACTS).get("quality")) for p in found)
    return [j for j in judged if j.quality]


def compared(comparison: Mapping[str, Any]) -> list[Judged]:
    return [Judged(**row) for row in comparison["codes"]]


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    if all(row["method"] != AS_IT_IS for row in comparison["codes"]):
        return []
    if (features := comparison["neighbours_of"]) is None:
        return ["neighbours: unknown for files of codes; compare them with a feature set"]
    return [f"neighbours: files of codes are judged by those of {features}"]


def tables(judged: Sequence[Judged]) -> list[Table]:
    first = [j for j in judged if not j.seed]
    return [table for table in (headline(first), cost(first), over_seeds(judged)) if table.rows]


def headline(judged: Sequence[Judged]) -> Table:
    note = (
        "Collide: items that share all codes with another, before and after the policy; before it in thirds of the "
        "items by popularity. Perplexity: number of evenly used codes, by level. Bits: entropy of whole ids, and the "
        "most possible. Neighbours, bought together: how often such items share the first code; category: how often "
        "items of one first code share it; "
        f"by chance in brackets. Last: how hit@20 changes with reconstructed vectors.{_controls(judged)}"
    )
    head = ["codes", "collide", "head, middle, tail", "perplexity", "bits", *AGREEMENT.values()]
    return Table(HEADING, note, [*head, *(PROBES[p].name for p in PROBED)], [_row(j) for j in judged], texts=1)


def cost(judged: Sequence[Judged]) -> Table:
    rows = [
        [j.name, f"{PROBES[probe].name} {f['measure']}",
         *(f"{f[key]:.4f}" for key in ("original", "reconstructed", "chance")),
         f"{f['difference']:+.4f}", f"{f['low']:+.4f} .. {f['high']:+.4f}", f"{f['p_holm']:.4f}"]
        for j in judged for probe, f in _probe_figures(j).items()
    ]  # fmt: skip
    note = (
        "Vectors that the codes stand for, compared with the coded ones: difference, its 95 % interval and p by "
        "paired bootstrap, corrected (Holm) for the probes of a method."
    )
    head = ["codes", "measure", "original", "reconstructed", "chance", "difference", "95 % interval"]
    return Table("What coding costs", f"{note}{_skip_reasons(judged)}", [*head, "p, Holm"], rows, texts=2)


def over_seeds(judged: Sequence[Judged]) -> Table:
    rows = []
    for features, method in dict.fromkeys((j.features, j.method) for j in judged if j.seed):
        drawn = [j.quality for j in judged if (j.features, j.method) == (features, method)]
        shares = [[q["collisions"]["before"] for q in drawn]]
        shares += [[q["prefixes"][0][key] for q in drawn] for key in AGREEMENT]
        changes = [[q["reconstruction"].get(probe, {}).get("difference") for q in drawn] for probe in PROBED]
        cells = [
            figure(None if None in values else cell(values), form)
            for measures, form in ((shares, ".3f"), (changes, "+.4f"))
            for values in measures
        ]
        rows.append([f"{features} · {method}", str(len(drawn)), *cells])
    head = ["codes", "seeds", "collide", *AGREEMENT.values(), *(PROBES[p].name for p in PROBED)]
    note = "Mean ± standard deviation over codebooks of several seeds; the other tables show the first."
    return Table("Over seeds", note, head, rows, texts=1)


def _row(judged: Judged) -> list[str]:
    q, probed = judged.quality, _probe_figures(judged)
    first, whole = q["prefixes"][0], q["prefixes"][-1]
    before, after = (q["collisions"][when] for when in ("before", "after"))
    return [
        judged.name,
        f"{before:.0%}" if before == after else f"{before:.0%} → {after:.0%}",
        ", ".join(f"{share:.0%}" for third in POPULARITY if (share := q["collisions"].get(third)) is not None),
        ", ".join(f"{level['perplexity']:.0f}" for level in q["levels"]),
        f"{whole['bits']:.1f}/{whole['most_bits']:.1f}",
        *(_with_chance(first, key) for key in AGREEMENT),
        *(f"{probed[p]['difference']:+.3f}" if p in probed else "" for p in PROBED),
    ]


def _probe_figures(judged: Judged) -> dict[str, Mapping[str, Any]]:
    rows = {probe: judged.quality["reconstruction"].get(probe, {"skipped": ""}) for probe in PROBED}
    return {probe: figures for probe, figures in rows.items() if "skipped" not in figures}


def _controls(judged: Sequence[Judged]) -> str:
    names = list(dict.fromkeys(j.method for j in judged if j.quality["control"]))
    if not names:
        return ""
    are, them = ("are controls", "them") if names[1:] else ("is a control", "it")
    return f" {', '.join(names)} {are}: useful codes must beat {them}."


def _skip_reasons(judged: Sequence[Judged]) -> str:
    skipped = ((j.quality["reconstruction"].get("skipped"), j.method) for j in judged)
    reasons = collect((reason, method) for reason, method in skipped if reason)
    return "".join(f" Not for {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in reasons.items())


def _with_chance(prefix: Mapping[str, Any], key: str) -> str:
    shares = (prefix[key], prefix[f"{key}_chance"])
    value, by_chance = ("" if share is None else short(f"{share:.3f}") for share in shares)
    return f"{value} ({by_chance})" if value and by_chance else value
