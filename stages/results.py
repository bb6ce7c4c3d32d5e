"""Commands for the outputs of a dataset: summary, feature sets, recommendations, comparisons."""

from pathlib import Path
from typing import Annotated, Any

import typer

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from stages import released
from stages.arguments import Order, ParamsFile, Published, Root
from stages.order import STAGES
from stages.terminal import say, show


def summary(
    dataset: Annotated[str | None, typer.Argument(help="one dataset; all of the parameter file's by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """summarise the last runs: time, results, report and release."""
    from pipeline.report import terminal, verdict
    from pipeline.report.outputs import Outputs
    from stages.params import read

    settings = read(params)
    for name in [dataset] if dataset else settings.datasets:
        layout = Layout(root, name)
        records = {stage: spent(layout, stage) for stage in STAGES if layout.run_record(stage).exists()}
        if not records:
            raise UserError(
                f"{root} has nothing of {name}, as no stage has run; name it under `datasets` in params.yaml and run "
                "`dvc repro`"
            )
        show(terminal.stages(name, records.values()))
        if layout.results.exists():
            show(*terminal.tables(io.read_table(layout.results, schemas.RESULTS), name))
        released = records.get("train", {}).get("params", {}).get("features", "")
        outputs = Outputs(layout, settings.source(name).kind, released)
        if line := verdict.headline(name, outputs.kind, released, outputs.probes, outputs.tests):
            say(line)
        made = {"results": layout.results, "report": layout.report / "index.html", "release": layout.release}
        for what, path in made.items():
            say(f"{what}: {path if path.exists() else 'not made yet'}")


def spent(layout: Layout, stage: str) -> dict[str, Any]:
    record: dict[str, Any] = io.read_json(layout.run_record(stage))
    return record | (io.read_json(layout.cost(stage)) if layout.cost(stage).exists() else {})


def compare(
    dataset: Published,
    sets: Annotated[
        list[str], typer.Argument(help="our encoders, or third-party files, see docs/compare.md; name=path renames")
    ],
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    train: Annotated[bool, typer.Option("--train", help="also train AlignRec and two baselines on each")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each model")] = 5,
    order: Order = None,
    to: Annotated[Path | None, typer.Option("--to", help="folder for compare.json and index.html")] = None,
) -> None:
    """compare feature sets: probes, paired tests, likeness, most changed items."""
    from pipeline.compare import command

    settings = released.settings(dataset, params)
    if train:
        from stages.params import check

        check(settings, params)
    with released.laid_out(dataset, root, "interactions") as layout:
        folder = to or Layout(root, layout.dataset).folder("compare")
        comparison = command.compare(layout, settings, sets, seeds if train else 0, folder, order)
    _show_comparison(comparison, folder / "index.html")


def _show_comparison(comparison: dict[str, Any], page: Path) -> None:
    from pipeline.report import comparison as facts
    from pipeline.report import terminal

    for name, source in comparison["sources"].items():
        say(f"{name}: {source}")
    for table in [*facts.judged(comparison), *facts.shapes(comparison), *facts.verdicts(comparison)]:
        show(terminal.Drawn(table))
    for remark in facts.remarks(comparison):
        say(remark)
    say(f"page: {page}")
    if line := facts.headline(comparison):
        say(line)
