"""Commands that show results, and compare feature sets and releases."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from alignrec import schemas
from alignrec.commands import arguments as args
from alignrec.commands.params import read
from alignrec.commands.terminal import say, show
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.stage import refuse_altered
from alignrec.stages.order import STAGES


def summary(
    dataset: args.OneOrAll = None,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
) -> None:
    """summarise the last runs: time, results, report and release."""
    from alignrec.pipeline.report import terminal
    from alignrec.pipeline.report.outputs import Outputs
    from alignrec.pipeline.report.verdict import advise

    settings = read(params)
    for name in [dataset] if dataset else settings.datasets:
        layout = Layout(root, name)
        judging = (STAGES[stage] for stage in ("train", "probe", "benchmark"))
        refuse_altered(layout, judging, "summary")
        finished = [stage for stage in STAGES if layout.run_record(stage).exists()]
        if not finished:
            raise UserError(
                f"{root} has nothing of {name}, as no stage has run; "
                "name it under `datasets` in params.yaml and run `dvc repro`"
            )
        records = {stage: read_record(layout, stage) for stage in finished}
        show(terminal.stage_table(name, records.values()))
        if layout.results.exists():
            show(*terminal.result_tables(io.read_table(layout.results, schemas.RESULTS), name))

        # the verdict judges the feature set of the released recommender
        released = records.get("train", {}).get("params", {}).get("features", "")
        outputs = Outputs(layout, settings.source(name).kind, released)
        if advice := advise(outputs):
            say(" ".join(advice))
        say_path("results", layout.results)
        say_path("report", layout.report / "index.html")
        say_path("release", layout.release)


def say_path(name: str, path: Path) -> None:
    say(f"{name}: {path if path.exists() else 'not made yet'}")


def read_record(layout: Layout, stage: str) -> dict[str, Any]:
    record: dict[str, Any] = io.read_json(layout.run_record(stage))
    return record | (io.read_json(layout.cost(stage)) if layout.cost(stage).exists() else {})


def compare(
    dataset: args.DatasetOrRelease,
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            help="our encoders, or third-party files, see docs/compare.md; name=path renames"
        ),
    ] = None,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
    order: args.Order = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="folder for compare.json and index.html")
    ] = None,
) -> None:
    """compare feature sets: probes, paired tests, similarity, most changed items."""
    if not sets:
        raise typer.BadParameter("name a feature set or a file", param_hint="SETS")
    from alignrec.pipeline.report import compare as command
    from alignrec.pipeline.report import terminal, verdict
    from alignrec.pipeline.report.verdict import advise_comparison

    settings = args.settings_of(dataset, params)
    with args.open_layout(dataset, root, "interactions") as layout:
        folder = to or Layout(root, layout.dataset).folder("compare")
        if not args.is_release(dataset):
            read_stages = ("interactions", "items", *FEATURE_STAGES)
            refuse_altered(layout, (STAGES[stage] for stage in read_stages), "compare")
        result = command.compare(layout, settings, sets, folder, order)

    for doubt in verdict.describe_doubts(result):
        say(doubt)
    if advice := advise_comparison(result):
        say(" ".join(advice))
    for remark in verdict.list_remarks(result):
        say(remark)
    for name, source in result["sources"].items():
        say(f"{name}: {source}")
    for list_tables in (verdict.pair_verdicts, verdict.judged_tables, verdict.shape_tables):
        for table in list_tables(result):
            show(terminal.TerminalTable(table))
    say(f"page: {folder / 'index.html'}")


def diff(
    a: Annotated[Path, typer.Argument(help="the older release folder")],
    b: Annotated[Path, typer.Argument(help="the newer release folder")],
    json_to: args.Json = None,
    fail_on: Annotated[
        Literal["patch", "minor", "major"] | None,
        typer.Option("--fail-on", help="exit with 1 for such a change or a larger one"),
    ] = None,
) -> None:
    """compare two releases: items, vectors, schema, and the version bump that they require."""
    Release(a).verify()
    Release(b).verify()
    # loads SciPy, which a damaged release need not wait for
    from alignrec.pipeline.release.diff import describe_diff, diff_releases, is_at_least

    differences = diff_releases(a, b)
    for line in describe_diff(differences):
        say(line)
    if json_to:
        io.write_json(json_to, differences)
    if fail_on is not None and is_at_least(differences, fail_on):
        raise typer.Exit(1)


def leaderboard(
    releases: Annotated[list[Path] | None, typer.Argument(help="release folders")] = None,
) -> None:
    """print a Markdown table of the benchmarks of releases, next to published figures."""
    from alignrec.pipeline.release.leaderboard import read_entries, render_leaderboard

    table = render_leaderboard([read_entries(folder) for folder in releases or []])
    for line in table.splitlines():
        say(line)
