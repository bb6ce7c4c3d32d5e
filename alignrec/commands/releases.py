"""Commands for releases."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alignrec.commands.arguments import PARAMS, ROOT, Key, Order, ParamsFile, ReleaseFolder, Root, settings_of
from alignrec.commands.params import Params, read
from alignrec.commands.terminal import explain_interrupt, say
from alignrec.pipeline import io
from alignrec.pipeline.harness.config import checked
from alignrec.pipeline.harness.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.harness.progress import bytes_bar
from alignrec.pipeline.harness.stage import refuse_altered
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.release.read import verify as verify_release
from alignrec.pipeline.report.params import Report
from alignrec.pipeline.sources.base import SOURCES
from alignrec.pipeline.train.params import Released
from alignrec.stages.order import STAGES

if TYPE_CHECKING:
    from alignrec.pipeline.embed.command import Summary

MOST_REASONS = 3  # reasons of rejects on the terminal


def verify(
    folder: ReleaseFolder,
    key: Key = None,
    data: Annotated[str | None, typer.Option(help="recompute vectors: a dataset, or items as for `embed`")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of image files, for items in --data")] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of --data to recompute")] = 200,
    encoder: Annotated[list[str] | None, typer.Option(help="a feature set; may be given again; all by default")] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="also write what --data gave here")] = None,
    root: Root = ROOT,
) -> None:
    """check every file of a release and its signature; with --data also its vectors. Exit code 1 if they differ."""
    for line in verify_release(folder, key):
        say(line)
    if data is None:
        return
    from alignrec.pipeline.release import attest  # loads torch, which a damaged release need not wait for

    outcome = attest.attest(folder, attest.open_inputs(data, images, root), sample, encoder or [])
    for line in attest.describe_outcome(outcome, folder):
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
    key: Key = None,
) -> None:
    """fetch a release, every byte checked before it appears."""
    from alignrec.pipeline.remote import fetch as remote

    kept = f"what was downloaded is kept in {remote.work_folder(Path(os.path.abspath(to)))}"
    with explain_interrupt(kept), bytes_bar("fetch") as progress:
        folder = remote.fetch(address, to, encoder, progress, key)
    say(f"release {io.sha256(folder / 'manifest.json')}")
    say(f"fetched: {to}")


def export(
    what: Annotated[str, typer.Argument(help="a dataset, or a release folder")],
    form: Annotated[
        str, typer.Option("--format", help="mmrec, recbole, cornac, npy or hf; minionerec for semantic IDs")
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make")],
    features: Annotated[
        list[str] | None, typer.Option(help="a feature set; may be given again; all by default")
    ] = None,
    order: Order = None,
    root: Root = ROOT,
) -> None:
    """export a dataset or release in the format of another tool."""
    from alignrec.pipeline.export import content
    from alignrec.pipeline.export.write import wants_codes, write_export

    coded = wants_codes(form)
    if (Path(what) / "manifest.json").exists():
        found = content.of_release(Path(what), features or [], coded)
    else:
        layout = Layout(root, what)
        read_by = ["interactions", "items", *FEATURE_STAGES, *["semantic_ids"] * coded]
        refuse_altered(layout, map(STAGES.__getitem__, read_by), "export")
        found = content.of_dataset(layout, features or [], coded)
    exported = content.arrange_rows(found, order)
    with explain_interrupt(f"{to} is not there yet"):
        notes = write_export(exported, form, to)
    filled = [f"{name}: zero rows filled with drawn numbers: {len(n):,}" for name, n in exported.filled.items() if n]
    for line in [*exported.notes, *notes, *filled, f"exported: {to}"]:
        say(line)


def embed(
    items: Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines, one item per row")],
    encoder: Annotated[str, typer.Option(help="a name of the parameter file, a kind such as minilm, or kind:model")],
    to: Annotated[Path, typer.Option("--to", help="folder of Parquet files to make; an interrupted run resumes")],
    release: Annotated[Path | None, typer.Option(help="release that has the encoder")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="column of identifiers; by default asin, item_id, sku, id ...")
    ] = None,
    text: Annotated[str | None, typer.Option(help="columns of text, such as title,description")] = None,
    image: Annotated[str | None, typer.Option(help="column of images: bytes, or paths in --images")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of image files; that of the table by default")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="where the encoder runs")] = "local",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="encode again what failed or is new, into the same folder")
    ] = False,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
) -> None:
    """encode any table with any encoder, or new items with the encoder of a release."""
    if release is not None:
        Release(release).verify()
    from alignrec.pipeline.embed import command  # load torch, which a damaged release need not wait for
    from alignrec.pipeline.encode.params import Encode
    from alignrec.pipeline.release.item_file import Columns

    # a table is no dataset of the parameter file; a generated one stands in for it
    generated = SOURCES["sample"].model_construct(kind="sample")
    own = {"datasets": [command.DATASET], "sources": {command.DATASET: generated}}
    has_file = release is None and params.exists()
    settings = read(params).model_copy(update=own) if has_file else checked(Params, own)
    settings = settings.having(settings[Encode].model_copy(update={"engine": engine}))
    if release is not None:
        choice = command.choose_released(settings, release, encoder, root)
    else:
        choice = command.choose_encoder(settings, encoder, root)
    named = tuple(name for name in (text or "").split(",") if name)
    table = command.Table(items, images or (items.parent if image else None), Columns(id_, named, image))
    with explain_interrupt(f"items encoded so far are kept next to {to}"):
        summary = command.embed(table, choice, to, retry_failed)
    _show_summary(summary, to)


def _show_summary(summary: "Summary", to: Path) -> None:
    say(f"embedded: {to}: {summary.items:,} items, {summary.images:,} with image, {summary.texts:,} with text")
    if summary.rejected:
        reasons = [f"{reason} ({n:,})" for reason, n in summary.rejected.most_common(MOST_REASONS)]
        reasons += ["..."] * (len(summary.rejected) > MOST_REASONS)
        say(f"not used: {summary.rejects}: {summary.rejected.total():,} rows: {', '.join(reasons)}")


def serve(
    release: ReleaseFolder,
    host: Annotated[
        str, typer.Option(help="address to listen at; only this machine reaches the default")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
) -> None:
    """serve the page of a release with a search box: text or image in, nearest items out."""
    opened = Release(release).verify()
    settings = settings_of(str(release), params)
    from alignrec.pipeline.serve import app  # loads torch, which a damaged release need not wait for

    preferred, shown = settings[Released].features, settings[Report].gallery_items
    app.serve(opened, preferred, shown, opened.layout_under(root).images, host, port, say)
