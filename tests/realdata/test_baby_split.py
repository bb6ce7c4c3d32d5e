"""Baby's published split with content by ASIN: size, fingerprint, and comparison with published figures.

Users, items, parts and ASINs are real; titles, categories and images are made up, as no host of Amazon can be reached.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import alignrec
from PIL import Image

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.compare.leaderboard import read_published
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.train import inputs

DATA = Path(__file__).parents[3] / "shared" / "data" / "baby_2014"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/baby_2014 is not next to the project")

LACKING = (5, 77)
"""items that the metadata lacks"""
SHOWN = 50
"""items with an image"""
WORDS = ("soft", "blue", "bottle", "stroller", "bib", "crib", "toy", "warm", "safe", "wooden", "organic", "cotton")
STAGES = ("download", "interactions", "items")


def asins() -> list[str]:
    """Return the ASINs by item number."""
    with (DATA / "item_urls.csv").open() as f:
        return [row["asin"] for row in csv.DictReader(f)]


def project(folder: Path) -> None:
    """Write raw metadata, images, mapping and parameters."""
    mapping = "".join(f"{asin}\t{i}\n" for i, asin in enumerate(asins()))
    (folder / "i_id_mapping.csv").write_text(f"asin\titemID\n{mapping}")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i, asin in enumerate(asins()):
        title, category = " ".join(rng.choice(WORDS, 6)), str(rng.choice(WORDS))
        if i not in LACKING:
            record = {"asin": asin, "title": title, "categories": [["Baby", category]], "imUrl": f"{asin}.jpg"}
            lines.append(repr(record))
            if i < SHOWN:
                pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(folder / "images" / f"{asin}.jpg")
    (folder / "meta_Baby.json.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), 1))
    inter, users = str(DATA / "baby.inter.gz"), str(DATA / "u_id_mapping.csv")
    split = {"interactions": inter, "items": "i_id_mapping.csv", "users": users}
    baby = {"kind": "amazon2014", "metadata": "meta_Baby.json.gz", "split": split}
    sources = {"baby": baby, "plain": {"kind": "mmrec", "interactions": inter}}
    params = {
        "datasets": ["baby"], "sources": sources, "images": {"folder": "images"},
        "encode": {"encoders": ["tfidf"]}, "beit3": {"sets": []}, "combine": {"sets": {}, "controls": ["random"]},
        "train": {"features": "tfidf", "epochs": 1, "patience": 1, "batch_size": 1024},
        "benchmark": {"models": ["contentknn"], "features": ["tfidf"], "seeds": 1, "ablations": {}},
        "publish": {"features": ["tfidf"]},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run(folder: Path, *stages: str, dataset: str = "baby") -> None:
    for stage in stages:
        done = alignrec(stage, dataset, cwd=folder)
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages up to items have run."""
    folder = tmp_path_factory.mktemp("baby")
    project(folder)
    run(folder, *STAGES)
    return folder


def test_users_items_parts_and_fingerprint_are_the_published(read: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(read, *STAGES[:2], dataset="plain")
    monkeypatch.chdir(read)
    layouts = {name: Layout(Path("outputs"), name) for name in ("baby", "plain")}
    rows = {name: io.read_table(layout.interactions, schemas.INTERACTIONS) for name, layout in layouts.items()}
    assert rows["baby"].equals(rows["plain"])
    notes = io.read_json(layouts["baby"].run_record("interactions"))["notes"]
    sizes = [notes[key] for key in ("users", "items", "train", "valid", "test")]
    assert sizes == [19_445, 7_050, 118_551, 20_559, 21_682]
    params = load(Path("params.yaml"))
    labels = [
        protocol_of(params, name, inputs.read_inputs(layout, None).split).label for name, layout in layouts.items()
    ]
    assert labels[0] == labels[1]
    assert read_published()["fingerprints"][labels[0]["fingerprint"]] == "baby"
    items = io.read_table(layouts["baby"].items, schemas.ITEMS)
    assert items["asin"].to_pylist() == asins()
    without = [i for i, status in enumerate(items["text_status"].to_pylist()) if status == "no_metadata"]
    assert without == [*LACKING]
    assert io.read_json(layouts["baby"].run_record("items"))["drops"]["text_no_metadata"] == len(LACKING)
