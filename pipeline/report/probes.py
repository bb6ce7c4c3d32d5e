"""Build tables of probe results from probes.json or a comparison."""

from collections.abc import Mapping
from typing import NamedTuple

from alignrec.pipeline.evaluation.probe.registry import PROBES, Probe
from alignrec.pipeline.report.table import BEST, Fields, Place, Table, with_error

CHANCE = "chance"
SHUFFLED = "shuffled"
RAW = "raw"
PROCESSED = "processed"
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
            values = [sets[name][measure] for name in names]
            best = values.index(max(values))
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
        "relaxed; or the same, whitened. Controls and masked sets stay raw."
    )
