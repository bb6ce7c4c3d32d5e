"""Commands that show and compare results."""

from pathlib import Path
from typing import Annotated, Any

import typer

from alignrec import schemas
from alignrec.commands import arguments as args
from alignrec.commands.arguments import PARAMS, ROOT, ParamsFile, Root
from alignrec.commands.params import check, read
from alignrec.commands.terminal import say, show
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.harness.stage import refuse_altered
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.stages.order import STAGES


def summary(dataset: args.OneOrAll = None, params: ParamsFile = PARAMS, root: Root = ROOT) -> None:
    """summarise the last runs: time, results, report and release."""
    from alignrec.pipeline.report import terminal, verdict
    from alignrec.pipeline.report.outputs import Outputs

    settings = read(params)
    for name in [dataset] if dataset else settings.datasets:
        layout = Layout(root, name)
        refuse_altered(layout, (STAGES[stage] for stage in ("train", "probe", "benchmark")), "summary")
        records = {stage: read_record(layout, stage) for stage in STAGES if layout.run_record(stage).exists()}
        if not records:
            raise UserError(
                f"{root} has nothing of {name}, as no stage has run; name it under `datasets` in params.yaml and run "
                "`dvc repro`"
            )
        show(terminal.stages(name, records.values()))
        if layout.results.exists():
            show(*terminal.tables(io.read_table(layout.results, schemas.RESULTS), name))
        # the verdict is on the feature set of the released recommender
        released = records.get("train", {}).get("params", {}).get("features", "")
        outputs = Outputs(layout, settings.source(name).kind, released)
        if line := verdict.verdict_headline(name, outputs.kind, released, outputs.probes, outputs.tests):
            say(line)
        made = {"results": layout.results, "report": layout.report / "index.html", "release": layout.release}
        for what, path in made.items():
            say(f"{what}: {path if path.exists() else 'not made yet'}")


def read_record(layout: Layout, stage: str) -> dict[str, Any]:
    record: dict[str, Any] = io.read_json(layout.run_record(stage))
    return record | (io.read_json(layout.cost(stage)) if layout.cost(stage).exists() else {})


def compare(
    dataset: args.DatasetOrRelease,
    sets: Annotated[
        list[str], typer.Argument(help="our encoders, or third-party files, see docs/compare.md; name=path renames")
    ],
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
    train: Annotated[bool, typer.Option("--train", help="also train AlignRec and two baselines on each")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each model")] = 5,
    order: args.Order = None,
    to: Annotated[Path | None, typer.Option("--to", help="folder for compare.json and index.html")] = None,
) -> None:
    """compare feature sets: probes, paired tests, likeness, most changed items."""
    from alignrec.pipeline.compare import command
    from alignrec.pipeline.report import terminal, verdict

    settings = args.settings_of(dataset, params)
    if train:
        check(settings, params)
    with args.open_layout(dataset, root, "interactions") as layout:
        folder = to or Layout(root, layout.dataset).folder("compare")
        if not args.is_release(dataset):
            read_by = ("interactions", "items", *FEATURE_STAGES)
            refuse_altered(layout, (STAGES[stage] for stage in read_by), "compare")
        found = command.compare(layout, settings, sets, seeds if train else 0, folder, order)
    for name, source in found["sources"].items():
        say(f"{name}: {source}")
    for table in [*verdict.judged_tables(found), *verdict.shape_tables(found), *verdict.pair_verdicts(found)]:
        show(terminal.Drawn(table))
    headline = verdict.headline_sentence(found)
    for line in [*verdict.list_remarks(found), f"page: {folder / 'index.html'}", *([headline] if headline else [])]:
        say(line)


def diff(
    a: Annotated[Path, typer.Argument(help="the older release folder")],
    b: Annotated[Path, typer.Argument(help="the newer release folder")],
    json_to: args.Json = None,
    page_to: Annotated[Path | None, typer.Option("--page", help="also write a page of the most changed items")] = None,
    root: Root = ROOT,
) -> None:
    """compare two releases: schema, rows, values, and the version that the change deserves."""
    Release(a).verify()
    Release(b).verify()
    from alignrec.pipeline.compare import releases  # loads SciPy, which a damaged release need not wait for

    differences = releases.diff_releases(a, b, changed=5)
    for line in releases.describe_diff(differences):
        say(line)
    if json_to:
        io.write_json(json_to, differences)
    if page_to:
        release = Release(b)
        text = releases.render_changes(a, b, differences, release.layout_under(root).images, release.manifest.kind)
        io.write_bytes(page_to, text.encode())
        say(f"page: {page_to}")


def leaderboard(
    releases: Annotated[list[Path] | None, typer.Argument(help="release folders")] = None,
    to: Annotated[Path, typer.Option("--to", help="page to write")] = Path("leaderboard.html"),
) -> None:
    """write a page with the benchmarks of releases, next to published figures."""
    from alignrec.pipeline.compare import leaderboard as board

    io.write_bytes(to, board.render_leaderboard([board.read_entries(folder) for folder in releases or []]).encode())
    say(f"page: {to}")
