"""Features that learned from interactions, on cold items (docs/study.md): `python -m experiments.mapped sample`."""

from pathlib import Path
from typing import Annotated

import typer

from alignrec.pipeline import io
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.report.table import Table, with_error
from experiments.shared import branched, opened, record

NOTE = "Raw, ± standard error. Mapped sets learn from train interactions, a leak; those of cold items are hidden."


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = ["linear", "beit3"],  # noqa: B006
) -> None:
    """Map feature sets to factors of train interactions and record all probes of both."""
    given, layout, folder = opened(dataset, params, root, "mapped")
    combine = given.section("combine")
    kept = {name: own for name, own in combine.model_dump()["sets"].items() if name in features}
    mapped = {f"{name}-mapped": {"kind": "mapped", "of": name} for name in features}
    own = given.with_sections(combine.model_copy(update={"sets": kept | mapped}))
    probes = io.read_json(branched(layout, folder, own, ["combine", "probe"]).probes)
    asked = {name: probe for name, probe in PROBES.items() if features[0] in probes.get(name, {})}
    rows = [
        [
            name,
            *(
                with_error(probes[key][name][p.figure], probes[key][name][f"{p.figure}_se"])
                for key, p in asked.items()
            ),
        ]
        for pair in zip(features, mapped, strict=True)
        for name in pair
    ]
    record(
        layout,
        "mapped",
        Table("", NOTE, ("features", *(f"{p.name} {p.figure}" for p in asked.values())), rows),
    )


if __name__ == "__main__":
    typer.run(main)
