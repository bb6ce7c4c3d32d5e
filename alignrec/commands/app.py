"""The command-line application."""

from collections.abc import Callable
from importlib.metadata import version as installed
from typing import Annotated

import typer

from alignrec.commands import new, plan, releases, results, stage
from alignrec.commands.terminal import Group, say
from alignrec.stages.order import STAGES

app = typer.Typer(
    name="alignrec",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw reviews to verified multimodal item features. Begin with: alignrec new mine --interactions ratings.csv",
)


@app.callback(invoke_without_command=True)
def print_version(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="print the version and exit")] = False,
) -> None:
    if version:
        say(f"alignrec {installed('alignrec')}")
        raise typer.Exit


for one in STAGES.values():
    app.command(one.name, help=one.does, rich_help_panel="Stages, in order")(stage.command_of(one))
PANELS: dict[str, list[Callable[..., None]]] = {
    "Begin": [new.new, new.profile, plan.plan],
    "Look and compare": [results.summary, results.compare, results.diff, results.leaderboard],
    "Releases": [releases.verify, releases.fetch, releases.export, releases.embed, releases.serve],
}
for heading, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=heading)(command)
