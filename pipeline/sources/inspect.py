"""Inspects a user's files: the role of each column, the scale of ratings, where images are."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from pipeline.errors import UserError, one_line
from pipeline.sources.delimited import column_names, delimiter, first
from pipeline.sources.feature_files import NAMES, plain
from pipeline.sources.product import Product, as_text, is_path, is_web
from pipeline.sources.sql import connected, rating, stripped
from pipeline.sources.sql import name as identifier
from pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource, table

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
OFTEN = 5  # least lists with a name for its depths to count
FLAT = 1 / 3  # share of such names at several depths, above which lists have no levels
WORDS = re.compile(r"[^\W\d_]{2,}")
EXPLICIT_FROM = 3  # different ratings; one or two may as well be clicks


@dataclass(frozen=True)
class Table:
    """The columns of one file."""

    path: Path
    columns: list[str]
    roles: dict[str, str]  # role -> column
    worded: tuple[str, ...] = ()  # of an item file: columns of text without a role
    flat: bool = False  # of an item file: whether categories are a list without levels

    def renamed(self) -> dict[str, str]:
        return {role: column for role, column in self.roles.items() if role != column}

    def described(self) -> list[str]:
        unused = [c for c in self.columns if c not in self.roles.values()]
        rest = f"; not used: {', '.join(unused)}" if unused else ""
        lines = [f"{self.path}: {_format(self.path)}, {len(self.columns)} columns{rest}"]
        if self.worded:
            lines.append(f"  words not used: {', '.join(self.worded)}; the key `text` of the source joins them")
        if self.flat:
            lines.append(f"  {self.roles['categories']} is a list without levels, no path: it becomes one level")
        columns = list(dict.fromkeys(self.roles.values()))
        row = _ask(self, f"SELECT {', '.join(f'left(any_value({_text(c)}), 40)' for c in columns)}")
        values = dict(zip(columns, row, strict=True))
        return lines + [f"  {role:<12}{column}, such as {values.get(column)!r}" for role, column in self.roles.items()]


@dataclass(frozen=True)
class Ratings:
    """The scale of ratings, from a sample of rows."""

    distinct: int
    low: float
    high: float
    whole: bool = True  # whether all are whole numbers

    @property
    def explicit(self) -> bool:
        return self.distinct >= EXPLICIT_FROM

    @property
    def threshold(self) -> float:
        value = self.low + 0.75 * (self.high - self.low)
        return float(round(value)) if self.whole else round(2 * value) / 2


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
    same = {"item": item} if item in names and "item" not in flags else {}
    if not same and "id" in names and "item" not in flags and "item" not in names:
        same = {"item": "id"}  # only of the item file: in interactions it would be the row's
    seen = _look(path, OF_ITEMS, {**flags, **same}, required=("item",))
    found = list(_records(seen))
    worded = tuple(c for c in names if c not in seen.roles.values() and _holds_words([r.get(c) for r, _ in found]))
    flat = "categories" in seen.roles and is_flat(product.categories for _, product in found)
    return replace(seen, worded=worded, flat=flat)


def is_flat(lists: Iterable[Sequence[str]]) -> bool:
    """Return whether lists of categories have no levels: in a path from the root, a name has one depth."""
    depths: dict[str, Counter[int]] = {}
    for names in lists:
        for depth, name in enumerate(names if len(names) > 1 else []):
            depths.setdefault(name, Counter())[depth] += 1
    often = [counts for counts in depths.values() if counts.total() >= OFTEN]
    several_depths = sum(len(counts) > 1 for counts in often)
    return bool(often) and several_depths > FLAT * len(often)


def _records(seen: Table) -> Iterator[tuple[dict[str, Any], Product]]:
    roles = {role: column for role, column in seen.roles.items() if role in OF_ITEMS}
    source = {"kind": "tabular", "interactions": str(seen.path), "item_columns": roles}
    reader = Tabular(TabularSource.model_validate(source))
    for line in islice(reader.lines(seen.path), SAMPLE):
        with suppress(ValueError):  # the stage counts unreadable lines
            record = reader.parse(line)
            yield record, reader.product(record)


def _holds_words(values: Sequence[Any]) -> bool:
    texts = [text for value in values if (text := as_text(value).strip()) and not isinstance(value, (int, float))]
    worded = sum(len(WORDS.findall(text)) > 1 and not is_web(text) for text in texts)
    return 2 * worded > len(texts)


def ratings(seen: Table) -> Ratings | None:
    if "rating" not in seen.roles:
        return None
    value = rating(_text(seen.roles["rating"]))
    whole = f"bool_and({value} = round({value}))"
    row = _ask(seen, f"SELECT count(DISTINCT {value}), min({value}), max({value}), {whole}")
    return Ratings(int(row[0]), float(row[1]), float(row[2]), bool(row[3])) if row[0] else None


def images(given: str, seen: Table) -> tuple[dict[str, str | list[str]], list[str]]:
    """Return section `images` for a folder, an archive, or a pattern such as `images/{item}.jpg`, and lines to print.

    Without a column of images in `seen`, files are found by identifiers.
    """
    if "{" in given:
        if fields := set(re.findall(r"\{(.*?)\}", given)) - {"item", "asin"}:
            raise UserError(f"--images {given}: unknown field {{{min(fields)}}}; write {{item}} for the identifier")
        return {"pattern": given}, []
    if not (Path(given).is_dir() or Path(given).is_file()):
        what = "a pipe or device" if Path(given).exists() else "no such folder"
        raise UserError(f"--images {given}: {what}; give a folder, an archive, or a pattern with {{item}}")
    folder = Path(given)
    if not folder.is_dir():
        return {"folder": given}, []
    if "image_urls" in seen.roles:
        return _find_start(folder, seen)
    names = _ask(seen, f"SELECT list(DISTINCT {_text(seen.roles['item'])})")[0] or []
    files = (folder / f"{name}{ending}" for name in names if name and Path(name).name == name for ending in IMAGES)
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
    packed = ", gzipped" if path.suffix == ".gz" else ""
    if path.suffix == ".parquet":
        return "Parquet"
    names = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
    separator = delimiter(path)
    return f"text with a {names[separator]} between values{packed}" if separator else f"JSON lines{packed}"


def _text(column: str) -> str:
    return stripped(f"{identifier(column)}::VARCHAR")


def _ask(seen: Table, select: str) -> tuple[Any, ...]:
    try:
        with connected() as db:
            rows = f"(SELECT * FROM {table(seen.path, seen.columns)} LIMIT {SAMPLE})"
            return tuple(db.execute(f"{select} FROM {rows}").fetchall()[0])
    except duckdb.Error as e:
        if seen.path.suffix == ".parquet" or delimiter(seen.path) is None:
            raise UserError(f"{seen.path}: {one_line(e)}") from None
    with connected() as db:  # what the fast reader refuses is read row by row
        db.register("first", first(seen.path, seen.columns, SAMPLE))
        return tuple(db.execute(f"{select} FROM first").fetchall()[0])
