"""`alignrec new`: inspects local files, writes a parameter file for them, and makes the folder a project."""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from pipeline import io
from pipeline.config.base import known
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.interactions import catalogue
from pipeline.plan.size import PIECE, Size
from pipeline.sources import download, inspect, parameter_file
from pipeline.sources.lines import refuse_blank
from pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource
from stages import project
from stages.params import read

PARAMS = project.PARAMS
NO_ITEMS = "no item file: items have neither text nor image"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# seconds of pre-training up to which a project has BEiT3 unasked, and of a stage from which it is listed
AFFORDABLE, LONG = 600.0, 60.0
Found = tuple[str, list[str]]  # the text of a parameter file, and what was seen


def write(name: str, look: Callable[[], Found], to: Path, force: bool) -> Iterator[str]:
    if not NAME.fullmatch(name):
        raise UserError(f"invalid dataset name '{name}'; use up to 64 letters, digits, _ and -")
    shipped = to == PARAMS and project.is_shipped(Path(), PARAMS)
    if to.exists() and not force and not shipped:
        raise UserError(f"{to}: exists already; give another name with --to, or overwrite it with --force")
    text, seen = look()
    io.write_bytes(to, text.encode())
    yield from seen
    yield f"wrote {to}" + (", in place of the clone's own, which git keeps" if shipped else "")
    if to == PARAMS:
        yield from project.begin(Path())
        yield "next: dvc repro"
    else:
        yield f"next: alignrec download {name} --params {to}"


def look(
    name: str, interactions: Path, items: Path | None, images: str | None, columns: Iterable[str], beit3: bool = False
) -> Found:
    """Return the text of a parameter file for some files, and what was seen in them.

    `images` are a folder, archive or pattern; `columns` are given as `role=name`; `beit3` forces its training.
    """
    flags = _flags(columns, list(filter(None, (interactions, items))))
    rows = inspect.interactions(interactions, flags)
    item_rows = inspect.items(items, flags, rows.roles["item"]) if items else None
    section, pictures = inspect.images(images, item_rows or rows) if images else ({}, [])
    ratings = inspect.ratings(rows)
    source = {"kind": "tabular", "interactions": str(interactions), "columns": rows.renamed()}
    left = catalogue.measure(Tabular(TabularSource.model_validate(source)), {"interactions": interactions})
    seen = [*rows.described(), *(item_rows.described() if item_rows else [NO_ITEMS]), *pictures]
    kept = f"a {left.core}-core leaves" if left.core else "the split of the file has"
    seen.append(f"{kept} {left.users:,} users, {left.items:,} items, {left.interactions:,} interactions")
    if ratings and ratings.explicit:
        seen.append(
            f"ratings go from {ratings.low:g} to {ratings.high:g}; with interactions.min_rating: "
            f"{ratings.threshold:g} only what users liked would count"
        )
    text = partial(
        parameter_file.text, name, rows, item_rows, section, ratings, left.core, left.items, Encode().encoders
    )
    pieces = max(1, round(inspect.characters(item_rows) / PIECE)) if item_rows else int(bool(section))
    size = Size(left.users, left.items, left.interactions, pieces, "counted in its files", left.items)
    if not pieces:
        return text(), seen
    written, lines = _estimate(name, text, size, beit3)
    return written, [*seen, *lines]


def _estimate(name: str, text: Callable[[bool], str], size: Size, beit3: bool) -> Found:
    from pipeline.features.registry import feature_sets
    from pipeline.ops import device  # loads torch
    from pipeline.plan import estimate
    from pipeline.plan.command import duration

    def estimated(given: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PARAMS.name
            path.write_text(given, encoding="utf-8")
            params = read(path, name)
        plan = estimate.Plan(params, size, feature_sets(params, name), device.gemm_rate("float32"))
        return {stage: of.seconds for stage, of in estimate.stages(plan, {}).items()}

    seconds, lines = estimated(text(True)), []
    fits = beit3 or seconds["pretrain"] <= AFFORDABLE or device.pick().type == "cuda"
    if not fits:
        long = duration(seconds["pretrain"])
        lines.append(f"BEiT3 is left out, as its pre-training would take about {long} here; --beit3 puts it in")
        seconds = estimated(text(False))
    total = f"dvc repro will take about {duration(sum(seconds.values()))} on this machine"
    slow = ", ".join(f"{stage} {duration(s)}" for stage, s in seconds.items() if s >= LONG)
    return text(fits), [*lines, f"{total}: {slow}" if slow else total]


def _flags(columns: Iterable[str], files: list[Path]) -> dict[str, str]:
    """Return role -> column as given; UserError for unknown ones, blank files, and names that read as addresses."""
    flags = {}
    for given in columns:
        role, equals, column = given.partition("=")
        if not (equals and column):
            raise UserError(f"--column {given}: write role=name, such as item=sku")
        known([role], dict.fromkeys([*OF_INTERACTIONS, *OF_ITEMS]), "--column")
        flags[role] = column
    names = [column for path in files for column in inspect.columns(path, flags.values())]
    for role, column in flags.items():
        known([column], names, f"--column {role}")
    stored = download.names({str(n): [str(path)] for n, path in enumerate(files)})
    for n, path in enumerate(files):
        if path.suffix != ".parquet":
            refuse_blank(path)
        if local(str(path)) != path or stored[str(n)] != path.name:  # which stages take for an address
            raise UserError(f"{path}: reads as an address, not a path; rename it (letters, digits, . _ -)")
    return flags
