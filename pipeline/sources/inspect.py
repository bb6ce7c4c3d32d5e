"""Inspect a user's files: the role of each column, and where images are."""

import itertools
import posixpath
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from os.path import isfile
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import column_names, refuse_repeated
from alignrec.pipeline.io.sql import identifier_of
from alignrec.pipeline.sources.base import Product, as_text, is_path, spellings
from alignrec.pipeline.sources.tabular import OF_INTERACTIONS, OF_ITEMS, Tabular, TabularSource
from alignrec.pipeline.vectors.identifiers import IDENTIFIER_COLUMNS, plain_name

KNOWN = {
    "user": ("userid", "reviewerid", "customer", "customerid", "visitorid", "uid"),
    # `id` in interactions identifies the row
    "item": tuple(plain_name(name) for name in IDENTIFIER_COLUMNS if name != "id"),
    "rating": ("stars", "overall", "score"),
    "timestamp": ("time", "date", "datetime", "unixreviewtime", "ts"),
    "split": ("xlabel",),
    "title": ("name",),
    "brand": ("manufacturer",),
    "categories": ("category", "genres", "genre"),
    "description": ("plot", "overview", "text", "summary"),
    "image_urls": ("image", "imageurl", "imurl", "images", "poster", "posterurl", "thumbnail"),
}  # role -> column names in common datasets, normalised by `plain_name`
NAMES_ABROAD = {
    "user": "Benutzer BenutzerID Nutzer NutzerID Kunde KundenID Kundennr Kundennummer "
    "utilisateur IDutilisateur client IDclient usuario IDusuario cliente IDcliente "
    "用户 用户ID 用户编号 用戶 顾客 客户 客户ID ユーザー ユーザーID ユーザ ユーザID 顧客 顧客ID "
    "会員ID",
    "item": "Artikel ArtikelID Artikelnr Artikelnummer Produkt ProduktID Produktnr Produktnummer "
    "article IDarticle produit IDproduit référence artículo IDartículo producto IDproducto "
    "商品 商品ID 商品编号 物品 物品ID 产品 产品ID アイテム アイテムID 商品コード 商品番号 製品ID "
    "品番",
    "rating": "Bewertung Wertung Sterne Note évaluation étoiles puntuación calificación valoración "
    "estrellas nota 评分 评级 打分 星级 評分 評価 評点 スコア",
    "timestamp": "Zeit Zeitstempel Zeitpunkt Datum horodatage fecha "
    "时间 时间戳 日期 時間 日時 日付 時刻 タイムスタンプ",
    "title": "Titel Bezeichnung Produktname Artikelname titre nom libellé título nombre "
    "标题 名称 商品名称 产品名称 標題 名稱 タイトル 名前 商品名 題名",
    "brand": "Marke Hersteller marque fabricant marca fabricante 品牌 制造商 厂商 ブランド メーカー",
    "categories": "Kategorie Kategorien Warengruppe catégorie catégories rayon "
    "categoría categorías género géneros 类别 分类 类目 品类 類別 分類 カテゴリ カテゴリー "
    "ジャンル",
    "description": "Beschreibung Produktbeschreibung descriptif résumé descripción resumen "
    "描述 商品描述 简介 介绍 説明 商品説明 説明文 概要 あらすじ",
    "image_urls": "Bild Bilder BildURL Foto Fotos photo photos imagen imágenes URLimagen "
    "图片 图片链接 图片地址 图像 主图 圖片 画像 画像URL 写真",
}  # role -> column names in German, French, Spanish, Chinese and Japanese
TRANSLATED = {role: tuple(map(plain_name, names.split())) for role, names in NAMES_ABROAD.items()}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_NUMBERS = ("", "_1", "_2", "_3")  # of an item's image files, as in a.jpg or a_1.jpg
ROWS_INSPECTED = 10_000
CHARACTERS_INSPECTED = 10_000  # per description
MAX_EXAMPLE_CHARACTERS = 40  # of a value in a message
LANGUAGES = {
    "CJK": "Chinese",
    "HANGUL": "Korean",
    "MYANMAR": "Burmese",
}  # script -> language, if named differently
KANA = ("HIRAGANA", "KATAKANA")


@dataclass(frozen=True)
class InspectedTable:
    """A file, its columns, and their roles."""

    path: Path
    columns: list[str]
    roles: dict[str, str]  # role -> column

    def renamed(self) -> dict[str, str]:
        return {role: column for role, column in self.roles.items() if role != column}

    def described(self) -> list[str]:
        """Describe the columns in lines: first the file's, then one per role."""
        unused = [column for column in self.columns if column not in self.roles.values()]
        suffix = f"; not used: {', '.join(unused)}" if unused else ""
        lines = [f"{self.path}: {len(self.columns)} columns{suffix}"]

        first_record: dict[str, Any] = next((record for record, _ in _read_records(self)), {})
        for role, column in self.roles.items():
            example = as_text(first_record.get(column))[:MAX_EXAMPLE_CHARACTERS]
            lines.append(f"  {role:<12}{column}, such as {example!r}")
        return lines


def inspect_table(path: Path, flags: Mapping[str, str], item: str | None = None) -> InspectedTable:
    """Assign roles to the columns of interactions, or of items if `item` is given.

    `item` is the column of items in the interactions; `flags` (role -> column) override guesses.
    """
    names = column_names(path, flags.values())
    required = ["user", "item"]
    if item is not None:  # `id` in an item file identifies the item
        required = ["item"]
        identifier = next((name for name in (item, "item", "id") if name in names), None)
        if identifier is not None and "item" not in flags:
            flags = {**flags, "item": identifier}
    chosen: dict[str, str] = {}
    for role in OF_INTERACTIONS if item is None else OF_ITEMS:
        if role in flags and flags[role] in names:
            chosen[role] = flags[role]
        elif role in names:
            chosen[role] = role
        elif column := guess_column(path, role, names):
            chosen[role] = column
        elif role in required:
            present = ", ".join(names)
            raise UserError(
                f"{path}: no column for the {role} in {present}; use --column {role}=<name>"
            )
    refuse_repeated(path, names, chosen.values())
    return InspectedTable(path, names, chosen)


def guess_column(path: Path, role: str, names: Sequence[str]) -> str | None:
    """Return the column that is known by a role's English names, otherwise by translated ones.

    Raises UserError if several are.
    """
    english = (role.replace("_", ""), *KNOWN[role])
    for known_names in (english, TRANSLATED.get(role, ())):
        fitting = list(dict.fromkeys(name for name in names if plain_name(name) in known_names))
        if len(fitting) > 1:
            which = " or ".join(fitting)
            raise UserError(f"{path}: the {role} may be {which}; use --column {role}={fitting[0]}")
        if fitting:
            return fitting[0]

    return None


def _read_records(table: InspectedTable) -> Iterator[tuple[dict[str, Any], Product]]:
    roles = {role: column for role, column in table.roles.items() if role in OF_ITEMS}
    source = {"kind": "tabular", "interactions": str(table.path), "item_columns": roles}
    reader = Tabular(TabularSource.model_validate(source))
    for record in reader.first_records(table.path, ROWS_INSPECTED):
        yield record, reader.product(record)


def list_modalities(table: InspectedTable) -> list[str]:
    """Return which of text and image any of the inspected rows has."""
    has_text = False
    has_image = False
    for _, product in _read_records(table):
        has_text |= any((product.title, product.brand, product.categories, product.description))
        has_image |= bool(product.image_urls)

    modalities = []
    if has_text:
        modalities.append("text")
    if has_image:
        modalities.append("image")
    return modalities


def name_language(table: InspectedTable) -> str:
    """Return the script of the texts, or its language.

    Empty unless over a quarter of the letters are not Latin.
    """
    letters = Counter[str]()
    for _, product in _read_records(table):
        letters.update(product.title)
        letters.update(product.description[:CHARACTERS_INSPECTED])

    scripts = Counter[str]()
    for letter, n in letters.items():
        if letter.isalpha():
            scripts[unicodedata.name(letter, "?").split()[0]] += n
    total = scripts.total()
    others = total - scripts.pop("LATIN", 0)
    if 4 * others <= total:
        return ""

    kana = sum(scripts[script] for script in KANA)
    if 10 * kana > others:
        return "Japanese"
    (script, _), *_ = scripts.most_common()
    return LANGUAGES.get(script, script.capitalize())


ImageSection = dict[str, str | list[str]]


class ImageLocation(NamedTuple):
    """Where images are, and how many items have one."""

    section: ImageSection  # section `images` of the parameter file
    pictured: int | None = None  # items with a file; None for addresses, which are not asked
    seen: str = ""  # message for the user


def inspect_images(given: str, table: InspectedTable) -> ImageLocation:
    """Find the images of a table's items: in a folder or zip archive, or by a pattern."""
    if "{" in given:
        return _inspect_pattern(given, table)

    folder = Path(given)
    if not folder.exists():
        raise UserError(
            f"--images {given}: no such folder; "
            "give a folder, a zip archive, or a pattern with {item}"
        )

    if "image_urls" in table.roles:
        return _inspect_paths(folder, table)
    return _inspect_names(folder, table)


def _inspect_pattern(given: str, table: InspectedTable) -> ImageLocation:
    if re.search(r"\{(?!(item|asin)\})", given):
        raise UserError(f"--images {given}: unknown field; write {{item}} for the identifier")
    if not is_path(given):
        return ImageLocation({"pattern": given})

    path = Path(given)
    folder = table.path.parent / path.parent
    section: ImageSection = {"pattern": given}
    if path.parent != Path() and folder.is_dir():
        section = {"folder": str(folder), "pattern": path.name}

    names = _read_names(table)
    pattern = path.name.replace("{asin}", "{item}")
    pictured = sum(isfile(folder / pattern.replace("{item}", name)) for name in names)
    return ImageLocation(section, pictured, _count_line(pictured, len(names), folder, path.name))


def _inspect_paths(folder: Path, table: InspectedTable) -> ImageLocation:
    """Find where the paths in a column start: below the folder, its parent or the item file's."""
    paths_of_items = []
    for _, product in _read_records(table):
        paths_of_items.append(list(filter(is_path, product.image_urls)))

    pictured: dict[Path, int] = {}
    for start in (folder, folder.parent, table.path.parent) if folder.is_dir() else (folder,):
        has = _file_lookup(start)
        pictured[start] = sum(any(map(has, paths)) for paths in paths_of_items)

    start = max(pictured, key=pictured.__getitem__)
    all_paths = list(chain.from_iterable(paths_of_items))
    # paths may begin with the folder's own name, so that users need not pass its parent, which has
    # other files
    is_named = all(path.startswith(f"{folder.name}/") for path in all_paths)
    root = folder if start == folder.parent and is_named else start

    if not all_paths:
        return ImageLocation({"folder": str(root)})
    line = _count_line(pictured[start], len(paths_of_items), folder, all_paths[0])
    return ImageLocation({"folder": str(root)}, pictured[start], line)


def _inspect_names(folder: Path, table: InspectedTable) -> ImageLocation:
    """Find files that are named by the items' identifiers."""
    has = _file_lookup(folder)
    names = _read_names(table)
    endings = Counter[str]()
    numbers = set[str]()
    pictured = 0
    for name in names:
        is_pictured = False
        for number, ending in itertools.product(IMAGE_NUMBERS, IMAGE_ENDINGS):
            stem = f"{name}{number}"
            is_of_other = number and stem in names
            if not is_of_other and has(f"{stem}{ending}"):
                endings[ending] += 1
                numbers.add(number)
                is_pictured = True
        pictured += is_pictured

    section: ImageSection = {"folder": str(folder)}
    if endings:
        stems = [f"{{item}}{number}" for number in IMAGE_NUMBERS if number in numbers]
        pairs = itertools.product(stems, [ending for ending, _ in endings.most_common()])
        section["pattern"] = ["".join(pair) for pair in pairs]
    example = f"{min(names, default='ITEM')}{IMAGE_ENDINGS[0]}"
    return ImageLocation(section, pictured, _count_line(pictured, len(names), folder, example))


def _file_lookup(folder: Path) -> Callable[[str], bool]:
    """Return a function that says whether a path is a file in the folder or zip archive."""
    if folder.is_dir():
        return lambda path: any(isfile(folder / spelling) for spelling in spellings(path))
    if not zipfile.is_zipfile(folder):
        raise UserError(f"--images {folder}: neither a folder nor a zip archive; unpack it")

    with zipfile.ZipFile(folder) as archive:
        members = {posixpath.normpath(name).lstrip("/") for name in archive.namelist()}
    return lambda path: not members.isdisjoint(spellings(posixpath.normpath(path)))


def _read_names(table: InspectedTable) -> set[str]:
    """Return the identifiers of the inspected rows that can be file names."""
    names = set[str]()
    for row, _ in _read_records(table):
        with suppress(ValueError):  # stage `items` counts those that are no identifiers
            name = identifier_of(row.get(table.roles["item"]))
            if name and Path(name).name == name:
                names.add(name)
    return names


def _count_line(pictured: int, items: int, folder: Path, example: str) -> str:
    inspected = f"the first {items:,}" if items >= ROWS_INSPECTED else f"{items:,}"
    if not pictured:
        return f"warning: none of {inspected} items has a picture below {folder}, such as {example}"
    return f"{pictured:,} of {inspected} items have a picture below {folder}"
