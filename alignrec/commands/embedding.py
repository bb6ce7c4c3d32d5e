"""The command that embeds a table of items."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignrec.commands import arguments as args
from alignrec.commands.params import read_encoders
from alignrec.commands.terminal import explain_interrupt, say
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.runtime.layout import FEATURE_STAGES
from alignrec.pipeline.runtime.stage import refuse_altered
from alignrec.stages.order import STAGES

if TYPE_CHECKING:
    from alignrec.pipeline.release.choice import Choice
    from alignrec.pipeline.release.embed import Summary
    from alignrec.pipeline.release.item_table import ItemTable

REMEDIES = {
    "image": "name their folder by --images",
    "text": "name their columns, such as --column title=NAME",
}  # modality -> what to do if no item of a table has it
MAX_REASONS = 3  # rejection reasons printed on the terminal


def embed(
    items: Annotated[str, typer.Argument(help="Parquet, CSV or JSON lines, one item per row")],
    encoder: Annotated[
        str, typer.Option(help="a name of the parameter file, a kind such as minilm, or kind:model")
    ],
    to: Annotated[
        str,
        typer.Option("--to", help="folder of Parquet files to make; an interrupted run resumes"),
    ],
    release: Annotated[Path | None, typer.Option(help="release that has the encoder")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="name a column, such as item=sku; repeatable"),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="columns that are the whole text, such as title,notes"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="folder of image files; with --column image_urls=..., the table's"),
    ] = None,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
) -> None:
    """encode any table with any encoder, or new items with the encoder of a release."""
    for address in (items, to):
        if "://" in address:
            raise UserError(
                f"{address}: not a local path; copy it here (aws s3 sync) or mount it (fsspec)"
            )
    if release is not None:
        Release(release).verify()

    # loads torch, which a damaged release need not wait for
    from alignrec.pipeline.release.embed import embed
    from alignrec.pipeline.release.item_table import IMAGES, open_table
    from alignrec.pipeline.sources.tabular import OF_ITEMS

    named = args.parse_columns(column or [], OF_ITEMS)
    choice = _choose_encoder(encoder, release, params, root)
    texts = [name for name in (text or "").split(",") if name]
    path = Path(items)
    folder = images or (path.parent if IMAGES in named else None)
    table = open_table(path, folder, named, texts, choice.recipe)
    _report_columns(table, choice)
    with explain_interrupt(f"items encoded so far are kept next to {to}"):
        summary = embed(table, choice, Path(to))

    _show_summary(summary, to)
    _warn_of_absent(choice, summary, encoder)


def _choose_encoder(encoder: str, release: Path | None, params: Path, root: Path) -> "Choice":
    from alignrec.pipeline.release.choice import choose_encoder, choose_released

    if release is not None:
        return choose_released(release, encoder)

    settings = read_encoders(params) if params.exists() else None
    choice = choose_encoder(settings, encoder, root)
    if choice.project is not None:
        made = (STAGES[stage] for stage in FEATURE_STAGES)
        refuse_altered(choice.project, made, "embed")
    return choice


def _report_columns(table: "ItemTable", choice: "Choice") -> None:
    """Name the columns that are guessed; warn of texts unlike the encoder's."""
    guesses = [f"{role}={column}" for role, column in table.guessed.items()]
    if guesses:
        say(f"columns by their names: {', '.join(guesses)}; --column takes others")
    for difference in table.differences if "text" in choice.reads else ():
        say(f"warning: {difference}", err=True)


def _show_summary(summary: "Summary", to: str) -> None:
    say(
        f"embedded: {to}: {summary.items:,} items, {summary.images:,} with image, "
        f"{summary.texts:,} with text"
    )
    if summary.rejected:
        most_common = summary.rejected.most_common(MAX_REASONS)
        reasons = [f"{reason} ({count:,})" for reason, count in most_common]
        if len(summary.rejected) > MAX_REASONS:
            reasons.append("...")
        say(f"not used: {summary.rejects}: {summary.rejected.total():,} rows: {', '.join(reasons)}")


def _warn_of_absent(choice: "Choice", summary: "Summary", encoder: str) -> None:
    """Warn of modalities that the encoder reads and no item has."""
    counts = {"image": summary.images, "text": summary.texts}
    for modality in choice.reads:
        if not counts[modality]:
            lacking = f"{encoder} reads {modality}s, and no item has one"
            say(f"warning: {lacking}; {REMEDIES[modality]}", err=True)
