"""Sections of charts and tables, in order, for both index.html and report.md."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from alignrec.pipeline.beit3.stopping import TASKS, list_at_chance
from alignrec.pipeline.encoders.params import MAX_UNKNOWN
from alignrec.pipeline.evaluation.evidence import MAIN, Comparison
from alignrec.pipeline.evaluation.statistics import LEVEL
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.intervals import (
    IntervalRow,
    Intervals,
    Span,
    interval_chart,
)
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.probes import CHANCE, RAW, ProbeFigures
from alignrec.pipeline.report.table import (
    HEADLINE_RECALL,
    Fields,
    Table,
    describe_seeds,
    format_figure,
    join_label,
    run_name,
    with_labels,
)

PAPER = (
    "Run alignrec profile paper for the paper's other models, ablations, mask modality, long tail "
    "and hyper-parameters."
)
MAX_REASONS = 20  # listed, most frequent first
DATA = "data"  # anchor of the section on texts, images and dropped rows


@dataclass(frozen=True)
class PageSection:
    """A section of the page, with a link in the navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    drawn: Sequence[Intervals | None] = ()
    tables: Sequence[Table] = ()  # collapsed on the page

    @property
    def pictures(self) -> list[Intervals]:
        return [picture for picture in self.drawn if picture is not None]

    def __bool__(self) -> bool:
        return bool(self.pictures or self.tables)


def judged_sections(outputs: Outputs) -> list[PageSection]:
    codes = results.semantic_id_tables(read_json(outputs.layout.code_quality, {}))
    return [
        section
        for section in (
            recommenders_section(outputs),
            probes_section(outputs),
            PageSection(
                "ablations",
                "Ablations",
                "Ablations",
                "AlignRec without one part, with one modality, or with one deviation of the "
                "published code undone.",
                tables=results.ablation_tables(outputs),
            ),
            long_tail_section(outputs),
            PageSection(
                "mask",
                "Mask modality",
                "Mask modality",
                "How much AlignRec loses when it no longer sees the image, or the text, of some "
                "items.",
                tables=results.mask_tables(outputs.study),
            ),
            PageSection(
                "settings-swept",
                "Hyper-parameters",
                "Hyper-parameters",
                "Settings of AlignRec, its graph and its encoder, measured on valid only: test was "
                "not opened for them.",
                tables=results.sweep_tables(outputs.layout),
            ),
            PageSection("semantic-ids", "Semantic IDs", "Semantic IDs", tables=codes),
        )
        if section
    ]


def recorded_sections(outputs: Outputs) -> list[PageSection]:
    tuned = results.tuning_tables(outputs.tuning)
    heading = "The same budget for every contender"
    settings = PageSection("settings", "Settings", heading, tables=tuned)
    return [section for section in (settings, data_section(outputs)) if section]


def recommenders_section(outputs: Outputs) -> PageSection:
    drawn = []
    tables = []
    for comparison, label in with_labels(outputs.compared):
        drawn.append(_means_chart(comparison, label))
        tables.append(results.results_table(comparison).under(label))

    note = ""
    if outputs.kind == "sample" and not (outputs.ablated or outputs.study):
        note = PAPER
    heading = "Recommenders on these features"
    return PageSection("results", "Recommenders", heading, note, drawn, tables)


def _means_chart(comparison: Comparison, label: str) -> Intervals | None:
    rows = []
    for run in comparison.rows:
        if MAIN in run.cells:
            recall = run.cells[MAIN]
            sd = recall.sd or 0.0
            span = (recall.mean - sd, recall.mean, recall.mean + sd)
            rows.append(
                IntervalRow(run_name(run.model, run.features), [span], format_figure(recall))
            )
    title = f"Test {HEADLINE_RECALL}, {describe_seeds(run.seeds for run in comparison.rows)}"
    return interval_chart(join_label(title, label), rows, axis=HEADLINE_RECALL)


def probes_section(outputs: Outputs) -> PageSection:
    note = (
        "Features judged without a recommender, each encoder once, so no seeds. Ties count by "
        "expectation."
    )
    controls = [name for name in CONTROLS if name in outputs.graphs]
    if controls:
        note += f" Controls: {', '.join(controls)}."
    processed = (outputs.probes or {}).get(probes.PROCESSED)
    if processed:
        note += (
            f" {probes.describe_processing(processed)} Better: raw and processed, p below {LEVEL} "
            "after Holm's correction."
        )

    tables = probes.probe_tables(outputs.probes)
    return PageSection("probes", "Probes", "Probes", note, probe_charts(outputs.probes), tables)


def probe_charts(figures: Fields | None) -> list[Intervals | None]:
    return [_probe_chart(probed) for probed in probes.read_probes(figures).values() if probed.forms]


def _probe_chart(probed: ProbeFigures) -> Intervals | None:
    measure = probed.figure
    rows = []
    for name in probed.sort_sets(RAW, measure):
        if name != CHANCE:
            spans = [_error_span(sets.get(name, {}), measure) for sets in probed.forms.values()]
            centres = [f"{span[1]:.3f}" for span in spans if span]
            rows.append(IntervalRow(name, spans, ", ".join(centres)))

    cases = f"{probed.cases:,} {probed.unit}"
    title = f"{probed.probe.title} {measure}, ± standard error over {cases}; dashed: chance"
    keys = list(probed.forms) if len(probed.forms) > 1 else ()
    chance = probed.forms[RAW][CHANCE][measure]
    return interval_chart(title, rows, keys, chance, measure)


def _error_span(figures: Mapping[str, float], measure: str) -> Span | None:
    if not figures:
        return None
    value = figures.get(measure, 0.0)
    error = figures.get(f"{measure}_se", 0.0)
    return value - error, value, value + error


def long_tail_section(outputs: Outputs) -> PageSection:
    tables = results.lead_tables(outputs.study)
    note = "Recall of rare and of popular items, and of users with few and with many."
    return PageSection("tail", "Long tail", "The long tail", note, tables=tables)


def data_section(outputs: Outputs) -> PageSection:
    tables = []
    dropped = []
    for stage, record in outputs.records.items():
        for reason, rows in record["drops"].items():
            dropped.append([stage, reason, f"{rows:,}"])
    if dropped:
        head = ["stage", "reason", "rows"]
        note = "As counted by each stage."
        tables.append(Table("Dropped or incomplete rows", note, head, dropped, texts=2))
    if outputs.reading:
        tables.append(_texts_table(outputs.reading))
    if outputs.image_facts is not None:
        tables.append(_images_table(outputs.image_facts))
    pretrained = outputs.records.get("pretrain", {}).get("notes", {})
    if "stopped" in pretrained:
        tables.append(pretraining_table(pretrained))
    return PageSection(DATA, "Data", "Data quality", tables=tables)


def _texts_table(reading: Mapping[str, Fields]) -> Table:
    keys = ("text_read", "text_cut", "text_unread")
    rows = [
        [name, *(f"{note.get(key, 0.0):.1%}" for key in keys)] for name, note in reading.items()
    ]
    note = (
        "Read: mean share of a text's tokens. Unread: texts of which more than "
        f"{MAX_UNKNOWN:.0%} of the tokens are outside the encoder's vocabulary."
    )
    return Table("Texts", note, ["feature set", "read", "texts cut", "texts unread"], rows)


def _images_table(images: pa.Table) -> Table:
    statuses = images["status"].to_pylist()
    reasons = images["reason"].to_pylist()
    counts = Counter(zip(statuses, reasons, strict=True))
    rows = []
    for outcome in sorted(counts, key=lambda outcome: (-counts[outcome], outcome))[:MAX_REASONS]:
        items = counts[outcome]
        rows.append([*outcome, f"{items:,}", f"{items / len(images):.1%}"])
    note = (
        "Outcome of fetching, one status an item; an item without an image is encoded from its "
        "text."
    )
    return Table("Images", note, ["status", "reason", "items", "share"], rows, texts=2)


def pretraining_table(notes: Fields) -> Table:
    """Compare what the encoder predicts of held-out items with chance."""
    at_chance = list_at_chance(notes)
    rows = []
    for task in TASKS:
        name = task.upper()
        accuracy = notes.get(f"{task}_accuracy")
        if accuracy is None:
            continue
        judged = "at chance, not claimed" if name in at_chance else "above chance"
        rows.append([name, f"{accuracy:.3f}", f"{notes[f'{task}_chance']:.3f}", judged])
    note = (
        "Shares of masked tokens of held-out items that the encoder predicts, and of the most "
        f"frequent token. Training ended: {notes['stopped']}."
    )
    return Table("Pre-training", note, ["", "predicted", "chance", "verdict"], rows)
