"""Inspects a user's files: the role of each column, and where images are."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.sources.delimited import column_names, delimiter
from pipeline.sources.feature_files import NAMES, plain
from pipeline.sources.product import Product, as_text, is_path
from pipeline.sources.sql import named
from pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource

KNOWN = {
    "user": ("userid", "reviewerid", "customer", "customerid", "visitorid", "uid"),
    "item": tuple(plain(name) for name in NAMES if name != "id"),  # which in interactions would be the row's
    "rating": ("stars", "overall", "score"),
    "timestamp": ("time", "date", "datetime", "unixreviewtime", "ts"),
    "split": ("xlabel",),
    "title": ("name",),
    "brand": ("manufacturer",),
    "categories": ("category", "genres", "genre"),
    "description": ("plot", "overview", "text", "summary"),
    "image_urls": ("image", "imageurl", "imurl", "images", "poster", "posterurl", "thumbnail"),
}  # role -> names of its column in common datasets, as `plain` gives them
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
SAMPLE = 10_000  # rows


@dataclass(frozen=True)
class Table:
    """The columns of one file."""

    path: Path
    columns: list[str]
    roles: dict[str, str]  # role -> column

    def renamed(self) -> dict[str, str]:
        return {role: column for role, column in self.roles.items() if role != column}

    def described(self) -> list[str]:
        unused = [c for c in self.columns if c not in self.roles.values()]
        rest = f"; not used: {', '.join(unused)}" if unused else ""
        first: dict[str, Any] = next((record for record, _ in _records(self)), {})
        examples = {column: as_text(first.get(column))[:40] for column in self.columns}
        return [
            f"{self.path}: {_format(self.path)}, {len(self.columns)} columns{rest}",
            *(f"  {role:<12}{column}, such as {examples[column]!r}" for role, column in self.roles.items()),
        ]


def columns(path: Path, wanted: Iterable[str] = ()) -> list[str]:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: a {'folder' if path.is_dir() else 'pipe or device'}; give a file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return column_names(path, wanted)


def interactions(path: Path, flags: Mapping[str, str]) -> Table:
    """Return the interactions file with its columns; `flags` has role -> column where a name does not say its role.

    UserError: absent or empty, or no column or several fit a role.
    """
    return _look(path, OF_INTERACTIONS, flags, required=("user", "item"))


def items(path: Path, flags: Mapping[str, str], item: str) -> Table:
    """Return the item file, see `interactions`; `item` is the name of the item's column in the interactions."""
    names = columns(path)
    own = item if item in names else "item" if "item" in names else "id"  # which in interactions would be the row's
    known = {"item": own} if own in names else {}
    return _look(path, OF_ITEMS, {**known, **flags}, required=("item",))


def _records(seen: Table) -> Iterator[tuple[dict[str, Any], Product]]:
    roles = {role: column for role, column in seen.roles.items() if role in OF_ITEMS}
    source = {"kind": "tabular", "interactions": str(seen.path), "item_columns": roles}
    reader = Tabular(TabularSource.model_validate(source))
    for line in islice(reader.lines(seen.path), SAMPLE):
        with suppress(ValueError):  # the stage counts unreadable lines
            record = reader.parse(line)
            yield record, reader.product(record)


def images(given: str, seen: Table) -> tuple[dict[str, str | list[str]], list[str]]:
    """Return section `images` for a folder, an archive, or a pattern, and lines to print.

    Without a column of images in `seen`, files are found by identifiers.
    """
    if "{" in given:
        if fields := set(re.findall(r"\{(.*?)\}", given)) - {"item", "asin"}:
            raise UserError(f"--images {given}: unknown field {{{min(fields)}}}; write {{item}} for the identifier")
        return {"pattern": given}, []
    folder = Path(given)
    if not (folder.is_dir() or folder.is_file()):
        raise UserError(f"--images {given}: no such folder; give a folder, an archive, or a pattern with {{item}}")
    if not folder.is_dir():
        return {"folder": given}, []
    if "image_urls" in seen.roles:
        return _find_start(folder, seen)
    names = set(filter(None, (named(record.get(seen.roles["item"])) for record, _ in _records(seen))))
    files = (folder / f"{name}{ending}" for name in names if Path(name).name == name for ending in IMAGES)
    endings = Counter(path.suffix for path in files if path.is_file())
    patterns = [f"{{item}}{ending}" for ending, _ in endings.most_common()]
    return {"folder": given} | ({"pattern": patterns[0] if len(patterns) == 1 else patterns} if patterns else {}), []


def _find_start(folder: Path, seen: Table) -> tuple[dict[str, str | list[str]], list[str]]:
    """Return the section with the folder below which most items have a file."""
    urls = ([url for url in product.image_urls if url and is_path(url)] for _, product in _records(seen))
    paths = list(filter(None, urls))
    beside = seen.path.parent  # where paths start by default
    starts = [folder, beside, folder.parent]
    counts = [sum(any(_below(start, path) for path in of_item) for of_item in paths) for start in starts]
    start = starts[counts.index(max(counts))]
    line = f"images: {max(counts):,} of {len(paths):,} items that name a file have it below {start}"
    if not max(counts) and paths:
        line += f", such as {paths[0][0]!r}; correct the paths, or images.folder; links may not leave the folder"
    return ({} if start == beside != folder else {"folder": str(start)}), [line] if paths else []


def _below(folder: Path, path: str) -> bool:
    try:
        actual, root = (folder / path).resolve(), folder.resolve()
        return actual.is_relative_to(root) and actual.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _look(path: Path, roles: Iterable[str], flags: Mapping[str, str], required: tuple[str, ...]) -> Table:
    names = columns(path, flags.values())
    chosen: dict[str, str] = {}
    for role in roles:
        if role in flags and flags[role] in names:
            chosen[role] = flags[role]
        elif column := _find_column(path, role, names):
            chosen[role] = column
        elif role in required:
            raise UserError(f"{path}: no column for the {role} in {', '.join(names)}; use --column {role}=<name>")
    return Table(path, names, chosen)


def _find_column(path: Path, role: str, names: list[str]) -> str | None:
    if role in names:
        return role
    own = role.replace("_", "")
    fitting = [c for c in names if plain(c) in (own, *KNOWN[role])]
    if len(fitting) > 1:
        raise UserError(f"{path}: the {role} may be {' or '.join(fitting)}; use --column {role}={fitting[0]}")
    return fitting[0] if fitting else None


def _format(path: Path) -> str:
    separator = None if path.suffix == ".parquet" else delimiter(path)
    kind = f"text with {separator!r} between values" if separator else "JSON lines"
    return "Parquet" if path.suffix == ".parquet" else kind + ", gzipped" * (path.suffix == ".gz")
