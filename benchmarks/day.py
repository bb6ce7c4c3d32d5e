"""A day in a shop of 3,000 products: 50 new ones, 20 with another text, 10 gone; `dvc repro` before and after.

The next day is run twice, in copies of the first project: what is fitted to the catalogue is fitted again, or stays as
in the first release (encoder kind `released`). It takes 600 MB in FOLDER, where finished runs are kept if a later
one is interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw

from alignrec.pipeline import io
from benchmarks import Measurement, _turns
from benchmarks._turns import Turn, Way, short

FOLDER = Path(tempfile.gettempdir()) / "alignrec-day"
DATASET = "shop"
PRODUCTS, NEW, CHANGED, REMOVED = 3000, 50, 20, 10
SHOPPERS, PURCHASES = 6000, 60_000
START, SPAN = 1_388_534_400, 2 * 365 * 86_400  # seconds in which they buy: 2014 and 2015
CATEGORIES, SUBCATEGORIES = 12, 8  # the second per category
WORDS, OWN_WORDS, TITLE_WORDS, TEXT_WORDS = 3000, 30, 6, 40
PICTURED = 0.7  # share of products with a picture
SIDE = 96  # pixels
COLOURS = (0x92D3F5, 0xEA5A47, 0xB1CC33, 0xFCEA2B, 0xE27022, 0xFFA7C0, 0xB399C8, 0xA57939, 0x9B9B9A)
SHAPES = ((80, 30), (30, 80), (60, 60), (60, 60), (70, 50))  # width and height
ROUND = 3  # position in SHAPES
MOST = 1 / 3  # of the first run's seconds, for the next day
FIRST, REFITTED, KEPT = "first run", "next day", "next day, spaces kept"
FOLDERS = {FIRST: "first", REFITTED: "refitted", KEPT: "kept"}
KEPT_SET = "linear"  # set that stays in its space
RELEASE = "yesterday"  # copy of the first release in the projects of the next day
INTERACTIONS, ITEMS, IMAGES = "interactions.parquet", "items.jsonl", "images.zip"
LOG = "costs.jsonl"
# `alignrec` on PATH: runs the real one and appends its cost to a file
COMMAND = """#!{python}
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run([sys.executable, "-m", "alignrec", *sys.argv[1:]]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cost = [sys.argv[1:], used.ru_utime + used.ru_stime, time.perf_counter() - began]
with open({log!r}, "a") as file:
    file.write(json.dumps(cost) + "\\n")
sys.exit(code)
"""


class Cost(NamedTuple):
    """Cost of a stage, including its start."""

    cpu: float  # seconds of all threads
    wall: float  # seconds


def run() -> Measurement:
    """Run `dvc repro` on a shop, then twice on the shop of the next day."""
    ways: dict[str, Way[dict[str, Cost]]] = {}
    for name, folder in FOLDERS.items():
        done = FOLDER / f"{folder}.json"
        if not done.is_file():
            io.write_json(done, run_day(name)._asdict())
        turn = io.read_json(done)
        costs = {stage: Cost(*cost) for stage, cost in turn["result"].items()}
        ways[name] = Way([Turn(turn["wall"], turn["cpu"], costs)])

    print("\n".join(table_lines({name: way.last for name, way in ways.items()})))
    shutil.rmtree(FOLDER)
    return Measurement(
        ways=ways,
        ours=KEPT,
        reference=FIRST,
        unit="s",
        higher_is_better=False,
        limit=MOST * ways[FIRST].wall.median,
        limit_is="a third of the first run",
        what=f"`dvc repro` to a release of {PRODUCTS:,} products; "
        f"then with {NEW} new, {CHANGED} changed and {REMOVED} removed",
        details={"stages": {name: way.last for name, way in ways.items()}},
    )


def run_day(name: str) -> Turn[dict[str, Cost]]:
    """Write the shop of a day, bring its project up to date, and return the cost of each stage."""
    project = FOLDER / FOLDERS[name]
    if name != FIRST:
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(FOLDER / FOLDERS[FIRST], project, symlinks=True)
    project.mkdir(parents=True, exist_ok=True)
    log = FOLDER / LOG
    log.unlink(missing_ok=True)
    path = f"{write_command(FOLDER, log)}:{os.environ['PATH']}"

    write_shop(project, day=0 if name == FIRST else 1)
    if name == FIRST:
        write_project(project)
    else:
        shutil.copytree(project / "outputs" / "publish" / DATASET / "release", project / RELEASE)
        if name == KEPT:
            keep_spaces(project)
    turn = _turns.timed(
        lambda: subprocess.run(
            ["dvc", "repro"], cwd=project, env=os.environ | {"PATH": path}, check=True
        )
    )

    costs: dict[str, Cost] = {}
    for line in log.read_text().splitlines():
        (stage, *_), cpu, wall = json.loads(line)
        before = costs.get(stage, Cost(0, 0))
        costs[stage] = Cost(before.cpu + cpu, before.wall + wall)
    return turn.giving(costs)


def write_project(project: Path) -> None:
    files = ["--interactions", INTERACTIONS, "--items", ITEMS, "--images", IMAGES]
    new = ["-m", "alignrec", "new", DATASET, *files]
    subprocess.run([sys.executable, *new], cwd=project, check=True)


def keep_spaces(project: Path) -> None:
    """Take the encoder of the release, and compare features without training AlignRec on each."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["encode"]["encoders"] = [KEPT_SET]
    params["encoders"] = {
        KEPT_SET: {"kind": "released", "model": RELEASE, "encoder": KEPT_SET},
    }
    params["combine"] = {"sets": {}}
    judged = [KEPT_SET, "shuffled"]
    params["benchmark"] |= {"models": ["ease", "l3ae"], "features": judged}
    params["probe"] = {"features": judged}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run([sys.executable, "-m", "alignrec", "new"], cwd=project, check=True)


def write_command(folder: Path, log: Path) -> Path:
    path = folder / "bin" / "alignrec"
    path.parent.mkdir(exist_ok=True)
    path.write_text(COMMAND.format(python=sys.executable, log=str(log)))
    path.chmod(0o755)
    return path.parent


def write_shop(folder: Path, day: int) -> None:
    """Write interactions, products and pictures of day 0 or 1; the rest of both days is equal."""
    rng = np.random.default_rng(0)
    n = PRODUCTS + NEW
    subcategory = rng.integers(0, CATEGORIES * SUBCATEGORIES, n)
    category = subcategory // SUBCATEGORIES
    colour = rng.integers(0, len(COLOURS), n)
    shape = rng.integers(0, len(SHAPES), n)
    purchases = draw_purchases(subcategory)
    texts = [draw_text(rng, int(group)) for group in subcategory]
    is_pictured = rng.random(n) < PICTURED

    products = np.arange(PRODUCTS)
    if day:
        for product in range(REMOVED, REMOVED + CHANGED):
            texts[product] = draw_text(rng, int(subcategory[product]))
        products = np.arange(REMOVED, n)

    is_sold = np.isin(purchases["item"].to_numpy(), products)
    pq.write_table(purchases.filter(pa.array(is_sold)), folder / INTERACTIONS)
    with (folder / ITEMS).open("w") as items:
        for product in products.tolist():
            title, description = texts[product]
            line = {"item": product, "title": title, "description": description}
            line["categories"] = [f"c{category[product]}", f"s{subcategory[product]}"]
            items.write(f"{json.dumps(line)}\n")
    with zipfile.ZipFile(folder / IMAGES, "w") as archive:
        for product in products[is_pictured[products]].tolist():
            picture = draw_picture(product, int(colour[product]), int(shape[product]))
            archive.writestr(f"{product}.jpg", picture)


def draw_purchases(subcategory: np.ndarray) -> pa.Table:
    """Return user, item and timestamp; half of a shopper's purchases are of one subcategory."""
    rng = np.random.default_rng(1)
    user = rng.integers(0, SHOPPERS, PURCHASES)
    item = rng.integers(0, len(subcategory), PURCHASES)
    is_liked = rng.random(PURCHASES) < 0.5
    favourite = rng.integers(0, CATEGORIES * SUBCATEGORIES, SHOPPERS)[user]
    for group in range(CATEGORIES * SUBCATEGORIES):
        rows = np.flatnonzero(is_liked & (favourite == group))
        item[rows] = rng.choice(np.flatnonzero(subcategory == group), len(rows))
    times = START + rng.integers(0, SPAN, PURCHASES)
    return pa.table({"user": user, "item": item, "timestamp": times})


def draw_text(rng: np.random.Generator, group: int) -> tuple[str, str]:
    """Return a title and a description, half of whose words are of a subcategory."""
    n = TITLE_WORDS + TEXT_WORDS
    own = WORDS + OWN_WORDS * group + rng.integers(0, OWN_WORDS, n)
    number = np.where(rng.random(n) < 0.5, own, rng.integers(0, WORDS, n))
    words = [spell(int(i)) for i in number]
    return " ".join(words[:TITLE_WORDS]), " ".join(words[TITLE_WORDS:])


def spell(number: int) -> str:
    """Return a pronounceable word."""
    word = ""
    while number or not word:
        number, letter = divmod(number, 100)
        word += "bdfgklmnrstvwzhpjcqx"[letter // 5] + "aeiou"[letter % 5]
    return word


def draw_picture(product: int, colour: int, shape: int) -> bytes:
    rng = np.random.default_rng(product)
    value = COLOURS[colour]
    ink = (value >> 16, value >> 8 & 255, value & 255)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    sides = SHAPES[shape]
    left, top = (int(rng.integers(2, SIDE - side - 2)) for side in sides)
    box = (left, top, left + sides[0], top + sides[1])
    draw = ImageDraw.Draw(picture)
    if shape == ROUND:
        draw.ellipse(box, fill=ink, outline="black")
    else:
        draw.rectangle(box, fill=ink, outline="black")

    out = BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def table_lines(days: dict[str, dict[str, Cost]]) -> list[str]:
    """Return a table of CPU seconds by stage and day, with each day's share of the first."""
    first = days[FIRST]
    rows = [["stage", *days], ["---"] * (1 + len(days))]
    for stage in dict.fromkeys(stage for costs in days.values() for stage in costs):
        nothing = Cost(0, 0)
        cells = [
            share_of(costs.get(stage, nothing).cpu, first.get(stage, nothing).cpu)
            for costs in days.values()
        ]
        rows.append([stage, *cells])
    totals = [sum(cost.cpu for cost in costs.values()) for costs in days.values()]
    rows.append(["all", *(share_of(total, totals[0]) for total in totals)])
    return [f"| {' | '.join(row)} |" for row in rows]


def share_of(seconds: float, first: float) -> str:
    return f"{short(seconds)} ({seconds / first:.0%})" if first else short(seconds)
