"""`alignrec new` and `alignrec profile`: write params.yaml for local files, an Amazon category or from a profile."""

from __future__ import annotations

import io as text_io
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS, ROOT
from alignrec.commands.params import Params, check, parse, read
from alignrec.commands.plan import format_duration
from alignrec.commands.terminal import say
from alignrec.pipeline import io
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import require_known, validate
from alignrec.pipeline.runtime.yaml_files import EXTENDS, Loader, merge, read_yaml
from alignrec.pipeline.sources.amazon import CATEGORIES, KIND, SIZES

if TYPE_CHECKING:
    from alignrec.commands.estimate import Size
    from alignrec.commands.own_data import Given

PROFILES = Path(__file__).parents[1] / "profiles"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
WITHOUT_BEIT3 = "beit3: {sets: []}\n"
AMAZON = """# What `dvc repro` builds, and how: Amazon's {category} of {year}. Absent keys have their defaults.
datasets: [{name}]
sources:
  {name}: {{kind: {kind}, category: {category}}}
encode: {{encoders: [minilm, cnn, descriptors, tfidf]}}
combine: {{sets: {{linear: {{}}}}}}
"""


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
    """turn this folder into a project: git, DVC, dvc.yaml and, unless you wrote one, params.yaml for your files."""
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
    if interactions is not None:
        from alignrec.commands.own_data import Given  # loads DuckDB

        given = Given(name, interactions, items, images, column or [], interactions_only)
        text, seen = describe_files(given, beit3)
    else:
        text, seen = describe_category(name, str(amazon), category, beit3)
    for line in [*seen, *write_project(name, text, to)]:
        say(line)


def check_target(name: str, to: Path, force: bool) -> None:
    if not NAME.fullmatch(name):
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

    if mmrec_folder.is_mmrec(given.interactions):
        found = mmrec_folder.read_folder(given)
    else:
        found = own_data.read_tables(given)
    if not found.modalities or beit3 or has_gpu():
        return own_data.as_yaml(found, beit3=True), found.seen

    left_out = cost_of_beit3(given.name, own_data.as_yaml(found, beit3=True), found.size)
    return own_data.as_yaml(found, beit3=False), [*found.seen, left_out]


def describe_category(
    name: str, year: str, category: str | None, beit3: bool = False
) -> tuple[str, list[str]]:
    require_known([year], CATEGORIES, "--amazon")
    published = CATEGORIES[year]
    if category is None:
        raise UserError(f"--amazon {year}: give --category too, one of {', '.join(published)}")
    require_known([category], published, "--category")
    kind = KIND.format(year)
    size = SIZES.get((kind, category))
    text = AMAZON.format(name=name, kind=kind, category=category, year=year)
    seen = [f"{category} of {year}: {size or 'of a size that is known once it is downloaded'}"]
    if beit3 or has_gpu():
        return text, seen
    return text + WITHOUT_BEIT3, [*seen, cost_of_beit3(name, text)]


def has_gpu() -> bool:
    import torch  # takes seconds

    return torch.cuda.is_available()


def cost_of_beit3(name: str, text: str, size: Size | None = None) -> str:
    """Return a message with the estimated time of `--beit3`; `text` is the parameter file with it."""
    from alignrec.commands import estimate
    from alignrec.pipeline.linalg.device import gemm_rate

    params, seconds = validate(Params, yaml.safe_load(text)), ""
    with suppress(UserError):  # the category has no published size
        size = size or estimate.read_size(params, Layout(ROOT, name))
        stages = estimate.estimate_stages(estimate.Plan(params, name, size, gemm_rate("float32")))
        seconds = (
            f", in about {format_duration(stages['pretrain'].seconds + stages['beit3'].seconds)}"
        )
    return f"BEiT3 is left out, as there is no GPU; --beit3 pre-trains it{seconds}"


def profile(
    name: Annotated[
        str, typer.Argument(help="a profile of the package, such as paper or baby, or a path")
    ],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = PARAMS,
) -> None:
    """write a profile into params.yaml, so that git and DVC show its changes."""
    path = PROFILES / f"{name}.yaml"
    if not path.is_file() and not (path := Path(name)).is_file():
        raise UserError(
            f"no profile '{name}'; there are {', '.join(sorted(one.stem for one in PROFILES.glob('*')))}"
        )
    over, absent = read_yaml(path), list[str]()
    text, changed = path.read_text(encoding="utf-8"), list(over)
    # a profile is an overlay: keep the comments of the file that it extends
    if EXTENDS in over:
        base = path.parent / over.pop(EXTENDS)
        # paper.yaml extends the parameters of this project or, in a folder without any, those of the package
        base = PARAMS if base.name == PARAMS.name and PARAMS.exists() else base
        over, absent = _without_absent_sets(over, base)
        text, changed = _merge_documents(base.read_text(encoding="utf-8"), over)
    check(
        parse(yaml.load(text, Loader), path), path
    )  # validate before writing anything; a SafeLoader
    kept = _keep_uncommitted(to, text)
    io.write_bytes(to, text.encode())
    say(f"wrote {to}: {', '.join(changed) or 'nothing changed'}")
    if absent:
        say(f"left out, as there are no such feature sets: {', '.join(absent)}")
    for line in project.begin_project(Path()) if to == PARAMS else ():
        say(line)
    undo = f"`git diff {to}` shows what changed, `git checkout {to}` takes it back"
    say(
        f"next: dvc repro; {f'{kept} is {to} as it was, which git does not have' if kept else undo}"
    )


def _without_absent_sets(over: dict[str, Any], base: Path) -> tuple[dict[str, Any], list[str]]:
    """Drop the feature sets that the project lacks from an overlay's benchmark; return it and the dropped names."""
    own = over.get("benchmark", {})
    features, ablations = own.get("features", []), own.get("ablations", {})
    params = parse(merge(read_yaml(base), over) | {"benchmark": {}}, base)
    made = [DeclaredSets(params, dataset).names() for dataset in params.datasets]
    wanted = dict.fromkeys(
        [*features, *(keys["features"] for keys in ablations.values() if "features" in keys)]
    )
    if not (absent := [one for one in wanted if not all(one in names for names in made)]):
        return over, absent
    rows = {row: keys for row, keys in ablations.items() if keys.get("features") not in absent}
    kept = own | {"features": [one for one in features if one not in absent], "ablations": rows}
    return over | {"benchmark": kept}, absent


def _keep_uncommitted(path: Path, text: str) -> Path | None:
    """Back up a file before it is overwritten, unless git has it or nothing changes; return the copy."""
    if not path.exists() or (before := path.read_bytes()) == text.encode():
        return None
    found = (
        subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
        if shutil.which("git")
        else None
    )
    if found and found.stdout == before:
        return None
    copies = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    copy = next(one for one in copies if not one.exists())
    io.write_bytes(copy, before)
    return copy


def _merge_documents(text: str, over: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the parameter file with the keys of `over` replaced and comments kept, and the names of changed keys."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    merged, changed = yaml.load(text), []
    for section, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(section), dict)
        for key, new in value.items() if both else ((None, value),):
            under = merged[section] if both else merged
            place = key if both else section
            if under.get(place) != new:
                under[place] = new
                changed.append(f"{section}.{key}" if both else section)
    written = text_io.StringIO()
    yaml.dump(merged, written)
    return written.getvalue(), changed
