"""`make differential SEEDS=1000`: random tables and settings through the pipeline, and through `plain`.

`python -m tests.hostile.differential --seed 7` draws files and settings by the seed, runs the stages from `download`
to `combine`, and compares what they write with the same in pandas and NumPy. A difference prints seed and settings.
"""

import argparse
import contextlib
import csv
import gzip
import io as text_io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

sys.path.append(str(Path(__file__).parents[1]))  # what tests share lies there

import pictures

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.features.folder import SET
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.runtime.stage import perform
from alignrec.schemas import TEST, VALID
from alignrec.stages.order import STAGES
from tests.hostile import plain

RUN = ("download", "interactions", "items", "images", "encode", "combine")
TEXTS, PICTURES, JOINED = "words", "descriptors", "linear"
NAMES = (
    *("NA", "null", "None", "007", "7", "1e5", "1.0", "-1", "TRUE", "a,b", 'q"uote', "it's", "semi;colon"),
    *("a|b", "a\tb", "two words", "日本", "🎧", "e\u0301", "é", "İ", "ß", "١٢", "../x", "=1+1", "<b>"),
    *("a&amp;b", "%20", "x" * 300, "{x}"),
)
WORDS = (
    *("red", "green", "small", "large", "wooden", "train", "x", "A1", "naïve", "Straße", "e\u0301tude"),
    *("don't", "2024", "поезд", "красный", "قطار", "خشبي"),
    *("חתול", "기차", "나무", "玩具火车", "木制", "おもちゃ", "カメラ"),
)
NOISE = ("<br/>", "&amp;", "&lt;b&gt;", "<b>bold</b>", "\x07", "\u200b", "\u00a0", "  ", "\n", "&eacute;", "!", "?")


class Case(NamedTuple):
    """Files of a shop, and the parameters to run it with."""

    folder: Path
    params: dict[str, Any]

    @property
    def source(self) -> dict[str, Any]:
        source: dict[str, Any] = self.params["sources"]["shop"]
        return source

    @property
    def columns(self) -> dict[str, str]:
        roles = ("user", "item", "rating", "timestamp", "split")
        return dict(zip(roles, roles, strict=True)) | self.source["columns"]


# --- drawing a case


def draw_case(folder: Path, seed: int) -> Case:
    rng = np.random.default_rng(seed_for("differential", seed))
    params = draw_settings(rng)
    fewest = 90 if params["interactions"]["protocol"] == "cold-items" else 20
    names = draw_names(rng, fewest + int(rng.integers(0, 60)))
    source = params["sources"]["shop"]
    columns = source["columns"]
    ratings = draw_ratings(rng, names, source)
    for role in sorted(columns.keys() - set(ratings)):
        del columns[role]  # a column that is named has to be there
    renamed = {role: columns.get(role, role) for role in ratings}
    source["interactions"] = write_table(rng, folder, "ratings", ratings.rename(columns=renamed))

    items = draw_items(rng, names, folder)
    renamed = {role: columns.get(role, role) for role in items}
    source["items"] = write_table(rng, folder, "items", items.rename(columns=renamed))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True))
    return Case(folder, params)


def draw_names(rng: np.random.Generator, n: int) -> list[str]:
    odd = rng.permutation(NAMES)[: rng.integers(0, min(n, len(NAMES)))].tolist()
    return [*odd, *(f"i{number}" for number in range(n - len(odd)))]


def draw_settings(rng: np.random.Generator) -> dict[str, Any]:
    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    protocols = ("mmrec", "mmrec", "leave-one-out", "user-time", "global-time", "cold-items", "sparse")
    fields = rng.permutation(["title", "brand", "categories", "description"])[: rng.integers(1, 5)].tolist()
    encoders = [TEXTS, PICTURES][: rng.integers(1, 3)]
    columns = one_of({}, {}, {"user": "userId", "item": "Item Id"}, {"user": "USER", "rating": "Überall"})
    interactions = {
        "user_core": int(rng.integers(1, 4)),
        "item_core": int(rng.integers(1, 4)),
        "min_rating": one_of(None, None, None, 2, 3.5),
        "protocol": one_of(*protocols),
        "cold_share": one_of(0.2, 0.5, 0.55, 0.6),
        "most_train": int(rng.integers(1, 6)),
        "draws": int(rng.integers(1, 4)),
        "seed": int(rng.integers(0, 3)),
    }
    return {
        "datasets": ["shop"],
        "sources": {"shop": {"kind": "tabular", "columns": columns}},
        "interactions": interactions,
        "items": {"text": [*dict.fromkeys(["title", *fields])] if rng.random() < 0.8 else fields},
        "images": {"shard_rows": one_of(16384, 16), "size": one_of(256, 24)},
        "encoders": {TEXTS: {"kind": "tfidf", "width": one_of(4, 16, 512)}},
        "encode": {"encoders": encoders, "shard_rows": one_of(16384, 16), "batch_size": one_of(1, 7, 64)},
        "beit3": {"sets": []},
        "combine": {"sets": {JOINED: {"width": one_of(4, 16, 128)}}, "controls": []},
        "semantic_ids": {"features": []},
        "train": {"features": JOINED},
        "benchmark": {"features": [JOINED], "models": ["alignrec"], "ks": [1, 2]},
    }


def draw_ratings(rng: np.random.Generator, names: Sequence[str], source: dict[str, Any]) -> pd.DataFrame:
    """Return interactions as texts, with duplicates, missing values, and times in one unit or several."""
    users = draw_names(rng, int(rng.integers(15, 60)))
    n = int(rng.integers(5, 14)) * len(users)
    popularity = rng.pareto(1.5, len(names)) + 0.3
    table = pd.DataFrame({
        "user": rng.choice(users, n),
        "item": rng.choice(names, n, p=popularity / popularity.sum()),
    })  # fmt: skip
    if rng.random() < 0.3:
        table["user"] = [f" {name}\u00a0" if rng.random() < 0.1 else name for name in table["user"]]
    if rng.random() < 0.8:
        scale = rng.choice([1.0, 0.5])
        table["rating"] = [f"{scale * number:g}" for number in rng.integers(1, 11, n)]
    if rng.random() < 0.8:
        seconds = 1_500_000_000 + rng.integers(0, rng.choice([20, 1000, 10**8]), n)
        table["timestamp"] = write_times(rng, seconds, source)
    if rng.random() < 0.15:
        table["split"] = rng.choice(["train", "valid", "test"], n, p=[0.7, 0.15, 0.15])

    missing = rng.random(table.shape) < rng.choice([0, 0.02])
    if "split" in table:
        missing[:, table.columns.get_loc("split")] = False
    table = table.mask(missing, None)
    repeated = table.iloc[rng.integers(0, n, n // 10)]
    if "rating" in table:
        repeated = repeated.assign(rating="1")
    table = pd.concat([table, repeated], ignore_index=True)
    if rng.random() < 0.5:
        table = table.sample(frac=1, random_state=int(rng.integers(1 << 30)))
    if rng.random() < 0.5:
        table["User"] = "another column"
    return table.astype(object).where(table.notna(), None)


def write_times(rng: np.random.Generator, seconds: np.ndarray, source: dict[str, Any]) -> list[str]:
    moments = pd.to_datetime(seconds, unit="s", utc=True)
    form = str(rng.choice(["s", "ms", "us", "ns", "mixed", "date", "time", "zone", "day", "order", "none"]))
    per_second = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
    if form in per_second:
        return [str(int(second) * per_second[form] + int(rng.integers(per_second[form]))) for second in seconds]
    if form == "mixed":
        return [str(int(second) * int(rng.choice([*per_second.values()]))) for second in seconds]
    if form in ("order", "none"):
        source["timestamps"] = form
        return [str(second - 1_500_000_000) for second in seconds]
    if form == "zone":
        return [f"{moment.tz_convert('Asia/Kolkata'):%Y-%m-%dT%H:%M:%S}+05:30" for moment in moments]
    forms = {"date": "%Y-%m-%d", "time": "%Y-%m-%d %H:%M:%S", "day": "%Y%m%d"}
    return moments.strftime(forms[form]).tolist()


def draw_items(rng: np.random.Generator, names: Sequence[str], folder: Path) -> pd.DataFrame:
    """Return the item file: some items are absent, some have two lines, some no image or a broken one."""
    vocabulary = rng.permutation(WORDS)[: rng.integers(6, len(WORDS))].tolist()
    noisy = rng.random() < 0.5

    def text(most: int) -> str | None:
        drawn = rng.choice(vocabulary, rng.integers(0, most)).tolist()
        if noisy and drawn:
            drawn.insert(int(rng.integers(len(drawn))), str(rng.choice(NOISE)))
        joined = " ".join(drawn)
        return joined if joined.strip() else None

    rows = []
    for number, name in enumerate(names):
        for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 2])):
            categories = [text(3) for _ in range(rng.integers(0, 4))]
            rows.append({
                "item": name,
                "title": text(6),
                "brand": text(2),
                "categories": "|".join(filter(None, categories)) or None,
                "description": text(12),
                "image_urls": draw_picture(rng, folder, number),
            })  # fmt: skip
    rows.append({"item": "of nobody", "title": "another item"})
    table = pd.DataFrame(rows, dtype=object)
    return table.where(table.notna(), None)


def draw_picture(rng: np.random.Generator, folder: Path, number: int) -> str | None:
    address = f"pictures/{number}.jpg"
    path = folder / address
    path.parent.mkdir(exist_ok=True)
    kind = rng.choice(["plain", "plain", "plain", "broken", "absent", "none"])
    if kind == "plain":
        colour = tuple(rng.integers(0, 256, 3).tolist())
        path.write_bytes(pictures.plain(colour, (32, 24), str(rng.choice(["JPEG", "PNG"]))))
    elif kind == "broken":
        path.write_bytes(b"no image")
    return None if kind == "none" else address


def write_table(rng: np.random.Generator, folder: Path, stem: str, table: pd.DataFrame) -> str:
    """Write a table in one of the formats; return its path."""
    form = str(rng.choice(["csv", "tsv", "jsonl", "parquet"]))
    if form == "parquet":
        path = folder / f"{stem}.parquet"
        typed_columns(rng, table).to_parquet(path, index=False, row_group_size=int(rng.choice([50, 5000])))
        return str(path)

    text = as_jsonl(rng, table) if form == "jsonl" else as_delimited(rng, table, form)
    data = text.encode("utf-8-sig" if rng.random() < 0.2 else "utf-8")
    path = folder / f"{stem}.{form}"
    if rng.random() < 0.3:
        path = path.with_name(f"{path.name}.gz")
        data = gzip.compress(data, mtime=0)
    path.write_bytes(data)
    return str(path)


def typed_columns(rng: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
    """Give numbers and lists their own types, at random."""
    typed = table.copy()
    for column in typed:
        values = typed[column].dropna()
        numeric = values.map(str).str.fullmatch(r"-?[1-9][0-9]{0,17}").all()
        if column == "categories" and rng.random() < 0.5:
            typed[column] = [text.split("|") if text else [] for text in typed[column]]
        elif numeric and len(values) and rng.random() < 0.5:
            typed[column] = pd.array([None if value is None else int(value) for value in typed[column]], "Int64")
    return typed


def as_jsonl(rng: np.random.Generator, table: pd.DataFrame) -> str:
    """Return JSON lines, with numbers and lists as such, and without the keys of some missing values."""
    ascii_only = bool(rng.random() < 0.5)
    numbers = bool(rng.random() < 0.5)
    lines = []
    for row in table.to_dict("records"):
        given = {name: value for name, value in row.items() if value is not None or rng.random() < 0.5}
        for name, value in given.items():
            is_number = numbers and value is not None and value.isdigit() and value[0] != "0" and value.isascii()
            if is_number and len(value) < 19:
                given[name] = int(value)
            elif name == "categories" and value is not None and numbers:
                given[name] = value.split("|")
        lines.append(json.dumps(given, ensure_ascii=ascii_only))
    return "".join(f"{line}\n" for line in lines)


def as_delimited(rng: np.random.Generator, table: pd.DataFrame, form: str) -> str:
    out = text_io.StringIO()
    delimiter = "\t" if form == "tsv" else str(rng.choice([",", ",", ";", "|"]))
    ending = str(rng.choice(["\n", "\r\n"]))
    quoting = csv.QUOTE_ALL if rng.random() < 0.3 else csv.QUOTE_MINIMAL
    table.to_csv(out, sep=delimiter, index=False, lineterminator=ending, quoting=quoting)
    return out.getvalue()


# --- running it


def run_stages(case: Case) -> Layout:
    """Run the stages in this process; raises UserError."""
    params = load(case.folder / "params.yaml", "shop")
    root = case.folder / "outputs"
    for name in RUN:
        stage = STAGES[name]
        items = case.params["encode"]["encoders"] if stage.per else [""]
        for item in items:
            perform(Run(name, "shop", params, root, item), stage, lambda _: None)
    return Layout(root, "shop")


# --- comparing


def differences(case: Case) -> tuple[list[str], str]:
    """Return what differs, and why the pipeline or this module refused the case, if it did."""
    settings = case.params["interactions"]
    table = plain.read_interactions(Path(case.source["interactions"]), case.columns, case.source.get("timestamps"))
    refused = ""
    expected = None
    try:
        seed = seed_for("interactions", "shop", "split", settings["seed"])
        expected = plain.divide(table, settings, seed)
    except plain.Refused as e:
        refused = str(e)

    try:
        with contextlib.redirect_stderr(text_io.StringIO()), contextlib.redirect_stdout(text_io.StringIO()):
            layout = run_stages(case)
    except UserError as e:
        if not is_expected(str(e), expected):
            return [f"refused: {e}"], ""
        return [], str(e)
    if expected is None:
        return [f"not refused, though there are {refused}"], ""

    checks: list[Callable[[], list[str]]] = [
        lambda: check_interactions(layout, expected),
        lambda: check_items(case, layout, expected),
        lambda: check_texts(case, layout),
        lambda: check_joined(case, layout, expected.rows),
    ]
    found = []
    for check in checks:
        found += check()
    return found, ""


def is_expected(message: str, expected: plain.Interactions | None) -> bool:
    """Return whether a refusal is of too few items or images, which `plain` does not judge."""
    if expected is None or message.startswith("images: not one of"):
        return True
    cold = [expected.rows.loc[expected.rows["split"] == part, "item"].nunique() for part in (VALID, TEST)]
    return "interactions.cold_share" in message and min(cold) <= CUTOFF


def differing(name: str, actual: Sequence[Any], expected: Sequence[Any]) -> list[str]:
    if len(actual) != len(expected):
        return [f"{name}: {len(actual)} values, not {len(expected)}"]
    for row, (one, other) in enumerate(zip(actual, expected, strict=True)):
        if one != other:
            return [f"{name}, row {row}: {one!r}, not {other!r}"]
    return []


def check_interactions(layout: Layout, expected: plain.Interactions) -> list[str]:
    found = differing("users", io.read_table(layout.users, schemas.USERS)["user"].to_pylist(), expected.users)
    found += differing("items", io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist(), expected.items)
    columns = ["user_id", "timestamp", "item_id", "split", "rating"]
    ordered = expected.rows.sort_values(columns)[columns].astype(object)
    ordered = ordered.where(ordered.notna(), None)
    actual = io.read_table(layout.interactions, schemas.INTERACTIONS)
    for column in columns:
        found += differing(f"interactions.{column}", actual[column].to_pylist(), ordered[column].tolist())
    return found


def check_items(case: Case, layout: Layout, expected: plain.Interactions) -> list[str]:
    products = plain.read_products(Path(case.source["items"]), case.source["columns"], expected.items)
    actual = io.read_table(layout.items, schemas.ITEMS)
    texts = [plain.compose(product, case.params["items"]["text"]) for product in products]
    found = differing("items.text", actual["text"].to_pylist(), texts)
    for field in ("title", "brand", "description"):
        wanted = [getattr(product, field) if product else "" for product in products]
        found += differing(f"items.{field}", actual[field].to_pylist(), wanted)

    images = [io.read_table(path, schemas.IMAGES, ["status"]) for path in io.shards(layout.images, "images")]
    has_image = [status == "ok" for table in images for status in table["status"].to_pylist()]
    wanted = [bool(product) and has_picture(case.folder, product) for product in products]
    return found + differing("images", has_image, wanted)


def has_picture(folder: Path, product: plain.Product | None) -> bool:
    paths = [folder / address for address in product.image_urls] if product else []
    return any(path.is_file() and path.read_bytes() != b"no image" for path in paths)


def vectors_of(layout: Layout, name: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(name))["vector"]).astype(np.float64)


def compare_cosines(name: str, vectors: np.ndarray, expected: np.ndarray, tolerance: float) -> list[str]:
    error = np.abs(vectors @ vectors.T - expected)
    if error.max() <= tolerance * max(1.0, np.abs(expected).max()):
        return []
    row, column = np.unravel_index(error.argmax(), error.shape)
    return [f"{name}: dot product of items {row} and {column} differs by {error.max():.2g}"]


def check_texts(case: Case, layout: Layout) -> list[str]:
    texts = io.read_table(layout.items, schemas.ITEMS)["text"].to_pylist()
    if TEXTS not in layout.feature_sets():
        with contextlib.suppress(plain.Refused):
            plain.tfidf_cosines(texts, 1)
            return [f"{TEXTS} was not made"]
        return []
    expected = plain.tfidf_cosines(texts, case.params["encoders"][TEXTS]["width"])
    if expected is None:
        return []
    return compare_cosines(TEXTS, vectors_of(layout, TEXTS), expected, 1e-5)


def check_joined(case: Case, layout: Layout, rows: pd.DataFrame) -> list[str]:
    """Compare `linear` under the choice that was made, and this with the best on validation."""
    names = [name for name in case.params["encode"]["encoders"] if name in layout.feature_sets()]
    parts = [vectors_of(layout, name) for name in names]
    kept = [n for n, part in enumerate(parts) if len(np.unique(part[part.any(axis=1)].round(5), axis=0)) > 1]
    if not kept:
        return [f"{JOINED}: a direction, which no part has"] if vectors_of(layout, JOINED).any() else []
    parts = [parts[n] for n in kept]
    of_images = [names[n] == PICTURES for n in kept]
    width = case.params["combine"]["sets"][JOINED]["width"]
    settings = io.read_json(layout.features(JOINED) / SET)["settings"]
    choice = settings["power"], settings["image"], settings["reduced"]
    try:
        made = {every: plain.join(parts, of_images, width, every) for every in plain.CHOICES}
    except plain.Undecided:
        return []

    expected = made[choice]
    found = compare_cosines(JOINED, vectors_of(layout, JOINED), expected @ expected.T, 1e-3)
    questions = plain.recall_questions(rows, VALID)
    if questions and not found:
        recalls = {every: plain.hit_rate(vectors, questions, 20) for every, vectors in made.items()}
        if recalls[choice] < max(recalls.values()) - 1e-3:
            found.append(f"{JOINED}: {choice} was chosen with recall {recalls[choice]:.4f} of {recalls}")
    return found


def try_seed(seed: int) -> tuple[list[str], str, dict[str, Any]]:
    """Return what differs, why the case was refused if it was, and its settings."""
    with tempfile.TemporaryDirectory(prefix="differential-") as folder:
        case = draw_case(Path(folder), seed)
        try:
            found, refused = differences(case)
        except Exception:
            found, refused = [traceback.format_exc()], ""
        return found, refused, case.params


def describe(params: dict[str, Any]) -> str:
    """Return the settings that were drawn, in a few lines."""
    drawn = {name: params[name] for name in ("sources", "interactions", "items", "encoders", "encode", "combine")}
    return yaml.safe_dump(drawn, default_flow_style=None, allow_unicode=True, width=120)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.differential", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from the first on")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = refused = 0
    for seed in range(given.seed, given.seed + given.seeds):
        found, reason, params = try_seed(seed)
        failed += bool(found)
        refused += bool(reason)
        if found:
            print("\n".join([f"seed {seed} DIFFERS", *found, describe(params)]), flush=True)
        elif given.seeds == 1:
            print(f"seed {seed}: {reason or 'the same'}")
    print(f"{given.seeds} seeds: {refused} refused as expected, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
