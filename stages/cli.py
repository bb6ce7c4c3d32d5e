"""The command `alignrec`: a subcommand per stage, and those for projects, results and releases."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.layout import Layout
from pipeline.stage import Stage
from stages import embedding, released, results
from stages.arguments import Dataset, ParamsFile, Part, Published, Root, parted
from stages.images import main as main_of_images
from stages.order import STAGES
from stages.terminal import Group, bytes_bar, interruptible, say, show

app = typer.Typer(
    name="alignrec",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw reviews to verified multimodal item features. Begin with: alignrec new mine --interactions ratings.csv",
)
IN_ORDER, BEGIN, LOOK, RELEASES = "Stages, in order", "Begin", "Look and compare", "Releases"  # headings of --help


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="print the version and exit")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        say(f"alignrec {installed('alignrec')}")
        raise typer.Exit


def _perform(stage: Stage, dataset: str, params: Path, root: Path, part: tuple[int, int] | None = None) -> None:
    from importlib.metadata import version as installed

    from pipeline import waiting
    from pipeline.errors import UserError
    from pipeline.run import Run
    from pipeline.stage import perform
    from stages.params import check, read

    settings = read(params, dataset)
    if settings.alignrec not in (None, here := installed("alignrec")):
        raise UserError(
            f"{params}: 'alignrec': made with {settings.alignrec}, and {here} is installed; install that release, or "
            f"write {here} there, and `dvc repro` makes all again"
        )
    waiting.choose()
    with interruptible(f"what {stage.name} {dataset} has finished is kept in {root}/{stage.name}/{dataset}"):
        run = Run(stage.name, dataset, settings, root)
        run.part = part
        perform(run, stage, lambda run: check(run.params, params))


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(dataset: Dataset, params: ParamsFile = Path("params.yaml"), root: Root = Path("outputs")) -> None:
        _perform(stage, dataset, params, root)

    return command


def encode(
    dataset: Dataset, params: ParamsFile = Path("params.yaml"), root: Root = Path("outputs"), part: Part = None
) -> None:
    _perform(STAGES["encode"], dataset, params, root, parted(part))


def images(
    dataset: Dataset,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="fetch only what failed, once more")] = False,
    part: Part = None,
) -> None:
    stage = STAGES["images"]
    if retry_failed:
        stage = replace(stage, main=partial(main_of_images, retry_failed=True))
    _perform(stage, dataset, params, root, parted(part))


def publish(
    dataset: Dataset,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    to: Annotated[str | None, typer.Option("--to", help="send the release: a folder, s3:// or hf://datasets/")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="sign the release with this private SSH key; needs ssh-keygen")
    ] = None,
) -> None:
    if to is None and sign is None:
        return _perform(STAGES["publish"], dataset, params, root)
    from pipeline.release import signature
    from pipeline.release import verify as check
    from pipeline.remote.push import push

    release = Layout(root, dataset).release
    if sign is not None:
        signature.sign(release, sign)
        check(release)
        say(f"signed: {release / signature.NAME}")
    if to is None:
        return
    unseen = f"the release at {to} is not visible yet, and what was sent is kept there"
    with interruptible(unseen), bytes_bar("publish") as progress:
        where = push(release, to, progress)
    say(f"published: alignrec fetch {where}")


def probe(
    dataset: Published,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    to: Annotated[Path | None, typer.Option("--to", help="for a release: where to write probes.json")] = None,
) -> None:
    if released.is_release(dataset):
        released.probe(dataset, params, root, to)
    elif to is not None:
        raise typer.BadParameter(f"is for releases; the probes of {dataset} are in {root}/probe/{dataset}")
    else:
        _perform(STAGES["probe"], dataset, params, root)
        released.show_ceiling(Layout(root, dataset))


_SPECIAL: dict[str, Callable[..., None]] = {"images": images, "encode": encode, "probe": probe, "publish": publish}
for _name, _stage in STAGES.items():
    app.command(_name, help=_stage.does, rich_help_panel=IN_ORDER)(_SPECIAL.get(_name) or _stage_command(_stage))


@app.command(rich_help_panel=BEGIN)
def new(
    name: Annotated[
        str | None, typer.Argument(help="dataset name: letters, digits, _ and -; absent: keep params.yaml as it is")
    ] = None,
    interactions: Annotated[
        Path | None, typer.Option(help="one interaction per row: Parquet, CSV, TSV or JSON lines")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="one item per row: text, categories, images")] = None,
    images: Annotated[str | None, typer.Option(help="folder or archive, or a pattern: images/{item}.jpg")] = None,
    column: Annotated[list[str] | None, typer.Option(help="name a column, such as item=sku; repeatable")] = None,
    amazon: Annotated[int | None, typer.Option(help="in place of files: 2014, 2018 or 2023, year of the data")] = None,
    category: Annotated[str | None, typer.Option(help="Amazon category, as its publisher spells it")] = None,
    to: Annotated[Path, typer.Option(help="file to write")] = Path("params.yaml"),
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
) -> None:
    """make this folder a project: dvc.yaml, git, DVC, and params.yaml for your files, unless you wrote it yourself."""
    from stages.new import check_target, describe_category, describe_files, write
    from stages.params import read
    from stages.project import begin

    if name is None:
        read(Path("params.yaml"))
        for line in begin(Path()):
            say(line)
        return
    if (interactions is None) == (amazon is None):
        raise typer.BadParameter("give either --interactions, or --amazon with --category")
    check_target(name, to, force)
    if interactions is not None:
        text, seen = describe_files(name, interactions, items, images, column or [])
    else:
        text, seen = describe_category(name, int(amazon or 0), category)
    for line in [*seen, *write(name, text, to)]:
        say(line)


@app.command(rich_help_panel=BEGIN)
def profile(
    name: Annotated[str, typer.Argument(help="a profile in profiles/, without .yaml, or a path")],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = Path("params.yaml"),
) -> None:
    """write a profile into params.yaml, where git and DVC show what it changes."""
    from stages.profile import write

    for line in write(name, to):
        say(line)


@app.command(rich_help_panel=BEGIN)
def plan(
    dataset: Annotated[str | None, typer.Argument(help="one dataset; all of the parameter file's by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="ask whether the addresses answer")] = True,
) -> None:
    """estimate hours, memory, disk and downloads of each stage. Exit code 1 if a file cannot be found."""
    from pipeline.plan import command
    from pipeline.report.terminal import Drawn
    from stages.params import check, read

    faults = []
    for name in [dataset] if dataset else read(params).datasets:
        settings = read(params, name)
        check(settings, params)
        planned = command.plan(settings, Layout(root, name), ask, partial(say, err=True))
        say(planned.heading)
        show(*(Drawn(table, unbroken=[0]) for table in planned.tables))
        for remark in planned.remarks:
            say(remark)
        for fault in planned.faults:
            say(f"error: {fault}", err=True)
        faults += planned.faults
    if faults:
        raise typer.Exit(1)


_OTHERS: dict[str, list[Callable[..., None]]] = {
    LOOK: [results.summary, results.compare, released.diff, released.leaderboard],
    RELEASES: [*(released.verify, released.fetch, released.export), embedding.embed, released.serve],
}
for _heading, _commands in _OTHERS.items():
    for _command in _commands:
        app.command(rich_help_panel=_heading)(_command)


if __name__ == "__main__":
    app()
