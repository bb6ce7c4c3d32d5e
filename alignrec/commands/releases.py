"""Commands for releases."""

from pathlib import Path
from typing import Annotated

import typer

from alignrec.commands import arguments as args
from alignrec.commands.terminal import explain_interrupt, say
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.release.read import verify as verify_release
from alignrec.pipeline.runtime.layout import FEATURE_STAGES
from alignrec.pipeline.runtime.progress import bytes_bar
from alignrec.pipeline.runtime.stage import refuse_altered
from alignrec.stages.order import STAGES


def verify(
    folder: args.ReleaseFolder,
    key: args.Key = None,
    data: Annotated[
        str | None, typer.Option(help="recompute vectors: a dataset, or items as for `embed`")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="folder of image files, for items in --data")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of --data to recompute")] = 200,
    encoder: args.Sets = None,
    root: args.Root = args.ROOT,
) -> None:
    """check every file of a release and its signature; with --data also its vectors. Exit code 1 if
    they differ.
    """
    for line in verify_release(folder, key):
        say(line)
    if data is None:
        return
    # loads torch, which a damaged release need not wait for
    from alignrec.pipeline.release.attest import attest, describe_outcome, open_inputs

    inputs = open_inputs(data, images, root, folder)
    outcome = attest(folder, inputs, sample, encoder or [])
    for line in describe_outcome(outcome, folder):
        say(line)
    if not outcome.agrees:
        raise typer.Exit(1)


def fetch(
    address: Annotated[
        str,
        typer.Argument(
            help=(
                "of a release: a path, a zip file of it, https://, s3://, ...; sample: the "
                "package's own"
            )
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make; an interrupted fetch resumes")],
    encoder: Annotated[str | None, typer.Option(help="only this feature set and its graph")] = None,
    key: args.Key = None,
) -> None:
    """download a release; it appears only after every byte is verified."""
    from alignrec.pipeline.release.fetch import WORK, fetch

    advice = f"what was downloaded is kept in {io.next_to(to, WORK)}"
    with explain_interrupt(advice), bytes_bar("fetch") as progress:
        folder = fetch(address, to, encoder, progress, key)
    say(f"release {io.sha256(folder / 'manifest.json')}")
    say(f"fetched: {to}")


def export(
    what: Annotated[str, typer.Argument(help="a dataset, or a release folder")],
    form: Annotated[
        str,
        typer.Option("--format", help="mmrec, recbole, cornac or npy"),
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make")],
    features: args.Sets = None,
    order: args.Order = None,
    root: args.Root = args.ROOT,
) -> None:
    """export a dataset or release in the format of another tool."""
    from alignrec.pipeline.release.export.content import arrange_rows, read_content
    from alignrec.pipeline.release.export.write import wants_all, write_export

    whole = wants_all(form)
    with args.open_layout(what, root, "items", whole=whole) as layout:
        if not args.is_release(what):
            read_stages = ("interactions", "items", *FEATURE_STAGES)
            refuse_altered(layout, (STAGES[stage] for stage in read_stages), "export")
        content = read_content(layout, features or [], whole)

    exported = arrange_rows(content, order)
    with explain_interrupt(f"{to} is not there yet"):
        notes = write_export(exported, form, to)
    for line in [*exported.notes, *notes]:
        say(line)
    for name, rows in exported.filled.items():
        if rows:
            say(f"{name}: zero rows filled with drawn numbers: {len(rows):,}")
    say(f"exported: {to}")


def serve(
    release: args.ReleaseFolder,
    host: Annotated[
        str, typer.Option(help="address to listen at; only this machine reaches the default")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000,
    images: Annotated[
        Path | None,
        typer.Option(
            help="folder of image files named after items, or outputs/images/NAME of a project"
        ),
    ] = None,
) -> None:
    """serve the page of a release, with a search for the items nearest to a text or image."""
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    opened = Release(release).verify()
    # loads torch, which a damaged release need not wait for
    from alignrec.pipeline.release.serve import serve

    serve(opened, images, host, port, say)
