"""Commands that show and compare results, and commands for releases."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alignrec import schemas
from alignrec.commands import arguments as args
from alignrec.commands.params import read, read_encoders
from alignrec.commands.terminal import explain_interrupt, say, show
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.release.read import verify as verify_release
from alignrec.pipeline.report.params import Report
from alignrec.pipeline.runtime.layout import FEATURE_STAGES, Layout
from alignrec.pipeline.runtime.progress import bytes_bar
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


def summary(
    dataset: args.OneOrAll = None,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
) -> None:
    """summarise the last runs: time, results, report and release."""
    from alignrec.pipeline.report import terminal
    from alignrec.pipeline.report.advice import advise
    from alignrec.pipeline.report.outputs import Outputs

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
    of: Annotated[
        str | None,
        typer.Option(
            help="find the recipe of one file: an encoder of the parameter file, a kind, kind:model"
        ),
    ] = None,
) -> None:
    """compare feature sets: probes, paired tests, similarity, most changed items; with --of, find
    how an encoder made one.
    """
    if of is not None:
        if to is not None:
            raise typer.BadParameter("is without --of, which writes no files", param_hint="--to")
        return _show_recipe(dataset, sets or [], of, params, root, order)
    if not sets:
        raise typer.BadParameter("name a feature set or a file", param_hint="SETS")
    from alignrec.pipeline.report import compare as command
    from alignrec.pipeline.report import terminal, verdict
    from alignrec.pipeline.report.advice import advise_comparison

    settings = args.settings_of(dataset, params)
    with args.open_layout(dataset, root, "interactions") as layout:
        folder = to or Layout(root, layout.dataset).folder("compare")
        if not args.is_release(dataset):
            read_stages = ("interactions", "items", *FEATURE_STAGES)
            refuse_altered(layout, (STAGES[stage] for stage in read_stages), "compare")
        result = command.compare(layout, settings, sets, folder, order)

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


def _show_recipe(
    dataset: str, sets: list[str], of: str, params: Path, root: Path, order: Path | None
) -> None:
    if not sets:  # only a file was given
        sets = [dataset]
        dataset = _only_dataset(params)
    if len(sets) > 1:
        raise typer.BadParameter("is of one file", param_hint="--of")
    # loads torch
    from alignrec.pipeline.release import identify
    from alignrec.pipeline.release.choice import choose_encoder
    from alignrec.pipeline.report import terminal
    from alignrec.pipeline.report.feature_set import read_set

    settings = args.settings_of(dataset, params)
    choice = choose_encoder(settings, of, root)
    if choice.project is not None or choice.sets:
        remedy = "name an encoder of the parameter file, a kind, or kind:model"
        raise UserError(f"--of {of}: not an encoder but a feature set; {remedy}")

    (name,) = choice.encode.encoders
    with args.open_layout(dataset, root) as layout:
        asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
        theirs = read_set(sets[0], layout, asins, order)
        recipes = identify.find_recipe(
            theirs.vectors, theirs.has_row, choice.encoders, name, layout
        )

    say(identify.describe_verdict(sets[0], of, recipes))
    say(f"rows: {theirs.source}")
    if recipes:
        table = identify.recipe_table(recipes)
        show(terminal.TerminalTable(table, caption=table.note))


def _only_dataset(params: Path) -> str:
    datasets = read(params).datasets
    if len(datasets) != 1:
        raise UserError(f"{params}: {len(datasets)} datasets; name one before the file")
    return datasets[0]


def diff(
    a: Annotated[Path, typer.Argument(help="the older release folder")],
    b: Annotated[Path, typer.Argument(help="the newer release folder")],
    json_to: args.Json = None,
    page_to: Annotated[
        Path | None, typer.Option("--page", help="also write a page of the most changed items")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            help="exit with 1 for patch, minor or major changes, `turned` sets, or more than a "
            "share of items with other neighbours, such as 0.2",
        ),
    ] = None,
    root: args.Root = args.ROOT,
) -> None:
    """compare two releases: items, vectors, schema, and the version bump that they require."""
    Release(a).verify()
    Release(b).verify()
    # loads SciPy, which a damaged release need not wait for
    from alignrec.pipeline.release.diff import describe_diff, diff_releases, exceeds
    from alignrec.pipeline.release.diff_page import render_changes

    differences = diff_releases(a, b, changed=5)
    failed = fail_on is not None and exceeds(differences, fail_on)
    for line in describe_diff(differences):
        say(line)
    if json_to:
        io.write_json(json_to, differences)
    if page_to:
        release = Release(b)
        images = Layout(root, release.manifest.dataset).images
        text = render_changes(a, b, differences, images, release.manifest.kind)
        io.write_bytes(page_to, text.encode())
        say(f"page: {page_to}")
    if failed:
        raise typer.Exit(1)


def leaderboard(
    releases: Annotated[
        list[Path] | None, typer.Argument(help="release folders, and contributed runs (.json)")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="page to write")] = Path("leaderboard.html"),
) -> None:
    """write a page with the benchmarks of releases, next to published figures."""
    from alignrec.pipeline.release.leaderboard import read_entries, render_leaderboard

    page = render_leaderboard([read_entries(folder) for folder in releases or []])
    io.write_bytes(to, page.encode())
    say(f"page: {to}")


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
    json_to: Annotated[
        Path | None, typer.Option("--json", help="also write what --data gave here")
    ] = None,
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
    if json_to:
        io.write_json(json_to, outcome)
    if not outcome["agrees"]:
        raise typer.Exit(1)


def fetch(
    address: Annotated[
        str,
        typer.Argument(
            help=(
                "of a release: a path, a zip file of it, https://, s3://, ...; sample: the "
                "package's own; of a delta with --onto"
            )
        ),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", help="folder to make; an interrupted fetch resumes")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="only this feature set and its graph")] = None,
    key: args.Key = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            "--onto", help="the older release of a delta; default --to: DATASET-VERSION next to it"
        ),
    ] = None,
) -> None:
    """download a release; it appears only after every byte is verified."""
    from alignrec.pipeline.release.fetch import WORK, fetch

    if onto is not None:
        return _fetch_onto(address, onto, to, encoder, key)
    if to is None:
        raise typer.BadParameter("name the folder to make", param_hint="--to")
    advice = f"what was downloaded is kept in {io.next_to(to, WORK)}"
    with explain_interrupt(advice), bytes_bar("fetch") as progress:
        folder = fetch(address, to, encoder, progress, key)
    say(f"release {io.sha256(folder / 'manifest.json')}")
    say(f"fetched: {to}")


def _fetch_onto(
    address: str, onto: Path, to: Path | None, encoder: str | None, key: Path | None
) -> None:
    from alignrec.pipeline.release.delta.onto import fetch_onto

    if encoder is not None:
        raise typer.BadParameter("a delta gives the whole release", param_hint="--encoder")
    with explain_interrupt("what was downloaded is kept"), bytes_bar("fetch") as progress:
        folder = fetch_onto(address, onto, to, progress, key)
    say(f"release {io.sha256(folder / 'manifest.json')}")
    say(f"fetched: {to or folder}")


def export(
    what: Annotated[str, typer.Argument(help="a dataset, or a release folder")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="mmrec, recbole, cornac, npy or hf; minionerec for semantic IDs; atlas for a map",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="folder to make")],
    features: args.Sets = None,
    order: args.Order = None,
    root: args.Root = args.ROOT,
) -> None:
    """export a dataset or release in the format of another tool."""
    from alignrec.pipeline.release.export.content import arrange_rows, of_dataset, of_release
    from alignrec.pipeline.release.export.write import (
        wants_all,
        wants_codes,
        wants_map,
        write_export,
    )

    coded = wants_codes(form)
    mapped = wants_map(form)
    whole = wants_all(form)
    if (Path(what) / "manifest.json").exists():
        content = of_release(Path(what), features or [], coded, mapped, whole)
    else:
        layout = Layout(root, what)
        read_stages = ["interactions", "items", *FEATURE_STAGES]
        if coded:
            read_stages.append("semantic_ids")
        if mapped:
            read_stages += ["images", "graph"]
        refuse_altered(layout, [STAGES[stage] for stage in read_stages], "export")
        content = of_dataset(layout, features or [], coded, mapped, whole)

    exported = arrange_rows(content, order)
    with explain_interrupt(f"{to} is not there yet"):
        notes = write_export(exported, form, to)
    for line in [*exported.notes, *notes]:
        say(line)
    for name, rows in exported.filled.items():
        if rows:
            say(f"{name}: zero rows filled with drawn numbers: {len(rows):,}")
    say(f"exported: {to}")


def embed(
    items: Annotated[
        str, typer.Argument(help="Parquet, CSV or JSON lines, one item per row; s3:// for Parquet")
    ],
    encoder: Annotated[
        str, typer.Option(help="a name of the parameter file, a kind such as minilm, or kind:model")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="folder of Parquet files to make, or s3://; an interrupted run resumes"
        ),
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
    images_per_item: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="images to average; default: images.most, or 1"),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="where the encoder runs")
    ] = "local",
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="encode again what failed or is new, into the same folder"
        ),
    ] = False,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
) -> None:
    """encode any table with any encoder, or new items with the encoder of a release."""
    if release is not None:
        Release(release).verify()

    # loads torch, which a damaged release need not wait for
    from alignrec.pipeline.release.choice import choose_encoder, choose_released
    from alignrec.pipeline.release.embed import embed
    from alignrec.pipeline.release.item_table import IMAGES
    from alignrec.pipeline.sources.tabular import OF_ITEMS

    named = args.parse_columns(column or [], OF_ITEMS)
    if release is None:
        settings = read_encoders(params) if params.exists() else None
        choice = choose_encoder(settings, encoder, root, engine)
        if choice.project:
            made = (STAGES[stage] for stage in FEATURE_STAGES)
            refuse_altered(choice.project.layout, made, "embed")
    else:
        choice = choose_released(release, encoder, root, engine)

    texts = [name for name in (text or "").split(",") if name]
    most = images_per_item or choice.images.most
    open_items = partial(_open_items, choice, named, texts, most, set())
    if is_remote(items) or is_remote(to):
        if not (is_remote(items) and is_remote(to)) or retry_failed:
            fault = "a table of s3:// is embedded into s3://, and without --retry-failed"
            raise UserError(f"{items}, --to {to}: {fault}")
        from alignrec.pipeline.release.embed_remote import embed_remote

        options = [named, texts, most, str(images)]
        open_part = partial(open_items, images)
        with explain_interrupt(f"parts that are sent are kept in {to}"):
            summary = embed_remote(items, to, open_part, choice, root, options)
    else:
        path = Path(items)
        table = open_items(images or (path.parent if IMAGES in named else None), path)
        with explain_interrupt(f"items encoded so far are kept next to {to}"):
            summary = embed(table, choice, Path(to), retry_failed)
    _show_summary(summary, to)
    counts = {"image": summary.images, "text": summary.texts}
    for modality in choice.reads:
        if not counts[modality]:
            lacking = f"{encoder} reads {modality}s, and no item has one"
            say(f"warning: {lacking}; {REMEDIES[modality]}", err=True)


def _open_items(
    choice: "Choice",
    named: Mapping[str, str],
    texts: Sequence[str],
    most: int,
    shown: set[str],
    images: Path | None,
    path: Path,
) -> "ItemTable":
    """Find the columns of a table or of a part of one, and name those that are guessed unless an
    earlier part has `shown` them; warn of texts unlike the encoder's.
    """
    from alignrec.pipeline.release.item_table import open_table

    table = open_table(path, images, named, texts, choice.recipe, most)
    guesses = [f"{role}={column}" for role, column in table.guessed.items()]
    if guesses and not shown.issuperset(guesses):
        say(f"columns by their names: {', '.join(guesses)}; --column takes others")
        shown.update(guesses)
    for difference in table.differences if "text" in choice.reads else ():
        say(f"warning: {difference}", err=True)
    return table


def is_remote(address: str) -> bool:
    return address.lower().startswith("s3://")


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


def serve(
    release: args.ReleaseFolder,
    host: Annotated[
        str, typer.Option(help="address to listen at; only this machine reaches the default")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 8000,
    images: Annotated[
        Path | None,
        typer.Option(
            help="folder of image files named after items, or of a project's stored images"
        ),
    ] = None,
    params: args.ParamsFile = args.PARAMS,
    root: args.Root = args.ROOT,
) -> None:
    """serve the page of a release, with a search for the items nearest to a text or image."""
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    opened = Release(release).verify()
    settings = args.settings_of(str(release), params)
    # loads torch, which a damaged release need not wait for
    from alignrec.pipeline.release.serve import serve

    stored = Layout(root, opened.manifest.dataset).images
    if images is None and any(stored.glob("images-*.parquet")):
        images = stored
    preferred = settings[TrainSettings].features
    n_items = settings[Report].gallery_items
    serve(opened, preferred, n_items, images, host, port, say)
