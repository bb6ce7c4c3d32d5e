"""`alignrec embed`: vectors for any table."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.release.read import Release
from stages.arguments import ParamsFile, Root
from stages.terminal import interruptible, say

MOST_REASONS = 3  # reasons of rejects on the terminal


def embed(
    items: Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines, one item per row")],
    encoder: Annotated[str, typer.Option(help="a name of the parameter file, a kind such as minilm, or kind:model")],
    to: Annotated[Path, typer.Option("--to", help="folder of Parquet files to make; an interrupted run resumes")],
    release: Annotated[Path | None, typer.Option(help="release that has the encoder")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="column of identifiers: asin, item, item_id or id")] = None,
    text: Annotated[str | None, typer.Option(help="columns of text, such as title,description")] = None,
    image: Annotated[str | None, typer.Option(help="column of images: bytes, or paths in --images")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of image files; that of the table by default")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="where the encoder runs")] = "local",
    params: ParamsFile = Path("params.yaml"),
    root: Root = Path("outputs"),
) -> None:
    """encode any table with any encoder, or new items with the encoder of a release."""
    if release is not None:
        Release(release).verified()
    from pipeline.embed import command  # load torch, which a damaged release need not wait for
    from pipeline.embed.prepare import Table
    from pipeline.encode.params import Encode
    from pipeline.release.item_file import Columns

    settings = _settings(params if release is None else None)
    own = settings[Encode].model_copy(update={"engine": engine})
    if release is not None:
        chosen = command.of_release(release, encoder, own)
    else:
        chosen = command.of_parameters(encoder, settings, own, root)
    named = tuple(name for name in (text or "").split(",") if name)
    table = Table(items, images or (items.parent if image else None), Columns(id_, named, image))
    with interruptible(f"items encoded so far are kept next to {to}"):
        summary = command.embed(table, chosen, settings, to)
    say(f"embedded: {to}: {summary.items:,} items, {summary.images:,} with image, {summary.texts:,} with text")
    if summary.rejects:
        reasons = [f"{reason} ({n:,})" for reason, n in summary.rejected.most_common(MOST_REASONS)]
        reasons += ["..."] * (len(summary.rejected) > MOST_REASONS)
        say(f"not used: {summary.rejects}: {summary.rejected.total():,} rows: {', '.join(reasons)}")


def _settings(path: Path | None):  # type: ignore[no-untyped-def]  # the class is made at run time
    from pipeline.config.base import checked
    from pipeline.embed.prepare import DATASET
    from pipeline.sources.registry import SOURCES
    from stages.params import Params, read

    source = {DATASET: SOURCES["tabular"].model_construct(kind="tabular")}
    if path is None or not path.exists():
        return checked(Params, {"datasets": [DATASET], "sources": source})
    return read(path).model_copy(update={"datasets": [DATASET], "sources": source})
