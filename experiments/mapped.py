"""Features that learned from interactions, on cold items (docs/study.md).

Command: `python -m experiments.mapped sample`.
"""

from pathlib import Path
from typing import Annotated

import typer

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.report.table import Table, with_error
from experiments.shared import branched, opened, record

NOTE = (
    "Raw, ± standard error. Mapped sets learn from train interactions, a leak; those of cold items "
    "are hidden."
)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = ["linear", "beit3"],  # noqa: B006
) -> None:
    """Map feature sets to factors of train interactions and record all probes of both."""
    parameters, layout, folder = opened(dataset, params, root, "mapped")
    combine = parameters.section("combine")
    sets = combine.model_dump()["sets"]
    changed = {name: settings for name, settings in sets.items() if name in features}
    for name in features:
        changed[f"{name}-mapped"] = {"kind": "mapped", "of": name}
    sections = parameters.with_sections(combine.model_copy(update={"sets": changed}))
    branch = branched(layout, folder, sections, ["combine", "probe"])
    answers = io.read_json(branch.probes)

    probes = {key: probe for key, probe in PROBES.items() if features[0] in answers.get(key, {})}
    rows = []
    for features_name in features:
        for name in (features_name, f"{features_name}-mapped"):
            cells = []
            for key, probe in probes.items():
                answer = answers[key][name]
                cells.append(with_error(answer[probe.figure], answer[f"{probe.figure}_se"]))
            rows.append([name, *cells])
    head = ("features", *(f"{probe.name} {probe.figure}" for probe in probes.values()))
    record(layout, "mapped", Table("", NOTE, head, rows))


if __name__ == "__main__":
    typer.run(main)
