"""Inspect a user's files: the role of each column, and where images are."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from os.path import isfile
from pathlib import Path
from typing import Any

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.sql import identifier_of
from alignrec.pipeline.io.text import column_names
from alignrec.pipeline.sources.base import Product, as_text, is_path
from alignrec.pipeline.sources.feature_files import NAMES, plain_name
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource

KNOWN = {
    "user": ("userid", "reviewerid", "customer", "customerid", "visitorid", "uid"),
    "item": tuple(plain_name(name) for name in NAMES if name != "id"),  # `id` in interactions identifies the row
    "rating": ("stars", "overall", "score"),
    "timestamp": ("time", "date", "datetime", "unixreviewtime", "ts"),
    "split": ("xlabel",),
    "title": ("name",),
    "brand": ("manufacturer",),
    "categories": ("category", "genres", "genre"),
    "description": ("plot", "overview", "text", "summary"),
    "image_urls": ("image", "imageurl", "imurl", "images", "poster", "posterurl", "thumbnail"),
}  # role -> column names in common datasets, normalised by `plain_name`
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
SAMPLE = 10_000  # rows inspected
LANGUAGES = {"CJK": "Chinese", "HANGUL": "Korean", "MYANMAR": "Burmese"}  # script -> language, if named differently
KANA = ("HIRAGANA", "KATAKANA")


@dataclass(frozen=True)
class Table:
    """A file, its columns, and their roles."""

    path: Path
    columns: list[str]
    roles: dict[str, str]  # role -> column

    def renamed(self) -> dict[str, str]:
        return {role: column for role, column in self.roles.items() if role != column}

    def described(self) -> list[str]:
        unused = [c for c in self.columns if c not in self.roles.values()]
        rest = f"; not used: {', '.join(unused)}" if unused else ""
        first: dict[str, Any] = next((record for record, _ in _read_records(self)), {})
        examples = {column: as_text(first.get(column))[:40] for column in self.columns}
        return [
            f"{self.path}: {len(self.columns)} columns{rest}",
            *(f"  {role:<12}{column}, such as {examples[column]!r}" for role, column in self.roles.items()),
        ]


def inspect_table(path: Path, flags: Mapping[str, str], item: str | None = None) -> Table:
    """Assign roles to the columns of interactions, or of items if `item` names the column of items in interactions.

    `flags` (role -> column) override guesses.
    """
    names, required = column_names(path, flags.values()), ["user", "item"]
    if item is not None:  # `id` in an item file identifies the item
        own, required = next((name for name in (item, "item", "id") if name in names), None), ["item"]
        flags = {**({"item": own} if own else {}), **flags}
    chosen: dict[str, str] = {}
    for role in OF_INTERACTIONS if item is None else OF_ITEMS:
        if role in flags and flags[role] in names:
            chosen[role] = flags[role]
        elif role in names:
            chosen[role] = role
        elif fitting := [c for c in names if plain_name(c) in (role.replace("_", ""), *KNOWN[role])]:
            if len(fitting) > 1:
                which = " or ".join(fitting)
                raise UserError(f"{path}: the {role} may be {which}; use --column {role}={fitting[0]}")
            chosen[role] = fitting[0]
        elif role in required:
            raise UserError(f"{path}: no column for the {role} in {', '.join(names)}; use --column {role}=<name>")
    return Table(path, names, chosen)


def _read_records(seen: Table) -> Iterator[tuple[dict[str, Any], Product]]:
    roles = {role: column for role, column in seen.roles.items() if role in OF_ITEMS}
    source = {"kind": "tabular", "interactions": str(seen.path), "item_columns": roles}
    reader = Tabular(TabularSource.model_validate(source))
    for line in islice(reader.lines(seen.path), SAMPLE):
        with suppress(ValueError):  # the stage counts unreadable lines
            record = reader.parse(line)
            yield record, reader.product(record)


def name_language(seen: Table) -> str:
    """Return the script of the texts, or its language; empty unless over a quarter of the letters are not Latin."""
    texts = (f"{product.title}{product.description[:SAMPLE]}" for _, product in _read_records(seen))
    letters = Counter(letter for text in texts for letter in text if letter.isalpha())
    scripts = Counter[str]()
    for letter, n in letters.items():
        scripts[unicodedata.name(letter, "?").split()[0]] += n
    others = scripts.total() - scripts.pop("LATIN", 0)
    if 4 * others <= letters.total():
        return ""
    (first, _), *_ = scripts.most_common()
    return "Japanese" if 10 * sum(scripts[kana] for kana in KANA) > others else LANGUAGES.get(first, first.capitalize())


def inspect_images(given: str, seen: Table) -> dict[str, str | list[str]]:
    if "{" in given:
        if re.search(r"\{(?!(item|asin)\})", given):
            raise UserError(f"--images {given}: unknown field; write {{item}} for the identifier")
        path = Path(given)
        if path.parent == Path() or not (start := seen.path.parent / path.parent).is_dir():
            return {"pattern": given}
        return {"folder": str(start), "pattern": path.name}
    folder = Path(given)
    if not folder.exists():
        raise UserError(f"--images {given}: no such folder; give a folder, a zip archive, or a pattern with {{item}}")
    if not folder.is_dir():
        return {"folder": given}
    # relative paths start where most items have a file; without a column of paths, files are named by identifiers
    if "image_urls" in seen.roles:
        paths = [list(filter(is_path, product.image_urls)) for _, product in _read_records(seen)]
        starts = [folder, folder.parent, seen.path.parent]
        start = max(starts, key=lambda start: sum(any(isfile(start / path) for path in own) for own in paths))
        # paths may begin with the folder's own name, so that users need not pass its parent, which has other files
        named = all(path.startswith(f"{folder.name}/") for own in paths for path in own)
        return {"folder": given if start == folder.parent and named else str(start)}
    names = set(filter(None, (identifier_of(record.get(seen.roles["item"])) for record, _ in _read_records(seen))))
    files = (folder / f"{name}{ending}" for name in names if Path(name).name == name for ending in IMAGES)
    endings = Counter(path.suffix for path in files if isfile(path))
    patterns = [f"{{item}}{ending}" for ending, _ in endings.most_common()]
    return {"folder": given} | ({"pattern": patterns} if patterns else {})
