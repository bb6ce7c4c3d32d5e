"""`alignrec new`: write params.yaml for local files or an Amazon category."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS
from alignrec.commands.params import read
from alignrec.commands.repository import find_repository
from alignrec.commands.terminal import say, show
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import DATASET_NAME
from alignrec.pipeline.runtime.section import require_known
from alignrec.pipeline.sources.categories import CATEGORIES, by_size

if TYPE_CHECKING:
    from alignrec.commands.own_data import Given, OwnData

MIN_SUGGESTED = 2_000  # interactions of the smallest category that is suggested


def new(
    name: Annotated[
        str | None,
        typer.Argument(help="dataset name: letters, digits, _ and -; absent: keep params.yaml"),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="one interaction per row: Parquet, CSV, TSV, JSON lines; or MMRec's folder"
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="one item per row: text, categories, images")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="folder or archive, or a pattern: images/{item}.jpg")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="name a column, such as item=sku; repeatable")
    ] = None,
    interactions_only: Annotated[
        bool, typer.Option("--interactions-only", help="a project without texts, images, features")
    ] = False,
    amazon: Annotated[
        int | None, typer.Option(help="in place of files: 2014, 2018 or 2023, year of the data")
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Amazon category, as its publisher spells it")
    ] = None,
    beit3: Annotated[
        bool, typer.Option("--beit3", help="pre-train BEiT3 without a GPU, too")
    ] = False,
    to: Annotated[Path, typer.Option(help="file to write")] = PARAMS,
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
) -> None:
    """turn this folder into a project: git, DVC, dvc.yaml and, unless you wrote one, params.yaml
    for your files.
    """
    if name is None and amazon is not None:
        raise UserError(ask_for_name(str(amazon), category))
    if name is None:
        read(PARAMS)
        for line in project.begin_project(Path()):
            say(line)
        return
    if (interactions is None) == (amazon is None):
        raise typer.BadParameter("give either --interactions, or --amazon with --category")
    if interactions_only and (items or images):
        raise typer.BadParameter("--interactions-only excludes --items and --images")
    check_target(name, to, force)
    if to == PARAMS:
        find_repository(Path())
    if interactions is not None:
        from alignrec.commands.own_data import Given  # loads DuckDB

        given = Given(name, interactions, items, images, column or [], interactions_only)
        text, seen = describe_files(given, beit3)
    else:
        text, seen = describe_category(name, str(amazon), category, beit3)
    for line in [*seen, *write_project(name, text, to)]:
        say(line)


def ask_for_name(year: str, category: str | None) -> str:
    """Return a message that asks for the name of a dataset, after a list of what there is."""
    require_known([year], CATEGORIES, "--amazon")
    if category is None:
        show_categories(year)
    chosen = category or suggest_category(year)
    name = re.sub("[^a-z0-9]+", "-", chosen.lower()).strip("-")
    return f"give the dataset a name: alignrec new {name} --amazon {year} --category {chosen}"


def check_target(name: str, to: Path, force: bool) -> None:
    if not DATASET_NAME.fullmatch(name):
        raise UserError(f"invalid dataset name '{name}'; use up to 64 letters, digits, _ and -")
    if to.exists() and not force:
        raise UserError(
            f"{to}: exists already; give another name with --to, or overwrite it with --force"
        )


def write_project(name: str, text: str, to: Path) -> Iterator[str]:
    io.write_bytes(to, text.encode())
    yield f"wrote {to}"
    if to == PARAMS:
        yield from project.begin_project(Path())
        yield "next: dvc repro; `alignrec plan` estimates how long it takes"
    else:
        yield f"next: alignrec download {name} --params {to}"


def describe_files(given: Given, beit3: bool = False) -> tuple[str, list[str]]:
    """Return a parameter file for local files, and messages about them."""
    from alignrec.commands import mmrec_folder, own_data  # load DuckDB

    is_mmrec = mmrec_folder.is_mmrec(given.interactions)
    data = mmrec_folder.read_folder(given) if is_mmrec else own_data.read_tables(given)
    return choose_beit3(data, beit3)


def describe_category(
    name: str, year: str, category: str | None, beit3: bool = False
) -> tuple[str, list[str]]:
    """Return a parameter file for an Amazon category, and messages about it."""
    require_known([year], CATEGORIES, "--amazon")
    if category is None:
        show_categories(year)
        raise UserError(f"--amazon {year}: give --category too, such as {suggest_category(year)}")
    require_known([category], CATEGORIES[year], "--category")

    from alignrec.commands import own_data  # loads DuckDB

    return choose_beit3(own_data.read_category(name, year, category), beit3)


def choose_beit3(data: OwnData, asked: bool) -> tuple[str, list[str]]:
    """Return a parameter file with BEiT3 if there is a GPU or it is asked for, and messages."""
    from alignrec.commands import own_data

    if not data.modalities or has_gpu():
        return own_data.as_yaml(data, beit3=True), data.seen

    message = "BEiT3 is left out, as there is no GPU; --beit3 pre-trains it"
    if asked:
        message = (
            f"BEiT3 is pre-trained for at most {own_data.count_steps(data.items):,} steps, "
            "fewer if its held-out losses stop falling"
        )
    return own_data.as_yaml(data, asked), [*data.seen, message]


def show_categories(year: str) -> None:
    """Print a table of the categories of a year, smallest first."""
    from alignrec.pipeline.report.table import Table
    from alignrec.pipeline.report.terminal import TerminalTable

    rows = []
    for name, category in by_size(year):
        core = category.estimate_core()
        mark = "" if category.core else "~"
        of_core = [f"{mark}{count:,}" for count in core] if core else ["unknown"] * 3
        reviews = "" if category.reviews is None else f"{category.reviews:,}"
        rows.append([name, *of_core, reviews])

    head = ["category", "users", "items", "interactions", "of reviews"]
    heading = f"Amazon {year}: 5-core of each category (~ estimated)"
    show(TerminalTable(Table(heading, "", head, rows, texts=1), unbroken=[0]))


def suggest_category(year: str) -> str:
    for name, category in by_size(year):
        core = category.estimate_core()
        if core and core.interactions >= MIN_SUGGESTED:
            return name
    return next(iter(CATEGORIES[year]))


def has_gpu() -> bool:
    import torch  # takes seconds

    return torch.cuda.is_available()
