"""`alignrec new` and `alignrec profile`: write params.yaml for local files, an Amazon category or
from a profile.
"""

from __future__ import annotations

import io as text_io
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS, ROOT
from alignrec.commands.params import Params, check, parse, read
from alignrec.commands.plan import format_duration
from alignrec.commands.repository import MAX_FILE_BYTES, find_repository
from alignrec.commands.terminal import say, show
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.paths import DATASET_NAME
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import require_known, validate
from alignrec.pipeline.runtime.yaml_files import (
    EXTENDS,
    Loader,
    find_base,
    merge,
    read_base,
    read_yaml,
)
from alignrec.pipeline.sources.categories import CATEGORIES, by_size

if TYPE_CHECKING:
    from alignrec.commands.own_data import Given
    from alignrec.commands.size import Size

PROFILES = Path(__file__).parents[1] / "profiles"
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
    older: Annotated[
        Path | None,
        typer.Option("--from", help="release folder in whose vector spaces the project stays"),
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
    if older and (amazon or interactions_only or beit3):
        raise typer.BadParameter("--from excludes --amazon, --interactions-only and --beit3")
    check_target(name, to, force)
    if to == PARAMS:
        find_repository(Path())
    if interactions is not None:
        from alignrec.commands.own_data import Given  # loads DuckDB

        given = Given(name, interactions, items, images, column or [], interactions_only)
        text, seen = describe_files(given, beit3, older)
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


def describe_files(
    given: Given, beit3: bool = False, older: Path | None = None
) -> tuple[str, list[str]]:
    """Return a parameter file for local files, in the spaces of an older release if given, and
    messages about them.
    """
    from alignrec.commands import mmrec_folder, own_data  # load DuckDB

    is_mmrec = mmrec_folder.is_mmrec(given.interactions)
    data = mmrec_folder.read_folder(given) if is_mmrec else own_data.read_tables(given)
    if older:
        from alignrec.commands.spaces import read_spaces

        spaces = read_spaces(older)
        return own_data.as_yaml(data, beit3=False, spaces=spaces), [*data.seen, *spaces.seen]

    with_beit3 = own_data.as_yaml(data, beit3=True)
    if not data.modalities or has_gpu():
        return with_beit3, data.seen

    cost = cost_of_beit3(given.name, with_beit3, beit3, data.size)
    text = with_beit3 if beit3 else own_data.as_yaml(data, beit3=False)
    return text, [*data.seen, cost]


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

    data = own_data.read_category(name, year, category)
    with_beit3 = own_data.as_yaml(data, beit3=True)
    if has_gpu():
        return with_beit3, data.seen

    cost = cost_of_beit3(name, with_beit3, beit3)
    text = with_beit3 if beit3 else own_data.as_yaml(data, beit3=False)
    return text, [*data.seen, cost]


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


def cost_of_beit3(name: str, text: str, asked: bool, size: Size | None = None) -> str:
    """Return a message with the estimated time of `--beit3`, whether it was asked for or not;
    `text` is the parameter file with it.
    """
    params = validate(Params, yaml.safe_load(text))
    message = "BEiT3 is left out, as there is no GPU; --beit3 pre-trains it"
    if asked:
        message = describe_budget(params[Pretrain])
    duration = estimate_beit3(params, name, size)
    return message if duration is None else f"{message}, in about {duration}"


def describe_budget(pretrain: Pretrain) -> str:
    if not pretrain.patience:
        return f"BEiT3 is pre-trained for {pretrain.steps:,} steps"
    return (
        f"BEiT3 is pre-trained for at most {pretrain.steps:,} steps, "
        "fewer if its held-out losses stop falling"
    )


def estimate_beit3(params: Parameters, name: str, size: Size | None = None) -> str | None:
    """Return the time of pre-training all steps and encoding; None for an unknown size."""
    from alignrec.commands import estimate, machine
    from alignrec.commands.size import read_size
    from alignrec.commands.workload import Workload

    try:
        size = size or read_size(params, Layout(ROOT, name))
    except UserError:  # the category has no published size
        return None

    work = Workload(params, name, size, machine.measure_machine().gemm)
    seconds = 0.0
    for estimate_stage in (estimate.estimate_pretrain, estimate.estimate_beit3):
        seconds += estimate_stage(work).seconds + estimate.START_SECONDS
    return format_duration(seconds)


def profile(
    name: Annotated[
        str, typer.Argument(help="a profile of the package, such as paper or baby, or a path")
    ],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = PARAMS,
) -> None:
    """write a profile into params.yaml, so that git and DVC show its changes."""
    path = find_profile(name)
    if to == PARAMS:
        find_repository(Path())
    overlay = read_yaml(path)
    if not isinstance(overlay, dict):
        raise UserError(
            f"{path}: no profile; expected the keys of a parameter file, or `{EXTENDS}`"
        )
    text = path.read_text(encoding="utf-8")
    changed = list(overlay)
    absent: list[str] = []
    # a profile is an overlay: keep the comments of the file that it extends
    if EXTENDS in overlay:
        base = find_base(path, overlay)
        del overlay[EXTENDS]
        # paper.yaml extends the parameters of this project or, in a folder without any, those of
        # the package
        if base.name == PARAMS.name and PARAMS.exists():
            base = PARAMS
        overlay, absent = _without_absent_sets(overlay, read_base(path, base), path)
        text, changed = _merge_documents(base.read_text(encoding="utf-8"), overlay)

    # validate before writing anything; a SafeLoader
    params = parse(yaml.load(text, Loader), path)
    check(params, path)
    backup = _keep_uncommitted(to, text)
    io.write_bytes(to, text.encode())

    say(f"wrote {to}: {', '.join(changed) or 'nothing changed'}")
    state_budgets(params)
    if absent:
        say(f"left out, as there are no such feature sets: {', '.join(absent)}")
    if to == PARAMS:
        for line in project.begin_project(Path()):
            say(line)
    undo = f"`git diff {to}` shows what changed, `git checkout {to}` takes it back"
    if backup:
        undo = f"{backup} is {to} as it was, which git does not have"
    say(f"next: dvc repro; {undo}")


def state_budgets(params: Parameters) -> None:
    """Say how long pre-training takes at most, where the held-out losses decide."""
    pretrain = params[Pretrain]
    if not pretrain.patience or not params[BEiT3Sets].sets:
        return
    for dataset in params.datasets:
        duration = estimate_beit3(params, dataset)
        if duration is not None:
            say(f"{dataset}: {describe_budget(pretrain)}, in about {duration}")


def find_profile(name: str) -> Path:
    """Return the file of a profile of the package, or the path that was given."""
    for path in (PROFILES / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path

    profiles = ", ".join(sorted(path.stem for path in PROFILES.glob("*")))
    raise UserError(f"no profile '{name}'; there are {profiles}")


def _without_absent_sets(
    overlay: dict[str, Any], base: dict[str, Any], path: Path
) -> tuple[dict[str, Any], list[str]]:
    """Drop the feature sets that the project lacks from the benchmark of an overlay, the file
    `path`; return it and the dropped names.
    """
    benchmark = overlay.get("benchmark", {})
    try:
        validate(Benchmark, benchmark, "benchmark")
    except UserError as e:
        raise UserError(f"{path}: {e}") from None
    features = benchmark.get("features", [])
    ablations = benchmark.get("ablations", {})
    params = parse(merge(base, overlay) | {"benchmark": {}}, path)
    available = [set(DeclaredSets(params, dataset).names()) for dataset in params.datasets]
    common = set.intersection(*available)

    ablated = [str(keys["features"]) for keys in ablations.values() if "features" in keys]
    absent = [name for name in dict.fromkeys([*features, *ablated]) if name not in common]
    if not absent:
        return overlay, []

    present = {
        "features": [name for name in features if name not in absent],
        "ablations": {
            row: keys for row, keys in ablations.items() if keys.get("features") not in absent
        },
    }
    return overlay | {"benchmark": benchmark | present}, absent


def _keep_uncommitted(path: Path, text: str) -> Path | None:
    """Back up a file before it is overwritten, unless git has it or nothing changes; return the
    copy.
    """
    if not path.exists():
        return None
    before = io.read_plain(path, MAX_FILE_BYTES)
    if before == text.encode():
        return None
    if shutil.which("git"):
        committed = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
        if committed.stdout == before:
            return None

    for number in itertools.count(1):
        copy = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not copy.exists():
            break
    io.write_bytes(copy, before)
    return copy


def _merge_documents(text: str, overlay: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the parameter file with the overlay's keys and its own comments, and the
    changed keys.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    document = yaml.load(text)

    changed = []
    for section, value in overlay.items():
        current = document.get(section)
        if isinstance(value, dict) and isinstance(current, dict):
            different = [key for key, new in value.items() if current.get(key) != new]
            current.update({key: value[key] for key in different})
            changed += [f"{section}.{key}" for key in different]
        elif current != value:
            document[section] = value
            changed.append(section)

    merged = text_io.StringIO()
    yaml.dump(document, merged)
    return merged.getvalue(), changed
