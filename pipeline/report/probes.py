"""Build tables of probe results from probes.json or a comparison."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.features.names import CEILINGS, LEAKED, PLANTED
from alignrec.pipeline.probe.registry import PROBES, Probe
from alignrec.pipeline.report.table import BEST, Place, Table, with_error
from alignrec.schemas import MODALITIES, variant

CHANCE, SHUFFLED = "chance", "shuffled"
LEAK_NOTE = (
    "`leaked` holds factors of all interactions, test included: what features could gain. Each cell: share of the gap "
    "between `shuffled` and `leaked`, raw features, headline figures. It knows what the probe of cold items hides."
)
ADDED = " + "  # between a feature set and one of its modalities
Figures = Mapping[str, float]  # measure, or measure_se -> figure
Json = Mapping[str, Any] | None


class ProbeFigures(NamedTuple):
    """Results of one probe, as its tables show them."""

    probe: Probe
    forms: Mapping[
        str, Mapping[str, Figures]
    ]  # raw and, if judged, processed -> feature set or chance -> its figures
    cases: int
    unit: str  # users or items
    skipped: str  # reason, or empty
    caveat: str  # caveat on the figures, and why sets were skipped; often empty
    chosen: Mapping[str, str] = {}  # feature set -> processed form, chosen on validation

    @property
    def measures(self) -> list[str]:
        chance = next((of[CHANCE] for of in self.forms.values()), {})
        return [name for name in chance if not name.endswith("_se")]

    @property
    def figure(self) -> str:
        return self.probe.figure if self.probe.figure in self.measures else self.measures[-1]

    @property
    def remark(self) -> str:
        return f"{self.skipped}." if self.skipped else self.caveat

    def by_set(self, form: str, figure: str) -> dict[str, float]:
        return {name: of[figure] for name, of in self.forms.get(form, {}).items() if figure in of}

    def sort_sets(self, form: str, figure: str) -> list[str]:
        of = self.by_set(form, figure)
        return sorted(of, key=lambda name: (name == CHANCE, -of[name]))

    def form_name(self, form: str, name: str) -> str:
        which = self.chosen.get(name, "") if form != "raw" else ""
        return f"{form}: {which}" if which else form


def read_probes(figures: Json) -> dict[str, ProbeFigures]:
    figures = figures or {}
    processed, found = figures.get("processed", {}), {}
    for key, probe in ((key, probe) for key, probe in PROBES.items() if key in figures):
        raw = figures[key]
        skipped = (name for name, of in raw.items() if isinstance(of, dict) and "skipped" in of)
        reasons = group_values((raw[name]["skipped"], name) for name in skipped)
        remarks = [
            f"Not shown for {', '.join(names)}: {reason}." for reason, names in reasons.items()
        ]
        cases, unit = next(((n, unit) for unit, n in raw.items() if isinstance(n, int)), (0, ""))
        forms = {
            form: {
                name: of
                for name, of in asked.items()
                if isinstance(of, dict) and "skipped" not in of
            }
            for form, asked in {"raw": raw, "processed": processed.get(key)}.items()
            if asked and "skipped" not in asked
        }
        chosen = {name: of["form"] for name, of in processed.get("forms", {}).items()}
        caveat = " ".join(filter(None, [raw.get("note"), *remarks]))
        found[key] = ProbeFigures(probe, forms, cases, unit, raw.get("skipped", ""), caveat, chosen)
    return found


def probe_tables(figures: Json) -> list[Table]:
    tables = []
    for probed in read_probes(figures).values():
        if probed.skipped:
            tables.append(Table(probed.probe.title, f"Not measured: {probed.skipped}.", [], []))
            continue
        columns, rows, marks = probed.measures, list[list[str]](), dict[Place, str]()
        for form, sets in probed.forms.items():
            ordered = probed.sort_sets(form, columns[len(columns) // 2])
            for j, c in enumerate(columns, start=2):
                competing = [(name not in CEILINGS, sets[name][c]) for name in ordered]
                marks[len(rows) + competing.index(max(competing)), j] = BEST
            for name in ordered:
                cells = [with_error(sets[name][c], sets[name].get(f"{c}_se")) for c in columns]
                rows.append([name, probed.form_name(form, name), *cells])
        asked = probed.probe.question
        notes = (
            f"{asked[:1].upper()}{asked[1:]}.",
            probed.probe.note.format(n=probed.cases),
            probed.remark,
        )
        head = ["feature set", "features", *columns]
        tables.append(
            Table(
                probed.probe.title, " ".join(filter(None, notes)), head, rows, texts=2, marks=marks
            )
        )
    return tables


def headline_table(figures: Json) -> Table:
    probes = read_probes(figures).values()
    columns = [probed for probed in probes if probed.by_set("raw", probed.probe.figure)]
    rows: list[list[str]] = []
    for form in ("raw", "processed"):
        found = [probed.by_set(form, probed.probe.figure) for probed in columns]
        rows += [
            [
                name,
                columns[0].form_name(form, name),
                *(f"{of[name]:.4f}" if name in of else "" for of in found),
            ]
            for name in dict.fromkeys(name for of in found for name in of)
        ]
    head = [
        "feature set",
        "features",
        *(f"{probed.probe.name} {probed.probe.figure}" for probed in columns),
    ]
    skipped = "; ".join(
        f"{probed.probe.name}: {probed.skipped}" for probed in probes if probed.skipped
    )
    return Table("", skipped, head, rows, texts=2)


def describe_processing(processed: Mapping[str, Any]) -> str:
    width = f"PCA to at most {processed['width']} numbers"
    if "chosen_by" not in processed:
        return f"Processed: centred, reduced by {width}, whitened."
    return (
        f"Processed: the form that validation prefers, per set: raw; centred, reduced by {width}, relaxed; or the "
        "same, whitened. Controls, masked sets and upper bounds stay raw."
    )


def leak_tables(figures: Json, trained: Mapping[str, Figures] | None = None) -> list[Table]:
    """Return where each feature set lies between `shuffled` (0) and `leaked` (1); empty if one is absent.

    `trained` has the figures of feature sets under recommenders.
    """
    found = {
        probed.probe.name: probed.by_set("raw", probed.probe.figure)
        for probed in read_probes(figures).values()
    }
    columns: dict[str, dict[str, float]] = {}
    for what, of in {**found, **(trained or {})}.items():
        if not {SHUFFLED, LEAKED} <= of.keys() or of[LEAKED] <= of[SHUFFLED]:
            continue
        room = of[LEAKED] - of[SHUFFLED]
        columns[what] = {name: (of[name] - of[SHUFFLED]) / room for name in of}

    names = {name: of[name] for of in columns.values() for name in of if name != CHANCE}
    rows = [
        [name, *(f"{of[name]:.0%}" if name in of else "" for of in columns.values())]
        for name in sorted(names, key=lambda name: -names[name])
    ]
    return (
        [Table("From shuffled to leaked", LEAK_NOTE, ["feature set", *columns], rows)]
        if rows
        else []
    )


def ceiling_tables(figures: Json) -> list[Table]:
    """Return figures of feature sets and modalities as fractions of the planted ones; empty without planted sets."""
    columns: dict[str, dict[str, float]] = {}
    for probed in read_probes(figures).values():
        of = probed.by_set("raw", probed.probe.figure)
        if not {PLANTED, CHANCE} <= of.keys() or of[PLANTED] <= of[CHANCE]:
            continue
        shares = {name: (of[name] - of[CHANCE]) / (of[PLANTED] - of[CHANCE]) for name in of}
        # gain from adding a modality, as a fraction of the gain from the planted modality
        for modality in MODALITIES:
            without = variant("", modality)
            room = of[PLANTED] - of.get(variant(PLANTED, modality), of[PLANTED])
            for name in (
                name for name in of if room > 0 and name != PLANTED and name + without in of
            ):
                shares[f"{name}{ADDED}{modality}"] = (of[name] - of[name + without]) / room
        columns[probed.probe.name] = shares
    if not columns:
        return []
    first = next(iter(columns.values()))
    names = [name for name in first if name == LEAKED or name not in (CHANCE, *CEILINGS)]
    names.sort(key=lambda name: (ADDED in name, -first[name]))
    note = (
        "The shoppers are synthetic, so the ground truth is known: the planted preferences. Each cell: share of the "
        "gap between chance and the ground truth, raw features, headline figures. `A + image`: what images add to the "
        "texts of A, as a share of what planted images add to planted texts; `A + text` likewise."
    )
    rows = [
        [name, *(f"{of[name]:.0%}" if name in of else "" for of in columns.values())]
        for name in names
    ]
    return [Table("From chance to the ground truth", note, ["feature set", *columns], rows)]
