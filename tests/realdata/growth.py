"""`python -m tests.realdata.growth [industrial | movies]`: what a growing catalogue keeps, as in docs/growing.md.

A part of the items is the older catalogue, all of them are the grown one; texts only. Without a name, a generated shop,
which takes seconds.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.features import profiles
from alignrec.pipeline.linalg.rotation import paired_cosines
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import running
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.stages.order import STAGES

DATA = Path("../shared/data")
SOURCES: dict[str, dict[str, Any]] = {
    "industrial": {
        "kind": "mmrec",
        "interactions": str(DATA / "industrial_2018/industrial.inter"),
        "items": str(DATA / "industrial_2018/items.jsonl"),
        "timestamps": "order",
    },
    "movies": {
        "kind": "tabular",
        "interactions": str(DATA / "movies/interactions.csv"),
        "items": str(DATA / "movies/items.jsonl"),
        "columns": {"categories": "genres"},
    },
}
GROWTH = (10, 50, 200)
"""new items, % of the older ones"""
CUTOFF, DRAWS = 20, 5
TOY = "toy"
TOY_ITEMS, TOY_USERS, BOUGHT = 600, 300, 10
WORDS = [[f"{letter}{number}" for number in range(12)] for letter in "abcdef"]
"""each text has a word of each list; a user buys items that share the first"""


class Figures(NamedTuple):
    cosine: float | None
    """median, of an older item's vectors before and after"""
    warm: float
    cold: float


def main(name: str = TOY) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"| growth | way | cosine | Recall@{CUTOFF} | cold Recall@{CUTOFF} |", "|---|---|---|---|---|", sep="\n")
        for growth, way, figures in compare(name, root):
            cosine = f"{figures.cosine:.2f}"
            print(f"| {growth} % | {way} | {cosine} | {figures.warm:.3f} | {figures.cold:.3f} |", flush=True)


def write_toy(folder: Path) -> dict[str, Any]:
    """Write the generated shop; return its source."""
    rng = np.random.default_rng(0)
    words = rng.integers(len(WORDS[0]), size=(TOY_ITEMS, len(WORDS)))
    titles = [" ".join(of[n] for of, n in zip(WORDS, row, strict=True)) for row in words]
    lines = [json.dumps({"item": f"I{n}", "title": title}) for n, title in enumerate(titles)]
    (folder / "items.jsonl").write_text("\n".join(lines))
    bought = ["user,item"]
    for user in range(TOY_USERS):
        liked = np.flatnonzero(words[:, 0] == user % len(WORDS[0]))
        bought += [f"U{user},I{n}" for n in rng.choice(liked, BOUGHT, replace=False)]
    (folder / "ratings.csv").write_text("\n".join(bought))
    return {"kind": "tabular", "interactions": str(folder / "ratings.csv"), "items": str(folder / "items.jsonl")}


def encoders_of(name: str) -> list[str]:
    return ["tfidf"] if name == TOY else ["minilm", "tfidf"]


def compare(name: str, root: Path) -> Iterator[tuple[int, str, Figures]]:
    if name == TOY:
        SOURCES[TOY] = write_toy(root)
    run(root, "grown", name, ["download", "interactions", "items"])
    make_sets(root, "grown", name)
    grown = Layout(root, "grown")
    judge = Judge(grown)
    fresh = read(grown.features("linear"))

    for growth in GROWTH:
        older = cut_catalogue(grown, f"older-{growth}", growth)
        make_sets(root, older.dataset, name)
        run(root, older.dataset, name, ["publish"])
        before = read(older.release / "features/linear")
        yield growth, "fixed", judge.measure(fixed_vectors(grown, older, name), before)
        run(root, "grown", name, ["publish"], align=older.release)
        yield growth, "aligned", judge.measure(read(grown.release / "features/linear"), before)
        yield growth, "fresh", judge.measure(fresh, before)


def run(root: Path, dataset: str, name: str, stages: Sequence[str], **options: Any) -> None:
    given = parameters(dataset, name, **options)
    for stage in stages:
        for item in encoders_of(name) if stage == "encode" else [""]:
            with running(stage, dataset, given, root, item) as running_stage:
                STAGES[stage].main(running_stage)


def parameters(dataset: str, name: str, align: Path | None = None, fitted: Path | None = None) -> Any:
    linear: dict[str, Any] = {}
    encoders: dict[str, Any] = {}
    if fitted is not None:
        linear["fitted"] = str(fitted)
        encoders["tfidf"] = {"kind": "released", "model": str(fitted), "encoder": "tfidf"}
    return Params.model_validate({
        "datasets": [dataset],
        "sources": {dataset: SOURCES[name]},
        "encoders": encoders,
        "encode": {"encoders": encoders_of(name), "reuse": True},
        "combine": {"sets": {"linear": linear}, "controls": []},
        "beit3": {"sets": []},
        "publish": {"features": ["linear", *encoders_of(name)], "align": str(align) if align else None},
    })  # fmt: skip


def make_sets(root: Path, dataset: str, name: str, **options: Any) -> None:
    run(root, dataset, name, ["encode", "combine"], **options)


def fixed_vectors(grown: Layout, older: Layout, name: str) -> dict[str, np.ndarray]:
    fixed = Layout(grown.root, f"fixed-{older.dataset}")
    for stage in ("download", "interactions", "items"):
        fixed.out(stage).parent.mkdir(parents=True, exist_ok=True)
        fixed.out(stage).symlink_to(grown.out(stage).resolve())
    make_sets(grown.root, fixed.dataset, name, fitted=older.release)
    return read(fixed.features("linear"))


def cut_catalogue(grown: Layout, dataset: str, growth: int) -> Layout:
    """Write the tables of the older catalogue: a random part of the items, numbered again."""
    older = Layout(grown.root, dataset)
    items = io.read_table(grown.items, schemas.ITEMS)
    rng = np.random.default_rng(seed_for("growth", growth))
    kept = np.sort(rng.permutation(len(items))[: round(len(items) / (1 + growth / 100))])
    new_number = np.full(len(items), -1)
    new_number[kept] = np.arange(len(kept))

    part = items.take(kept)
    part = part.set_column(0, "item_id", pa.array(np.arange(len(kept)), pa.int32()))
    io.write_table(part, older.items, schemas.ITEMS, io.record(grown.items))
    io.write_table(part.select(schemas.ITEM_IDS.names), older.item_ids, schemas.ITEM_IDS)
    io.write_json(older.sources, io.read_json(grown.sources))
    io.write_table(io.read_table(grown.users, schemas.USERS), older.users, schemas.USERS)

    rows = io.read_table(grown.interactions, schemas.INTERACTIONS)
    number = new_number[rows["item_id"].to_numpy()]
    place = rows.schema.get_field_index("item_id")
    rows = rows.set_column(place, "item_id", pa.array(number, pa.int32())).filter(number >= 0)
    io.write_table(rows, older.interactions, schemas.INTERACTIONS)
    return older


def read(folder: Path) -> dict[str, np.ndarray]:
    rows = io.read_features(folder)
    return dict(zip(rows["asin"].to_pylist(), io.matrix(rows["vector"]), strict=True))


class Judge:
    """Recall of test items among those nearest to a user's train items, warm and cold."""

    def __init__(self, layout: Layout) -> None:
        ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
        rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
        user, item, split = (column.to_numpy() for column in rows.columns)
        has, finds = ((user[split == part], item[split == part]) for part in (schemas.TRAIN, schemas.TEST))
        users = profiles.draw_users(finds[0], len(ids), 0)
        self.asins = ids["asin"].to_pylist()
        self.warm = profiles.build_profiles(has, finds, users, len(ids))
        self.cold = profiles.draw_cold_profiles(has, finds, len(ids), DRAWS)

    def measure(self, vectors: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> Figures:
        pairs = [np.array([of[asin] for asin in before]) for of in (vectors, before)]
        features = np.array([vectors[asin] for asin in self.asins])
        cold = np.nanmean(profiles.cold_recalls(self.cold, features, CUTOFF), axis=1)
        return Figures(
            cosine=float(np.median(paired_cosines(*pairs))),
            warm=float(np.nanmean(self.warm.recalls(features, CUTOFF))),
            cold=float(cold.mean()),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
