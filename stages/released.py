"""Commands for releases: verify, fetch, diff, leaderboard, export, serve; and a release read as a dataset."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.release import verify as check
from pipeline.release.read import Release, unpacked
from pipeline.run import running
from stages.arguments import Order, ParamsFile, Root
from stages.terminal import bytes_bar, interruptible, say, show


@contextmanager
def laid_out(what: str, root: Path, *needs: str) -> Iterator[Layout]:
    if not is_release(what):
        yield Layout(root, what)
        return
    with unpacked(Release(Path(what)).verified(), needs) as layout:
        yield layout


def settings(what: str, params: Path) -> Parameters:
    from stages.params import of_release, read

    if is_release(what):
        return of_release(Release(Path(what)), params)
    return read(params, what)


def is_release(what: str) -> bool:
    """Return whether an argument names a release folder rather than a dataset; UserError for any other path."""
    if (Path(what) / "manifest.json").exists():
        return True
    if Path(what).name != what:  # a dataset has a plain name
        raise UserError(f"{what}: no release folder: there is no manifest.json in it")
    return False


def show_ceiling(layout: Layout) -> None:
    from pipeline.report import probes, terminal

    for table in probes.ceiling(io.read_json(layout.probes)):
        show(terminal.Drawn(table, unbroken=range(table.texts), caption=table.note))


def probe(what: str, params: Path, root: Path, to: Path | None) -> None:
    with laid_out(what, root, "interactions") as layout:
        from pipeline.report import probes, terminal
        from stages.probe import main

        with running("probe", layout.dataset, settings(what, params), layout.root) as run:
            main(run)
        figures = io.read_json(layout.probes)
    table = probes.headline(figures)
    show(terminal.Drawn(table, unbroken=range(table.texts), caption=table.note))
    if to is not None:
        io.write_json(to, figures)


def verify(
    folder: Annotated[Path, typer.Argument(help="a release folder")],
    key: Annotated[Path | None, typer.Option(help="public SSH key (.pub) that must have signed it")] = None,
    data: Annotated[str | None, typer.Option(help="recompute vectors: a dataset, or items as for `embed`")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of image files, for items in --data")] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of --data to recompute")] = 200,
    encoder: Annotated[list[str] | None, typer.Option(help="a feature set; may be given again; all by default")] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="also write what --data gave here")] = None,
    root: Root = Path("outputs"),
) -> None:
    """check every file of a release and its signature; with --data also its vectors. Exit code 1 if they differ."""
    for line in check(folder, key):
        say(line)
    if data is None:
        return
    from pipeline.release import attest  # loads torch, which a damaged release need not wait for

    outcome = attest.attest(folder, attest.inputs(data, images, root), sample, encoder or [])
    for line in attest.lines(outcome, folder):
        say(line)
    if json_to:
        io.write_json(json_to, outcome)
    if not outcome["agrees"]:
        raise typer.Exit(1)


def fetch(
    address: Annotated[
        str,
        typer.Argument(help="of a release: a path, a zip file of it, https://, s3://, ...; sample: the package's own"),
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make; an interrupted fetch resumes")],
    encoder: Annotated[str | None, typer.Option(help="only this feature set and its graph")] = None,
    key: Annotated[Path | None, typer.Option(help="public SSH key (.pub) that must have signed it")] = None,
) -> None:
    """fetch a release, every byte checked before it appears."""
    from pipeline.remote.fetch import fetch as fetch_release
    from pipeline.remote.fetch import work_of

    with (
        interruptible(f"what was downloaded is kept in {work_of(Path(os.path.abspath(to)))}"),
        bytes_bar("fetch") as progress,
    ):
        folder = fetch_release(address, to, encoder, progress, key)
    say(f"release {io.sha256(folder / 'manifest.json')}")
    say(f"fetched: {to}")


def diff(
    a: Annotated[Path, typer.Argument(help="the older release folder")],
    b: Annotated[Path, typer.Argument(help="the newer release folder")],
    json_to: Annotated[Path | None, typer.Option("--json", help="also write the result here")] = None,
    page_to: Annotated[Path | None, typer.Option("--page", help="also write a page of the most changed items")] = None,
    root: Root = Path("outputs"),
) -> None:
    """compare two releases: schema, rows, values, and the version that the change deserves."""
    Release(a).verified()
    Release(b).verified()
    from pipeline.compare import releases  # loads SciPy, which a damaged release need not wait for

    differences = releases.diff(a, b, changed=5)
    for line in releases.lines(differences):
        say(line)
    if json_to:
        io.write_json(json_to, differences)
    if page_to:
        from pipeline.compare import page

        release = Release(b)
        text = page.changes_html(a, b, differences, release.beside(root).images, release.manifest.kind)
        io.write_bytes(page_to, text.encode())
        say(f"page: {page_to}")


def leaderboard(
    releases: Annotated[list[Path] | None, typer.Argument(help="release folders")] = None,
    to: Annotated[Path, typer.Option("--to", help="page to write")] = Path("leaderboard.html"),
) -> None:
    """write a page with the benchmarks of releases, next to published figures."""
    from pipeline.compare import leaderboard as board

    io.write_bytes(to, board.html([board.read(folder) for folder in releases or []]).encode())
    say(f"page: {to}")


def export(
    what: Annotated[str, typer.Argument(help="a dataset, or a release folder")],
    form: Annotated[
        str, typer.Option("--format", help="mmrec, recbole, cornac, npy or hf; minionerec for semantic IDs")
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make")],
    features: Annotated[
        list[str] | None, typer.Option(help="a feature set; may be given again; all by default")
    ] = None,
    zero_rows: Annotated[
        str, typer.Option("--zero-rows", help="rows of items without content: drawn at random, or drop the items")
    ] = "drawn",
    order: Order = None,
    root: Root = Path("outputs"),
) -> None:
    """export a dataset or release in the format of another tool."""
    from pipeline.export import content
    from pipeline.export.rows import arranged
    from pipeline.export.write import wants_codes, write

    coded = wants_codes(form)
    if (Path(what) / "manifest.json").exists():
        found = content.of_release(Path(what), features or [], coded)
    else:
        found = content.of_dataset(Layout(root, what), features or [], coded)
    exported = arranged(found, zero_rows, order)
    with interruptible(f"{to} is not there yet"):
        notes = write(exported, form, to)
    filled = [f"{name}: zero rows filled with drawn numbers: {len(n):,}" for name, n in exported.filled.items() if n]
    for line in [*exported.notes, *notes, *filled, f"exported: {to}"]:
        say(line)


def serve(
    release: Annotated[Path, typer.Argument(help="a release folder")],
    host: Annotated[
        str, typer.Option(help="address to listen at; only this machine reaches the default")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000,
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """serve the page of a release with a search box: text or image in, nearest items out."""
    opened = Release(release).verified()
    own = settings(str(release), params)
    from pipeline.serve import command  # loads torch, which a damaged release need not wait for

    command.serve(opened, own, opened.beside(root).images, host, port, say)
