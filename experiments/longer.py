"""What more steps of pre-training bring (docs/pretraining.md).

Command: `python -m experiments.longer sample`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.beit3.stopping import list_at_chance
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.table import Table
from experiments.shared import branched, opened, pretraining, record

FEATURES = "beit3"
TEACHER = "linear"  # the vector that the network learns to predict
JUDGED_BY = ("zero_shot", "item_cf", "content_knn", "cold_items")
FIGURES = ("accuracy", "chance")  # of MIM and MLM
HEAD = (
    "steps",
    "MIM",
    "its chance",
    "MLM",
    "its chance",
    "at chance",
    *(PROBES[probe].name for probe in JUDGED_BY),
)
NOTE = (
    "Shares of masked tokens of held-out items that are predicted, and the share of the most "
    "frequent token; at chance is what does not exceed it by two standard errors over items. "
    f"Probes: hit or recall@{CUTOFF} on raw {FEATURES}; the first row is its teacher, {TEACHER}. "
    "One seed."
)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    steps: Annotated[list[int], typer.Option()] = [50, 100, 200, 400, 800],  # noqa: B006
) -> None:
    """Pre-train for each number of steps, from the same weights, and record MIM, MLM and probes."""
    given, layout, folder = opened(dataset, params, root, "longer")
    sets = given[BEiT3Sets].model_copy(update={"sets": [FEATURES]})
    rows: list[tuple[str, ...]] = []
    for number in steps:
        # all steps, also where the losses stop falling
        section = pretraining(given, steps=number, patience=0)
        parameters = given.with_sections(section, sets)
        stages = ["pretrain", "beit3", "probe"]
        branch = branched(layout, folder / str(number), parameters, stages)

        probes = io.read_json(branch.probes)
        notes = io.read_json(branch.run_record("pretrain"))["notes"]
        if not rows:
            rows.append((TEACHER, *[""] * 5, *_probed(probes, TEACHER)))
        rows.append((str(number), *_predicted(notes), *_probed(probes, FEATURES)))

    record(layout, "longer", Table.of("", NOTE, HEAD, rows))


def _predicted(notes: Mapping[str, Any]) -> list[str]:
    cells = []
    for task in ("mim", "mlm"):
        cells += [_cell(notes.get(f"{task}_{figure}")) for figure in FIGURES]
    return [*cells, ", ".join(list_at_chance(notes))]


def _probed(probes: Mapping[str, Any], features: str) -> list[str]:
    cells = []
    for probe in JUDGED_BY:
        figures = probes.get(probe, {}).get(features, {})
        cells.append(_cell(figures.get(PROBES[probe].figure)))
    return cells


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    typer.run(main)
