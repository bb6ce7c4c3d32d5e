"""A day in a shop of 3,000 products: 50 new ones, 20 with another text, 10 gone; `dvc repro` before and after.

Training starts from the first release. It takes 200 MB in FOLDER, where the first run is kept if the second is
interrupted.
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
from alignrec.pipeline.sources import shoppers
from alignrec.pipeline.sources.stickers import COLOURS, PALETTE, SHAPES
from benchmarks import Measurement, _turns
from benchmarks._turns import Turn, Way, short

FOLDER = Path(tempfile.gettempdir()) / "alignrec-day"
DATASET = "shop"
PRODUCTS, NEW, CHANGED, REMOVED = 3000, 50, 20, 10
SHOPPERS = 6000
CATEGORIES, SUBCATEGORIES = 12, 8  # the second per category
WORDS, OWN_WORDS, TITLE_WORDS, TEXT_WORDS = 3000, 30, 6, 40
PICTURED = 0.7  # share of products with a picture
SIDE = 96  # pixels
MOST = 1 / 3  # of the first run's CPU seconds, for the second
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
    """Run `dvc repro` on a shop, then on the shop of the next day."""
    ways: dict[str, Way[dict[str, Cost]]] = {}
    for day, name in enumerate(("the first run", "the next day")):
        kept = FOLDER / f"day-{day}.json"
        if not kept.is_file():
            io.write_json(kept, run_day(FOLDER / "project", day)._asdict())
        turn = io.read_json(kept)
        costs = {stage: Cost(*cost) for stage, cost in turn["result"].items()}
        ways[name] = Way([Turn(turn["wall"], turn["cpu"], costs)])

    print("\n".join(table_lines(*(way.last for way in ways.values()))))
    shutil.rmtree(FOLDER)
    first, second = ways
    return Measurement(
        ways=ways,
        ours=second,
        reference=first,
        unit="s",
        higher_is_better=False,
        limit=MOST * ways[first].wall.median,
        limit_is="a third of the first run",
        what=f"`dvc repro` to a release of {PRODUCTS:,} products; "
        f"then with {NEW} new, {CHANGED} changed and {REMOVED} removed",
        details={"stages": {name: way.last for name, way in ways.items()}},
    )


def run_day(project: Path, day: int) -> Turn[dict[str, Cost]]:
    """Write the shop of a day, bring its project up to date, and return the cost of each stage."""
    log = project.parent / LOG
    project.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    environment = os.environ | {
        "PATH": f"{write_command(project.parent, log)}:{os.environ['PATH']}"
    }

    write_shop(project, day)
    if day:
        start_from_release(project)
    else:
        files = ["--interactions", INTERACTIONS, "--items", ITEMS, "--images", IMAGES]
        new = ["-m", "alignrec", "new", DATASET, *files, "--force"]
        subprocess.run([sys.executable, *new], cwd=project, check=True)
    turn = _turns.timed(
        lambda: subprocess.run(["dvc", "repro"], cwd=project, env=environment, check=True)
    )

    costs: dict[str, Cost] = {}
    for line in log.read_text().splitlines():
        (stage, *_), cpu, wall = json.loads(line)
        before = costs.get(stage, Cost(0, 0))
        costs[stage] = Cost(before.cpu + cpu, before.wall + wall)
    return turn.giving(costs)


def start_from_release(project: Path) -> None:
    """Let training start from the release of the first day."""
    yesterday = project / "yesterday"
    if not yesterday.is_dir():
        shutil.copytree(project / "outputs" / "publish" / DATASET / "release", yesterday)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"]["start"] = yesterday.name
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


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
    purchases = shoppers.draw_purchases(category, subcategory, colour, shape, SHOPPERS, seed=0)
    texts = [draw_text(rng, int(group)) for group in subcategory]
    is_pictured = rng.random(n) < PICTURED

    products = np.arange(PRODUCTS)
    if day:
        for product in range(REMOVED, REMOVED + CHANGED):
            texts[product] = draw_text(rng, int(subcategory[product]))
        products = np.arange(REMOVED, n)

    is_sold = np.isin(purchases["item"].to_numpy(), products)
    sold = purchases.filter(pa.array(is_sold)).drop_columns("stars")
    pq.write_table(sold, folder / INTERACTIONS)
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
    value = PALETTE[COLOURS[colour]][0]
    ink = (value >> 16, value >> 8 & 255, value & 255)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    sides = {0: (80, 30), 1: (30, 80), 2: (60, 60), 3: (60, 60), 4: (70, 50)}[shape]
    left, top = (int(rng.integers(2, SIDE - side - 2)) for side in sides)
    box = (left, top, left + sides[0], top + sides[1])
    draw = ImageDraw.Draw(picture)
    if SHAPES[shape] == "round":
        draw.ellipse(box, fill=ink, outline="black")
    else:
        draw.rectangle(box, fill=ink, outline="black")

    out = BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def table_lines(first: dict[str, Cost], second: dict[str, Cost]) -> list[str]:
    rows = [["stage", "CPU s, first", "CPU s, next day", "share"], ["---"] * 4]
    nothing = Cost(0, 0)
    for stage in first | second:
        a = first.get(stage, nothing)
        b = second.get(stage, nothing)
        rows.append([stage, short(a.cpu), short(b.cpu), f"{b.cpu / a.cpu:.0%}" if a.cpu else "-"])
    totals = [sum(cost.cpu for cost in costs.values()) for costs in (first, second)]
    rows.append(["all", *map(short, totals), f"{totals[1] / totals[0]:.0%}"])
    return [f"| {' | '.join(row)} |" for row in rows]
