"""The command-line application, and the commands that run a stage."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer

from alignrec.commands import embedding, judging, models, new, plan, profile, releases
from alignrec.commands.arguments import PARAMS, ROOT, Dataset, ParamsFile, Root
from alignrec.commands.params import check, read
from alignrec.commands.project import CODE, has_edited_code, refuse_other_release
from alignrec.commands.terminal import Group, explain_interrupt, say, show
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.progress import bytes_bar
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.section import require_known
from alignrec.pipeline.runtime.stage import Stage, perform
from alignrec.stages import images as image_stage
from alignrec.stages.order import STAGES


def perform_stage(
    stage: Stage,
    dataset: str,
    params: Path,
    root: Path,
    item: str = "",
) -> None:
    """Run a stage with the parameters of a file."""

    def check_settings(run: Run) -> None:
        # validation loads torch, which takes seconds and stages without work do not need
        if run.params[BEiT3Sets].sets or stage.name not in ("pretrain", "beit3"):
            check(run.params, params, dataset)
        if stage.name == "download":  # the first stage, hours before others need the models
            models.refuse_absent_models(run.params)

    recorded = params.with_name(CODE.name)
    refuse_other_release(recorded)  # first, because another version may have other keys
    if has_edited_code(recorded, stage):
        edited = f"warning: {recorded}: the code of {stage.name} was edited since"
        say(f"{edited}; DVC takes its outputs for up to date until `alignrec new`", err=True)
    settings = read(params, dataset)
    process.spin_if_idle()
    run = Run(stage.name, dataset, settings, root, item)
    with explain_interrupt(f"what {run.label} has finished is kept in {run.folder}"):
        perform(run, stage, check_settings)


def encode(
    dataset: Dataset,
    encoder: Annotated[
        str | None, typer.Argument(help="one of encode.encoders; by default each of them")
    ] = None,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
) -> None:
    encoders = read(params)[Encode].encoders
    require_known([encoder] if encoder else [], encoders, "encode.encoders")
    for name in [encoder] if encoder else encoders:
        perform_stage(STAGES["encode"], dataset, params, root, name)


def images(
    dataset: Dataset,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="fetch only what failed, once more")
    ] = False,
) -> None:
    stage = replace(STAGES["images"], main=partial(image_stage.main, retry_failed=retry_failed))
    perform_stage(stage, dataset, params, root)


def publish(
    dataset: Dataset,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
    to: Annotated[
        str | None, typer.Option("--to", help="send the release: a folder, s3:// or hf://datasets/")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", help="sign the release with this private SSH key; needs ssh-keygen"),
    ] = None,
) -> None:
    if to is None and sign is None:
        return perform_stage(STAGES["publish"], dataset, params, root)
    release = Layout(root, dataset).release
    if sign is not None:
        signature.sign(release, sign)
        verify(release)
        say(f"signed: {release / signature.SIGNATURE_FILE}")
    if to is not None:
        from alignrec.pipeline.release.push import push

        unseen = f"the release at {to} is not visible yet, and what was sent is kept there"
        with explain_interrupt(unseen), bytes_bar("publish") as progress:
            where = push(release, to, progress)
        say(f"published: alignrec fetch {where}")


def probe(dataset: Dataset, params: ParamsFile = PARAMS, root: Root = ROOT) -> None:
    from alignrec.pipeline.report import probes, terminal

    perform_stage(STAGES["probe"], dataset, params, root)
    table = probes.headline_table(io.read_json(Layout(root, dataset).probes))
    show(terminal.TerminalTable(table, unbroken=range(table.texts), caption=table.note))


OWN: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (images, encode, probe, publish)
}


def command_of(stage: Stage) -> Callable[..., None]:
    def command(dataset: Dataset, params: ParamsFile = PARAMS, root: Root = ROOT) -> None:
        perform_stage(stage, dataset, params, root)

    return OWN.get(stage.name, command)


app = typer.Typer(
    name="alignrec",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Raw reviews to verified multimodal item features. Begin with: alignrec new mine "
        "--interactions ratings.csv"
    ),
)


@app.callback(invoke_without_command=True)
def print_version(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    if version:
        say(f"alignrec {installed('alignrec')}")
        raise typer.Exit


for stage in STAGES.values():
    app.command(stage.name, help=stage.does, rich_help_panel="Stages, in order")(command_of(stage))
PANELS: dict[str, list[Callable[..., None]]] = {
    "Begin": [new.new, profile.profile, plan.plan],
    "Look and compare": [judging.summary, judging.compare, judging.diff, judging.leaderboard],
    "Releases": [
        releases.verify,
        releases.fetch,
        releases.export,
        embedding.embed,
        releases.serve,
    ],
}
for heading, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=heading)(command)
