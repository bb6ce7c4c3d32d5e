"""The umbrella command `alignrec`: one subcommand a stage, and what users do with releases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.stage import Stage
from stages import STAGES, examples, released
from stages.released import Order, ParamsFile, Root
from stages.terminal import Group, bytes_bar, interruptible, say, show


def _datasets(incomplete: str) -> list[str]:
    """Return the datasets whose names begin so, for the shell's completion."""
    from pipeline.errors import UserError
    from stages.params import read

    try:
        return [name for name in read(Path("params.yaml")).sources if name.startswith(incomplete)]
    except UserError:
        return []


Dataset = Annotated[str, typer.Argument(help="a name under `sources` in the parameter file", autocompletion=_datasets)]
Published = Annotated[str, typer.Argument(help="a dataset, or a release folder", autocompletion=_datasets)]

app = typer.Typer(
    name="alignrec",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw reviews to verified multimodal item features. Begin with: alignrec new mine --interactions ratings.csv",
    epilog="Each command has an example: alignrec compare --help",
)
IN_ORDER, BEGIN, LOOK, RELEASES = "Stages, in order", "Begin", "Look and compare", "Releases"
"""headings of --help"""


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="print the release and leave")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        say(f"alignrec {installed('alignrec')}")
        raise typer.Exit


def _command(stage: Stage) -> Callable[..., None]:
    def command(dataset: Dataset, params: ParamsFile = Path("params.yaml"), root: Root = Path("outputs")) -> None:
        from pipeline.run import Run, perform
        from stages.params import check, read

        run = Run(stage.name, dataset, read(params, dataset), root)
        with interruptible(f"what {stage.name} {dataset} has finished is kept in {run.folder}"):
            done = perform(run, stage, lambda run: check(run.params, params))
        if not done:
            say(f"{stage.name} {dataset}: nothing to do; its inputs, parameters and code are those of the last run")

    return command


def images(
    dataset: Dataset,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="fetch only what failed, once more")] = False,
) -> None:
    """Fetch the images, or with `--retry-failed` those that failed before."""
    if not retry_failed:
        return _command(STAGES["images"])(dataset, params, root)
    from pipeline.run import running
    from stages.images import main
    from stages.params import read

    run_params, kept = read(params, dataset), root / "images" / dataset
    with (
        interruptible(f"images fetched so far are kept in {kept}"),
        running("images", dataset, run_params, root) as run,
    ):
        main(run, retry_failed)


def report(dataset: Dataset, params: ParamsFile = Path("params.yaml"), root: Root = Path("outputs")) -> None:
    """Run the stage, and always write what DVC shows: git may have brought back that of another run."""
    _command(STAGES["report"])(dataset, params, root)
    from pipeline.facts import headline
    from pipeline.facts.outputs import Outputs
    from pipeline.layout import Layout
    from pipeline.models import RELEASED
    from pipeline.train.params import Released
    from stages.params import read

    released_on = read(params, dataset)[Released].features
    headline.write(Outputs(Layout(root, dataset), released=released_on), RELEASED)


def publish(
    dataset: Dataset,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    to: Annotated[str | None, typer.Option("--to", help="send the release: a folder, s3:// or hf://datasets/")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="sign the release with this private SSH key; needs ssh-keygen")
    ] = None,
) -> None:
    """Make the release; with `--to` upload an existing one; with `--sign` sign it."""
    if to is None and sign is None:
        return _command(STAGES["publish"])(dataset, params, root)
    from pipeline.layout import Layout
    from pipeline.release import signature
    from pipeline.release import verify as check
    from pipeline.remote.push import push

    release = Layout(root, dataset).release
    if sign is not None:
        signature.sign(release, sign)
        for _ in check(release):
            pass
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
    to: Annotated[Path | None, typer.Option("--to", help="of a release: where to write probes.json")] = None,
) -> None:
    """Run the stage, or judge the feature sets of a release in the same way."""
    if released.is_release(dataset):
        released.probe(dataset, params, root, to)
    elif to is not None:
        raise typer.BadParameter(f"is for releases; the probes of {dataset} are in {root / 'probe' / dataset}")
    else:
        _command(STAGES["probe"])(dataset, params, root)


_SPECIAL: dict[str, Callable[..., None]] = {
    "images": images,
    "probe": probe,
    "report": report,
    "publish": publish,
}  # stages that do more than their main
for _name, _stage in STAGES.items():
    app.command(_name, help=_stage.does, rich_help_panel=IN_ORDER)(_SPECIAL.get(_name) or _command(_stage))


@app.command(rich_help_panel=BEGIN)
def new(
    name: Annotated[str, typer.Argument(help="of the dataset: letters, digits, _ and -")],
    interactions: Annotated[Path, typer.Option(help="a row an interaction: Parquet, CSV, TSV or JSON lines")],
    items: Annotated[Path | None, typer.Option(help="a row an item: text, categories, images")] = None,
    images: Annotated[str | None, typer.Option(help="folder or archive, or a pattern: images/{item}.jpg")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="role=name of its column, such as item=sku; may be given again")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="file to write")] = Path("params.yaml"),
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
) -> None:
    """look at your files, and make this folder a project that builds features of them."""
    from stages.new import write

    for line in write(name, interactions, items, images, column or [], to, force):
        say(line)


@app.command(rich_help_panel=BEGIN)
def init() -> None:
    """make this folder a project, for a params.yaml that you wrote: dvc.yaml, git and DVC."""
    from stages.params import read
    from stages.project import begin

    read(Path("params.yaml"))
    for line in begin(Path()):
        say(line)


@app.command("new-plugin", rich_help_panel=BEGIN)
def new_plugin(folder: Annotated[Path, typer.Argument(help="to make; the package is named as it is")]) -> None:
    """a package with parts of your own: a recommender, an encoder and a probe, and their test."""
    from stages.plugin import write

    for line in write(folder):
        say(line)


@app.command(rich_help_panel=BEGIN)
def mend() -> None:
    """before `dvc repro`: delete a file that a killed DVC left half-written."""
    from stages.mend import mend as delete_broken

    for path in delete_broken(Path()):
        say(f"deleted {path}: DVC was killed while it wrote it")


@app.command(rich_help_panel=BEGIN)
def datasets(params: ParamsFile = Path("params.yaml"), root: Root = Path("outputs")) -> None:
    """what the parameter file declares: kind, category, size as published, and whether it is downloaded."""
    from pipeline.report.terminal import datasets as table
    from stages.params import read

    show(table(read(params).sources, root))


@app.command(rich_help_panel=BEGIN)
def plan(
    dataset: Annotated[str | None, typer.Argument(help="one dataset; all of the parameter file's by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="ask whether the addresses answer")] = True,
    again: Annotated[bool, typer.Option("--again", help="measure this machine's rates anew")] = False,
) -> None:
    """hours, memory, disk and downloads of each stage, before anything runs. Exit code 1 if a file is nowhere."""
    from pipeline.layout import Layout
    from pipeline.plan import command
    from pipeline.report.terminal import drawn
    from stages.params import check, read

    faults = []
    for name in [dataset] if dataset else read(params).datasets:
        settings = read(params, name)
        with interruptible("rates that were measured are kept"):
            check(settings, params)
            planned = command.plan(settings, Layout(root, name), ask, again)
        say(planned.heading)
        show(*(drawn(table, unbroken=[0]) for table in planned.tables))
        for remark in planned.remarks:
            say(remark)
        for fault in planned.faults:
            say(f"error: {fault}", err=True)
        faults += planned.faults
    if faults:
        raise typer.Exit(1)


@app.command(rich_help_panel=LOOK)
def summary(
    dataset: Annotated[str | None, typer.Argument(help="one dataset; all of the parameter file's by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """where the time went, what came out, and where report and release are."""
    import schemas
    from pipeline import io
    from pipeline.errors import UserError
    from pipeline.facts import verdict
    from pipeline.facts.outputs import Outputs
    from pipeline.layout import Layout
    from pipeline.report import terminal as results
    from stages.params import read

    for name in [dataset] if dataset else read(params).datasets:
        layout = Layout(root, name)
        records = [path for stage in STAGES if (path := layout.run_record(stage)).exists()]
        if not records:
            raise UserError(f"{root} has nothing of {name}; run `dvc repro`. `alignrec datasets` lists the names")
        show(results.stages(name, map(io.read_json, records)))
        if layout.results.exists():
            show(*results.tables(io.read_table(layout.results, schemas.RESULTS), name))
        if advice := verdict.advice(Outputs(layout).probes):
            say(advice)
        made = {"results": layout.results, "report": layout.report / "index.html", "release": layout.release}
        for what, path in made.items():
            say(f"{what}: {path if path.exists() else 'not made yet'}")


@app.command(rich_help_panel=LOOK)
def features(
    dataset: Dataset,
    choose: Annotated[
        bool, typer.Option("--choose", help="make the best set that valid finds, from all others")
    ] = False,
    seconds: Annotated[int | None, typer.Option(min=1, help="budget of --choose; 30 by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """the feature sets of a dataset; with --choose, candidates made of them, tried on valid."""
    from pipeline.layout import Layout
    from pipeline.report import terminal
    from stages import features as chosen

    layout = Layout(root, dataset)
    if choose:
        from pipeline.run import running
        from stages.encode import main
        from stages.params import for_dataset, read

        settings, name = chosen.choosing(read(params), dataset, seconds)
        kept = f"what was tried so far is kept in {layout.features(name)}"
        with (
            interruptible(kept),
            running("encode", dataset, for_dataset(settings, dataset), root) as run,
        ):
            main(run)
        candidates = chosen.tried(layout, name)
        show(terminal.drawn(candidates))
        say(candidates.note)
        say(f"to release it: {name} under encode.encoders, and under encoders {name}: {{kind: chosen}}")
    else:
        show(terminal.drawn(chosen.sets(layout)))


@app.command(rich_help_panel=LOOK)
def recommend(
    dataset: Published,
    user: Annotated[str | None, typer.Option("--user", help="identifier at the source")] = None,
    row: Annotated[int | None, typer.Option("--row", min=0, help="in place of --user: row of users.parquet")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="how many items")] = 10,
    root: Root = Path("outputs"),
) -> None:
    """what the trained recommender suggests to one user: top K with titles and images."""
    asked: str | int | None = user if row is None else row
    if asked is None or None not in (user, row):
        raise typer.BadParameter("give either --user, an identifier, or --row, a number")
    with released.laid_out(dataset, root, "interactions", "user embeddings") as layout:
        from pipeline.train import recommend as recommender  # loads FAISS, which an error above need not wait for

        recommendations = recommender.recommend(layout, asked, k)
    say(recommender.history(recommendations))
    show(recommender.table(recommendations))


@app.command(rich_help_panel=LOOK)
def sweep(
    dataset: Dataset,
    grid: Annotated[
        str | None, typer.Option("--grid", help="try all of a grid: `authors`, or one of sweep.grids")
    ] = None,
    tpe: Annotated[int | None, typer.Option("--tpe", min=1, help="try so many settings, drawn by TPE")] = None,
    model: Annotated[str, typer.Option(help="whose settings")] = "alignrec",
    features: Annotated[str | None, typer.Option(help="a feature set; train.features by default")] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """settings tried against each other, chosen on valid; an interrupted sweep resumes."""
    import schemas
    from pipeline import io
    from pipeline.experiment.plans.search import asked
    from pipeline.report import terminal as results
    from pipeline.run import running
    from stages.params import load
    from stages.sweep import main

    settings = load(params, dataset)
    wanted = asked(settings, model, features, grid, tpe)
    kept = f"settings tried so far are kept in {root / 'sweep' / dataset}"
    with interruptible(kept), running("sweep", dataset, settings, root) as run:
        main(run, wanted)
    names = list(wanted.space)
    trials = io.read_table(run.layout.sweep_trials(*wanted.names), schemas.trials(names))
    winners = io.read_table(run.layout.sweep_results(*wanted.names), schemas.RESULTS)
    show(results.trials(trials, names), *results.tables(winners, dataset))
    say(f"all settings: {run.layout.sweep_trials(*wanted.names)}")


@app.command(rich_help_panel=LOOK)
def league(
    dataset: Dataset,
    budget: Annotated[int, typer.Option(min=1, help="settings that each model tries on each feature set and split")],
    others: Annotated[
        list[Path] | None, typer.Option("--with", help="league.parquet of another data set or machine; repeatable")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """every model alike, over seeds and splits, with paired tests, on one page; an interrupted league resumes."""
    import schemas
    from pipeline import io
    from pipeline.facts import league as facts
    from pipeline.report import terminal
    from pipeline.run import running
    from stages.league import main
    from stages.params import load

    settings = load(params, dataset)
    kept = f"trainings so far are kept in {root / 'league' / dataset}"
    with interruptible(kept), running("league", dataset, settings, root) as run:
        main(run, budget, others or [])
    show(terminal.drawn(facts.brief(io.read_table(run.folder / "league.parquet", schemas.LEAGUE), dataset)))
    say(f"page: {run.folder / 'league.html'}")


@app.command(rich_help_panel=LOOK)
def compare(
    dataset: Published,
    sets: Annotated[list[str], typer.Argument(help="our encoders, or .npy, .pt, .parquet files; name=path renames")],
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
    train: Annotated[bool, typer.Option("--train", help="also train AlignRec and two baselines on each")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each model, or codebooks of each method")] = 5,
    order: Order = None,
    codes: Annotated[
        list[str] | None, typer.Option("--codes", help="compare semantic IDs, coded by this method")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="folder for compare.json and index.html")] = None,
) -> None:
    """feature sets side by side: probes, paired tests, likeness, most changed items; or their semantic IDs."""
    from pipeline.compare import codes_file, command
    from pipeline.errors import UserError
    from pipeline.layout import Layout

    settings = released.settings(dataset, params)
    coded = bool(codes) or any(map(codes_file.holds_codes, sets))
    if coded and train:
        raise UserError("--train trains on features, and these are codes; leave one of the two out")
    if train:
        from stages.params import check

        check(settings, params)
    with released.laid_out(dataset, root, "interactions") as layout:
        folder = to or Layout(root, layout.dataset).folder("compare")
        if coded:
            from pipeline.compare.codes import compare as compare_codes

            comparison = compare_codes(layout, settings, sets, codes or [], seeds, folder, order)
        else:
            comparison = command.compare(layout, settings, sets, seeds if train else 0, folder, order)
    from pipeline.facts import codes as coding
    from pipeline.facts import comparison as facts
    from pipeline.report import terminal

    for name, source in comparison["sources"].items():
        say(f"{name}: {source}")
    shown = (
        coding.brief(coding.compared(comparison)) if coded else [*facts.judged(comparison), *facts.shapes(comparison)]
    )
    for table in shown:
        show(terminal.drawn(table))
    for remark in (coding if coded else facts).remarks(comparison):
        say(remark)
    say(f"page: {folder / 'index.html'}")
    for sentence in [] if coded else facts.sentences(comparison):
        say(sentence)


app.command(rich_help_panel=LOOK)(released.diff)
app.command(rich_help_panel=LOOK)(released.leaderboard)
for _command_of_release in (
    released.verify,
    released.fetch,
    released.export,
    released.embed,
    released.serve,
    released.attest,
):
    app.command(rich_help_panel=RELEASES)(_command_of_release)
for _registered in app.registered_commands:
    _registered.epilog = f"Example: {examples.of(_registered.name or _registered.callback.__name__)}"  # type: ignore[union-attr]


if __name__ == "__main__":
    app()
