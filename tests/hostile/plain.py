"""The pipeline's results once more, in pandas and NumPy, for tables that fit on a page: see `differential`.

Rules come from docs/method.md, docs/own-data.md, docs/ingestion.md and docs/encoders.md. What these leave open is taken
from the code: the names under "not in docs/". I items, F columns, K cutoff.
"""

import gzip
import html
import io
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ratings import name_key, reference, reference_split, row_keys

from alignrec.schemas import TEST, TRAIN, VALID

MIN_TEXTS = 2
"""texts that hold a term; not in docs/"""
FLOOR = 1e-3
"""of the mean variance, added to each; not in docs/"""
CHOICES = [*itertools.product((0.5, 0.3), (0.6, 0.3, 1.0), (True, False))]
"""power, weight of images, whether PCA joins all: what validation chooses from; not in docs/"""
TIE = 1e-6
"""mean cosines this close are equal; not in docs/"""
LEFT_OUT = -1
"""split of a rating that its protocol leaves out"""
JOINERS = "\u200c\u200d"
"""of emoji and of Persian, which are no control characters; not in docs/"""
UNSPACED = ("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER", "THAI CHARACTER", "LAO ", "KHMER ", "MYANMAR ")
"""beginnings of the names of characters of scripts without spaces"""


class Refused(Exception):
    """The settings do not suit the data, so the pipeline has to say so."""


# --- files


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV, TSV, JSON lines or Parquet file; absent and empty values are None."""
    if path.suffix == ".parquet":
        rows = pd.read_parquet(path).astype(object).to_dict("records")
        return [{str(name): _plain_value(value) for name, value in row.items()} for row in rows]

    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    text = data.decode("utf-8-sig")
    if ".jsonl" in path.suffixes:
        return [json.loads(line) for line in text.split("\n") if line.strip()]

    delimiter = "\t"
    if ".csv" in path.suffixes:
        header = text.splitlines()[0]
        delimiter = next(mark for mark in ",\t;|" if mark in header)
    frame = pd.read_csv(io.StringIO(text, newline=""), sep=delimiter, dtype=str, keep_default_na=False)
    return [{name: value or None for name, value in row.items()} for row in frame.to_dict("records")]


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or pd.isna(value) else value


def read_interactions(path: Path, columns: dict[str, str], clock: str | None) -> pd.DataFrame:
    """Return user, item, and rating, timestamp (s) and split if the file has them."""
    rows = pd.DataFrame(read_records(path), dtype=object)
    rows = rows.where(rows.notna(), None)  # a key that a line lacks
    table = pd.DataFrame({role: rows[columns.get(role, role)].map(_identifier) for role in ("user", "item")})
    if columns["rating"] in rows:
        table["rating"] = rows[columns["rating"]].map(_rating).astype("float32")
    if columns["timestamp"] in rows and clock != "none":
        read = _position if clock == "order" else _seconds
        table["timestamp"] = rows[columns["timestamp"]].map(read).astype("Int64")
    if columns["split"] in rows:
        table["split"] = rows[columns["split"]].map(lambda part: ("train", "valid", "test").index(part))
    # a column without a value is as good as absent
    return table.drop(columns=[name for name in table if not table[name].notna().any()])


def _identifier(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None


def _rating(value: Any) -> float | None:
    if value is None or not str(value).strip():
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _position(value: Any) -> int | None:
    return None if value is None else int(str(value))


def _seconds(value: Any) -> int | None:
    """Return Unix seconds of a number in any unit, or of a date."""
    if value is None:
        return None
    text = str(value).strip()
    if not text:
        return None
    if not text.isdigit():
        moment = pd.Timestamp(text)
        moment = moment.tz_localize("UTC") if moment.tz is None else moment
        return int(moment.timestamp() // 1)
    if len(text) == 8:
        return int(pd.Timestamp(f"{text[:4]}-{text[4:6]}-{text[6:]}", tz="UTC").timestamp())
    number = int(text)
    while number > 100_000_000_000:
        number //= 1000
    return number


# --- interactions: k-core, numbers, splits


class Interactions(NamedTuple):
    rows: pd.DataFrame  # user, item, rating, timestamp, split, user_id, item_id; absent values are NA
    users: list[str]
    items: list[str]


def divide(table: pd.DataFrame, settings: dict[str, Any], seed: int) -> Interactions:
    """Return the interactions after filter and split, of the first draw where a protocol has several."""
    complete = table.dropna()
    if 2 * len(complete) < len(table):
        raise Refused("most rows lack a value")
    if settings["min_rating"] is not None:
        if "rating" not in table:
            raise Refused("min_rating without ratings")
        complete = complete[complete["rating"] >= settings["min_rating"]]
    if not len(complete):
        raise Refused("no rating is left")

    protocol = settings["protocol"]
    rows = complete
    timed = "timestamp" in rows
    if "split" not in table:
        # times that are all equal are as good as none, for finding duplicates
        stamped = rows if timed else rows.assign(timestamp=0)
        rows = reference(stamped, settings["user_core"], settings["item_core"])
    if not timed:
        rows = rows.assign(timestamp=pd.NA)
    if "rating" not in rows:
        rows = rows.assign(rating=np.float32("nan"))
    rows = rows.reset_index(drop=True)

    if "split" not in table:
        rows["split"] = _split(rows, protocol, seed, timed)
    if protocol == "cold-items":
        rows["split"] = _draw_cold(rows, settings["cold_share"], seed)
    elif protocol == "sparse":
        rows["split"] = _thin(rows, settings, seed, timed)

    with_train = set(rows.loc[rows["split"] == TRAIN, "user"])
    rows = rows[rows["user"].isin(with_train)]
    if not len(rows):
        raise Refused("no rating is left")
    return _number(rows)


def _split(rows: pd.DataFrame, protocol: str, seed: int, timed: bool) -> list[int]:
    if not len(rows):
        raise Refused("no rating is left")
    if protocol == "cold-items":
        return [TRAIN] * len(rows)
    if protocol == "sparse":
        protocol = "user-time" if timed else "mmrec"
    if protocol != "mmrec" and not timed:
        raise Refused("no times")
    return reference_split(rows, protocol, seed)


def _draw_cold(rows: pd.DataFrame, share: float, seed: int) -> list[int]:
    """Split by item: a share of them is cold, half of these valid's, half test's."""
    items = sorted(set(rows["item"]), key=lambda item: (name_key(item, seed), item))
    cold = round(share * len(items))
    if cold < 2:
        raise Refused("too few cold items")
    part_of = dict.fromkeys(items[: cold // 2], VALID) | dict.fromkeys(items[cold // 2 : cold], TEST)
    return [part_of.get(item, TRAIN) for item in rows["item"]]


def _thin(rows: pd.DataFrame, settings: dict[str, Any], seed: int, timed: bool) -> list[int]:
    """Leave out train rows of users with too many; their split is LEFT_OUT."""
    ordered = rows.assign(key=row_keys(rows, seed), pos=range(len(rows)))
    by, latest_first = ["key", "pos"], False
    if settings["draws"] == 1 and timed:
        by, latest_first = ["timestamp", "pos"], True
    ordered = ordered.sort_values(by, ascending=not latest_first)
    place = ordered.groupby(["user", "split"]).cumcount().sort_index()
    left_out = (rows["split"] == TRAIN) & (place >= settings["most_train"])
    return rows["split"].mask(left_out, LEFT_OUT).tolist()


def _number(rows: pd.DataFrame) -> Interactions:
    users = list(dict.fromkeys(rows["user"]))
    items = list(dict.fromkeys(rows["item"]))
    user_id, item_id = ({name: n for n, name in enumerate(names)} for names in (users, items))
    rows = rows.assign(user_id=rows["user"].map(user_id), item_id=rows["item"].map(item_id))
    return Interactions(rows[rows["split"] != LEFT_OUT], users, items)


# --- texts


def clean(text: str) -> str:
    """Resolve entities, remove markup and control characters, join white space; NFC."""
    for _ in range(3):
        text = re.sub(r"</?[A-Za-z][^<>]*>", " ", html.unescape(text))
    visible = "".join(" " if _is_control(character) else character for character in text)
    return " ".join(unicodedata.normalize("NFC", visible).split())


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and character not in JOINERS


class Product(NamedTuple):
    title: str = ""
    brand: str = ""
    categories: Sequence[str] = ()
    description: str = ""
    image_urls: Sequence[str] = ()


def read_products(path: Path, columns: dict[str, str], items: Sequence[str]) -> list[Product | None]:
    """Return the merged lines of each item; None for an item without any."""
    merged: dict[str, Product] = {}
    for record in read_records(path):
        name = _identifier(record.get(columns.get("item", "item")))
        line = {role: record.get(columns.get(role, role)) for role in Product._fields}
        texts = {role: clean(str(line[role] or "")) for role in ("title", "brand", "description")}
        categories = list(filter(None, map(clean, _values(line["categories"]))))
        product = Product(**texts, categories=categories, image_urls=_values(line["image_urls"]))
        if name in merged:
            first = merged[name]
            urls = [*dict.fromkeys([*first.image_urls, *product.image_urls])]
            product = Product(*(a or b for a, b in zip(first, product, strict=True)))._replace(image_urls=urls)
        merged[str(name)] = product
    return [merged.get(item) for item in items]


def _values(value: Any) -> list[str]:
    if isinstance(value, (int, float)):
        value = str(value)
    if isinstance(value, str):
        value = value.split("|")
    return [part.strip() for part in value or () if part.strip()]


def compose(product: Product | None, fields: Sequence[str]) -> str:
    """Return `title. brand. category > category. description.` without empty parts."""
    sentences = []
    for field in fields if product else ():
        text = getattr(product, field)
        if field == "categories":
            text = " > ".join(name for name, _ in itertools.groupby(text))
        if text:
            sentences.append(text if text[-1] in ".!?" else f"{text}.")
    return " ".join(sentences)


# --- features


def terms(text: str) -> list[str]:
    """Return words of two letters and more, and pairs of characters of scripts without spaces."""
    found = []
    kinds = itertools.groupby(text.lower(), _script)
    for kind, characters in kinds:
        run = "".join(characters)
        if kind == "unspaced":
            found += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        elif kind == "word" and len(run) > 1:
            found.append(run)
    return found


def _script(character: str) -> str:
    if unicodedata.name(character, "").startswith(UNSPACED):
        return "unspaced"
    return "word" if re.match(r"\w", character) else ""


def tfidf_cosines(texts: Sequence[str], width: int) -> np.ndarray | None:
    """Return the dot products of all items' vectors, [I, I]; None if the width cuts through equal singular values."""
    counts = [Counter(terms(text)) for text in texts]
    frequency = Counter(term for count in counts for term in count)
    known = sorted(term for term, n in frequency.items() if n >= MIN_TEXTS)
    if not known:
        raise Refused("no word is in two texts")
    written = sum(bool(text.strip()) for text in texts)
    weights = np.zeros((len(texts), len(known)))
    for row, count in enumerate(counts):
        for column, term in enumerate(known):
            if count[term]:
                idf = np.log((1 + written) / (1 + frequency[term])) + 1
                weights[row, column] = (1 + np.log(count[term])) * idf
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-300)

    left, singular, _ = np.linalg.svd(weights, full_matrices=False)
    if _cuts_equal(singular, width):
        return None
    vectors = (left * singular)[:, :width]
    return vectors @ vectors.T


def _cuts_equal(descending: np.ndarray, width: int) -> bool:
    if width >= len(descending) or descending[width - 1] < 1e-5 * descending[0]:
        return False
    return bool(descending[width - 1] - descending[width] < 1e-4 * descending[0])


class Undecided(Exception):
    """Equal variances meet the width, so that any of several results is right."""


def pca(x: np.ndarray, width: int, power: float) -> np.ndarray:
    """Return principal components of the rows that are not zero, divided by sd^power; other rows stay zero."""
    filled = x.any(axis=1)
    centred = x[filled] - x[filled].mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2 / max(1, filled.sum())
    scale = (x[filled].mean(axis=0) ** 2).sum() + variance.sum()
    if _cuts_equal(variance, width):
        raise Undecided

    kept = variance > np.finfo(np.float32).eps ** 2 * scale
    kept[width:] = False
    if ((variance > 1e-16 * scale) & (variance < 1e-11 * scale))[:width].any():
        raise Undecided  # rounding of single precision, or a direction of its own
    out = np.zeros((len(x), max(1, kept.sum())))
    if kept.any():
        spread = variance[kept] + FLOOR * variance[kept].mean()
        out[filled] = left[:, kept] * singular[kept] / np.sqrt(spread) ** power
    return out


def units(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def join(parts: Sequence[np.ndarray], of_images: Sequence[bool], width: int, choice: tuple[float, float, bool]) -> Any:
    """Return the vectors of kind `linear`, up to a rotation."""
    power, image, joined = choice
    blocks = []
    for x, is_image in zip(parts, of_images, strict=True):
        reduced = pca(x, width, power)
        lengths = np.linalg.norm(reduced[x.any(axis=1)], axis=1)
        if lengths.min() < 1e-4 * lengths.max():
            raise Undecided  # only rounding has a direction there
        blocks.append(units(reduced) * (image if is_image else 1.0))
    vectors = np.hstack(blocks)
    return pca(vectors, width, 0) if joined else vectors


# --- probes


def expected_hits(scores: np.ndarray, target: int, left_out: Sequence[int], k: int, slack: float = TIE) -> float:
    """Return the probability that the target is among the K best; candidates of equal score come in random order."""
    candidates = np.setdiff1d(np.arange(len(scores)), left_out)
    better = (scores[candidates] > scores[target] + slack).sum()
    tied = (scores[candidates] >= scores[target] - slack).sum() - better
    return float(np.clip((k - better) / tied, 0, 1))


Question = tuple[int, list[int], int]
"""whose it is, members, target"""


def recall_questions(rows: pd.DataFrame, part: int) -> list[Question]:
    """Ask for each target of a part that is not in the user's train."""
    questions = []
    for user, own in rows.groupby("user_id"):
        train = sorted(set(own.loc[own["split"] == TRAIN, "item_id"]))
        targets = sorted(set(own.loc[own["split"] == part, "item_id"]) - set(train))
        if train:
            questions += [(user, train, target) for target in targets]
    return questions


def hit_rate(vectors: np.ndarray, questions: Sequence[Question], k: int) -> float:
    """Return the mean over groups of the mean over their questions."""
    directions = units(vectors)
    hits = []
    for group, members, target in questions:
        scores = directions @ directions[members].sum(axis=0)
        hits.append((group, expected_hits(scores, target, members, k, TIE * len(members))))
    frame = pd.DataFrame(hits, columns=["group", "hit"])
    return float(frame.groupby("group")["hit"].mean().mean())
