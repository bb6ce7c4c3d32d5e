"""Build tables of probe results from probes.json or a comparison."""

from collections.abc import Mapping
from typing import NamedTuple

from alignrec.pipeline.evaluation.probe.registry import PROBES, Probe
from alignrec.pipeline.features.names import CEILINGS, LEAKED, PLANTED
from alignrec.pipeline.report.table import BEST, Fields, Place, Table, with_error
from alignrec.schemas import MODALITIES, variant

CHANCE = "chance"
SHUFFLED = "shuffled"
RAW = "raw"
PROCESSED = "processed"
LEAK_NOTE = (
    "`leaked` holds factors of all interactions, test included: what features could gain. Each "
    "cell: share of the gap between `shuffled` and `leaked`, raw features, headline figures. It "
    "knows what the probe of cold items hides."
)
CEILING_NOTE = (
    "The shoppers are synthetic, so the ground truth is known: the planted preferences. Each cell: "
    "share of the gap between chance and the ground truth, raw features, headline figures. "
    "`A + image`: what images add to the texts of A, as a share of what planted images add to "
    "planted texts; `A + text` likewise."
)
ADDED = " + "  # between a feature set and one of its modalities
Figures = Mapping[str, float]  # measure, or measure_se -> figure
BySet = Mapping[str, float]  # feature set or chance -> figure


class ProbeFigures(NamedTuple):
    """Results of one probe, as its tables show them."""

    probe: Probe
    # raw and, if judged, processed -> feature set or chance -> its figures
    forms: Mapping[str, Mapping[str, Figures]]
    cases: int
    unit: str  # users or items
    skipped: str  # reason, or empty
    caveat: str  # caveat on the figures, often empty
    chosen: Mapping[str, str] = {}  # feature set -> processed form, chosen on validation

    @property
    def measures(self) -> list[str]:
        chance = next((sets[CHANCE] for sets in self.forms.values()), {})
        return [name for name in chance if not name.endswith("_se")]

    @property
    def figure(self) -> str:
        return self.probe.figure if self.probe.figure in self.measures else self.measures[-1]

    @property
    def remark(self) -> str:
        return f"{self.skipped}." if self.skipped else self.caveat

    def headline(self, form: str) -> dict[str, float]:
        return self.by_set(form, self.probe.figure)

    def by_set(self, form: str, figure: str) -> dict[str, float]:
        sets = self.forms.get(form, {})
        return {name: figures[figure] for name, figures in sets.items() if figure in figures}

    def sort_sets(self, form: str, figure: str) -> list[str]:
        values = self.by_set(form, figure)
        return sorted(values, key=lambda name: (name == CHANCE, -values[name]))

    def form_name(self, form: str, name: str) -> str:
        if form == RAW or name not in self.chosen:
            return form
        return f"{form}: {self.chosen[name]}"


def read_probes(figures: Fields | None) -> dict[str, ProbeFigures]:
    figures = figures or {}
    processed = figures.get(PROCESSED, {})
    chosen = {name: form["form"] for name, form in processed.get("forms", {}).items()}
    return {
        key: _read_probe(probe, figures[key], processed.get(key), chosen)
        for key, probe in PROBES.items()
        if key in figures
    }


def _read_probe(
    probe: Probe, raw: Fields, processed: Fields | None, chosen: Mapping[str, str]
) -> ProbeFigures:
    forms = {}
    for form, entries in {RAW: raw, PROCESSED: processed}.items():
        if entries and "skipped" not in entries:
            forms[form] = _measured_sets(entries)

    cases, unit = 0, ""
    for name, entry in raw.items():
        if isinstance(entry, int) and not unit:
            cases, unit = entry, name

    skipped, caveat = raw.get("skipped", ""), raw.get("note", "")
    return ProbeFigures(probe, forms, cases, unit, skipped, caveat, chosen)


def _measured_sets(entries: Fields) -> dict[str, Figures]:
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def probe_tables(figures: Fields | None) -> list[Table]:
    tables = []
    for probed in read_probes(figures).values():
        if probed.skipped:
            note = f"Not measured: {probed.skipped}."
            tables.append(Table(probed.probe.title, note, [], []))
        else:
            tables.append(_probe_table(probed))
    return tables


def _probe_table(probed: ProbeFigures) -> Table:
    measures = probed.measures
    rows: list[list[str]] = []
    marks: dict[Place, str] = {}
    for form, sets in probed.forms.items():
        names = probed.sort_sets(form, measures[len(measures) // 2])
        for column, measure in enumerate(measures, start=2):
            competing = [(name not in CEILINGS, sets[name][measure]) for name in names]
            best = competing.index(max(competing))
            marks[len(rows) + best, column] = BEST

        for name in names:
            cells = [_format_measure(sets[name], measure) for measure in measures]
            rows.append([name, probed.form_name(form, name), *cells])

    question = probed.probe.question
    notes = [
        f"{question[:1].upper()}{question[1:]}.",
        probed.probe.note.format(n=probed.cases),
        probed.remark,
    ]
    note = " ".join(filter(None, notes))
    head = ["feature set", "features", *measures]
    return Table(probed.probe.title, note, head, rows, texts=2, marks=marks)


def _format_measure(figures: Figures, measure: str) -> str:
    return with_error(figures[measure], figures.get(f"{measure}_se"))


def headline_table(figures: Fields | None) -> Table:
    probes = read_probes(figures).values()
    columns = [probed for probed in probes if probed.headline(RAW)]
    rows: list[list[str]] = []
    for form in (RAW, PROCESSED):
        values = [probed.headline(form) for probed in columns]
        names: dict[str, None] = {}
        for by_set in values:
            names |= dict.fromkeys(by_set)
        for name in names:
            cells = [_format_cell(by_set, name, ".4f") for by_set in values]
            rows.append([name, columns[0].form_name(form, name), *cells])

    head = ["feature set", "features"]
    head += [f"{probed.probe.name} {probed.probe.figure}" for probed in columns]
    skipped = [f"{probed.probe.name}: {probed.skipped}" for probed in probes if probed.skipped]
    return Table("", "; ".join(skipped), head, rows, texts=2)


def _format_cell(by_set: BySet, name: str, number_format: str) -> str:
    return f"{by_set[name]:{number_format}}" if name in by_set else ""


def describe_processing(processed: Fields) -> str:
    width = f"PCA to at most {processed['width']} numbers"
    if "chosen_by" not in processed:
        return f"Processed: centred, reduced by {width}, whitened."
    return (
        f"Processed: the form that validation prefers, per set: raw; centred, reduced by {width}, "
        "relaxed; or the same, whitened. Controls, masked sets and upper bounds stay raw."
    )


def leak_tables(figures: Fields | None, trained: Mapping[str, BySet] | None = None) -> list[Table]:
    """Return where each feature set lies between `shuffled` and `leaked`; empty without one.

    `trained` has the figures of feature sets under recommenders.
    """
    values: dict[str, BySet] = {}
    for probed in read_probes(figures).values():
        values[probed.probe.name] = probed.headline(RAW)
    values |= trained or {}

    columns = {}
    last_shares: dict[str, float] = {}
    for title, by_set in values.items():
        shares = _shares_between(by_set, SHUFFLED, LEAKED)
        if shares:
            columns[title] = shares
            last_shares |= shares
    last_shares.pop(CHANCE, None)

    names = sorted(last_shares, key=lambda name: -last_shares[name])
    return _share_tables("From shuffled to leaked", LEAK_NOTE, names, columns)


def ceiling_tables(figures: Fields | None) -> list[Table]:
    """Return figures of feature sets and modalities as fractions of the planted ones, if any."""
    columns = {}
    for probed in read_probes(figures).values():
        by_set = probed.headline(RAW)
        shares = _shares_between(by_set, CHANCE, PLANTED)
        if shares:
            columns[probed.probe.name] = shares | _shares_of_modalities(by_set)
    if not columns:
        return []

    first = next(iter(columns.values()))
    names = [name for name in first if name == LEAKED or name not in (CHANCE, *CEILINGS)]
    names.sort(key=lambda name: (ADDED in name, -first[name]))
    return _share_tables("From chance to the ground truth", CEILING_NOTE, names, columns)


def _shares_between(by_set: BySet, floor: str, ceiling: str) -> dict[str, float]:
    """Return figures as fractions of the way from floor to ceiling; empty without such a way."""
    if not {floor, ceiling} <= by_set.keys() or by_set[ceiling] <= by_set[floor]:
        return {}
    gap = by_set[ceiling] - by_set[floor]
    return {name: (figure - by_set[floor]) / gap for name, figure in by_set.items()}


def _shares_of_modalities(by_set: BySet) -> dict[str, float]:
    """Return gains from adding a modality, as fractions of the gain from the planted one."""
    shares = {}
    for modality in MODALITIES:
        planted = by_set[PLANTED]
        gap = planted - by_set.get(variant(PLANTED, modality), planted)
        if gap <= 0:
            continue
        for name, figure in by_set.items():
            masked = name + variant("", modality)
            if name != PLANTED and masked in by_set:
                shares[f"{name}{ADDED}{modality}"] = (figure - by_set[masked]) / gap
    return shares


def ceiling_shares(figures: Fields | None, name: str) -> tuple[str, list[float]]:
    """Return the upper bound and a set's share of it in each probe; empty without a bound."""
    for floor, ceiling in ((CHANCE, PLANTED), (SHUFFLED, LEAKED)):
        shares = []
        for probed in read_probes(figures).values():
            by_set = _shares_between(probed.headline(RAW), floor, ceiling)
            if name in by_set:
                shares.append(by_set[name])
        if shares:
            return ceiling, shares
    return "", []


def _share_tables(
    heading: str, note: str, names: list[str], columns: Mapping[str, BySet]
) -> list[Table]:
    rows = [
        [name, *(_format_cell(shares, name, "z.0%") for shares in columns.values())]
        for name in names
    ]
    return [Table(heading, note, ["feature set", *columns], rows)] if rows else []
