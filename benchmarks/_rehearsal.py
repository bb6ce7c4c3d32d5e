"""docs/regenerate-baby.md rehearsed: `make rehearsal`, or `python -m benchmarks._rehearsal`.

profiles/baby.yaml runs as it stands, from `dvc repro` to a verified release, but for paths and scale: raw files as
Amazon's (_raw2014.py), weights as the authors' (_official.py), few items, one epoch, one seed. What each stage took
stands next to what is computed from its operations and the machine's GEMM rate, and Baby's hours follow from both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

import schemas
from benchmarks import RESULTS, _official, _raw2014
from benchmarks import _operations as operations
from benchmarks._disk import Disk
from benchmarks._turns import short
from pipeline import io
from pipeline.beit3 import vqkd
from pipeline.beit3.config import SIZES
from pipeline.beit3.tokenizer import Tokenizer
from pipeline.benchmark.params import Benchmark
from pipeline.config import document
from pipeline.config.parameters import Parameters
from pipeline.io import write_json
from pipeline.layout import Layout
from pipeline.ops.device import gemm_rate
from pipeline.plan.size import LONGEST
from pipeline.versions import machine
from stages.order import STAGES
from stages.params import load
from stages.results import spent

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "profiles" / "baby.yaml"
FILMS = ROOT / ".." / "shared" / "data" / "movies"
DATASET = "baby"
FEWEST = 40  # items: half of them are more than the cutoff that models are compared at, 20
BUSY = 1.5  # load of a core above which others were at work: the stages have as many threads as two cores
BATCH = 8  # items a step: base then fits 12 GB without a GPU
INIT, TOKENIZER, VQKD = "beit3_base_patch16_224.pth", "beit3.spm", "vqkd_encoder_base_decoder_1x768x12_clip.pth"
VISUAL_TOKENIZERS = {size: vqkd.Config() for size in SIZES} | {"small": vqkd.Config(width=128, layers=3, heads=2)}
"""size of BEiT3 -> shape; one was published, which both published sizes predict the codes of"""
BABY = operations.Items.full(7050)
OPTIONS = "rehearsal.json"


def main(arguments: list[str]) -> None:
    """Make the files, run everything, print and keep the figures."""
    options = _options(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        figures = rehearse(folder, options.size, options.items, options.films)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    write_json(path := RESULTS / "rehearsal.json", figures)
    print("\n".join([*lines(figures), f"-> {path}"]))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rehearsal", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=300, help=f"before the 5-core, at least {FEWEST}")
    parser.add_argument("--size", choices=[*SIZES], default="base", help="of BEiT3 and of the files")
    parser.add_argument("--films", type=Path, help="the development data `movies`; stickers where it is absent")
    parser.add_argument("--folder", type=Path, help="kept, and gone on with; by default a temporary one")
    options = parser.parse_args(arguments)
    if options.items < FEWEST:
        sys.exit(f"rehearsal: --items {options.items} is too few; give at least {FEWEST}")
    if options.films is None:
        options.films = FILMS.resolve() if FILMS.is_dir() else None
    elif not options.films.is_dir():
        sys.exit(f"rehearsal: --films {options.films} is no folder; leave it out for stickers")
    return options


def rehearse(folder: Path, size: str, items: int, films: Path | None) -> dict[str, Any]:
    """Run the pipeline in `folder`, unless it has run there, and return its figures.

    Args:
        folder: scratch, or where a rehearsal with the same options was killed.
        size: of BEiT3.
        items: before the 5-core.
        films: development data `movies`; None: stickers.
    """
    options = {"size": size, "items": items, "of": "films" if films else "stickers"}
    if not (mark := folder / OPTIONS).exists():
        lay_out(folder)
        raw = folder / "raw"
        texts = map(_raw2014.text, _raw2014.write(raw, items, films))
        published(raw, size, list(texts))
        params = parameters(document.read_extended(PROFILE), raw, size, items)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        _run("alignrec", "init", folder=folder)
        write_json(mark, options)
    elif json.loads(mark.read_text()) != options:
        sys.exit(f"rehearsal: {folder} is of a rehearsal with other options; give another --folder")
    started = time.perf_counter()
    with Disk(folder) as disk:
        _run("dvc", "repro", folder=folder)
        _run("alignrec", "verify", str(Layout(Path("outputs"), DATASET).release), folder=folder)
    return options | {
        "seconds": time.perf_counter() - started,
        "peak_disk": disk.peak,
        "load": os.getloadavg()[1],
        "machine": machine(),
        **measured(folder, size),
    }


def lay_out(folder: Path) -> None:
    """Copy the pipeline into `folder` and make it a DVC project."""
    for name in ("pipeline", "stages", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    _run("dvc", "init", "-q", "-f", "--no-scm", folder=folder)
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config.local")  # next to what `dvc init` wrote


def published(raw: Path, size: str, texts: list[str]) -> None:
    """Write files as the authors publish them, for a BEiT3 of `size`."""
    _official.beit3(raw / INIT, SIZES[size])
    _official.tokenizer(raw / TOKENIZER, texts)
    _official.visual_tokenizer(raw / VQKD, VISUAL_TOKENIZERS[size])


def parameters(profile: dict[str, Any], raw: Path, size: str, items: int) -> dict[str, Any]:
    """Return the profile with paths in place of addresses, at the rehearsal's scale.

    Args:
        profile: profiles/baby.yaml, parsed.
        raw: folder of raw and published files.
        size: of BEiT3.
        items: before the 5-core.
    """
    source = profile["sources"][DATASET]
    files = {"reviews": str(raw / _raw2014.REVIEWS), "metadata": str(raw / _raw2014.METADATA)}
    features = {name: str(raw / _raw2014.IMAGE_FEATURES) for name in source["features"]}
    weights = {"init": str(raw / INIT), "tokenizer": str(raw / TOKENIZER), "vqkd": str(raw / VQKD)}
    precision = _fastest()
    steps = max(1, items // BATCH)
    ks = {"ks": [k for k in Benchmark().ks if k <= items // 2]}
    scale = {"steps": steps, "batch_size": BATCH, "precision": precision, "checkpoint_every": max(1, steps // 2)}
    changed: dict[str, dict[str, Any]] = {
        "sources": {DATASET: source | files | {"features": features}},
        "pretrain": weights | scale | {"size": size},
        "encode": {"workers": 2},
        "encoders": {"beit3": profile["encoders"]["beit3"] | {"precision": precision}},
        "train": {"epochs": 3, "batch_size": 512},
        "probe": ks,
        "study": {"mask": {"seeds": 1}},
        "benchmark": {"seeds": 1, "ablation_seeds": 1, **ks},
    }
    return profile | {section: profile.get(section, {}) | values for section, values in changed.items()}


def _fastest() -> str:
    """Return the precision whose products the machine multiplies fastest."""
    return max(("float32", "bfloat16"), key=gemm_rate)


def _run(*command: str, folder: Path) -> None:
    here = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "."}
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        sys.exit(f"rehearsal: `{' '.join(command)}` failed in {folder}; its last lines above say why")


def measured(folder: Path, size: str) -> dict[str, Any]:
    """Return what the stages took, what is computed for them, and Baby's seconds at the same share of the GEMM rate."""
    layout, params = Layout(folder / "outputs", DATASET), load(folder / "params.yaml")
    records = {stage: spent(layout, stage) for stage in STAGES}
    stages = {
        stage: {
            "seconds": record["seconds"],
            "peak_memory_mib": record["peak_memory_mib"],
            "bytes": sum(path.stat().st_size for path in layout.outputs(stage)),
        }
        for stage, record in records.items()
    }
    tokenizer = Tokenizer(layout.encoder.tokenizer.read_bytes())
    networks = operations.Networks(SIZES[size], VISUAL_TOKENIZERS[size])
    here = computed_seconds(networks, params, items_of(layout, tokenizer))
    baby = computed_seconds(networks, _as_published(params), BABY)
    rates = {precision: gemm_rate(precision) for precision in ("float32", "bfloat16")}
    for stage, computed in here.items():
        share = computed / stages[stage]["seconds"]
        stages[stage] |= {"computed_seconds": computed, "share": share, "baby_seconds": baby[stage] / share}
    return {"stages": stages, "rates": rates, "items_left": records["interactions"]["notes"].get("items")}


def _as_published(params: Parameters) -> Parameters:
    """Return the rehearsal's parameters with the profile's steps."""
    steps = load(PROFILE).pretrain.steps
    return params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"steps": steps})})


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as a table for a terminal."""
    rates = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {precision}" for precision, rate in figures["rates"].items())
    table = [("stage", "s", "computed s", "share of rate", "peak MiB", "MB written", "Baby, h")]
    for stage, facts in figures["stages"].items():
        computed = ["", "", ""]
        if "share" in facts:
            hours = facts["baby_seconds"] / 3600
            computed = [short(facts["computed_seconds"]), f"{facts['share']:.0%}", short(hours)]
        memory, written = f"{facts['peak_memory_mib']:,}", f"{facts['bytes'] / 1e6:,.1f}"
        table.append((stage, short(facts["seconds"]), *computed[:2], memory, written, computed[2]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    others = figures["load"] > BUSY * figures["machine"]["cores"]
    in_stages = sum(facts["seconds"] for facts in figures["stages"].values())
    return [
        f"BEiT3-{figures['size']}, {figures['items']} {figures['of']}, from dvc repro to a verified release.",
        f"{figures['machine']['cpu']}, {figures['machine']['cores']} cores: {rates}.",
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table),
        f"In all {figures['seconds']:.0f} s, of which {figures['seconds'] - in_stages:.0f} s for DVC and for starting "
        f"processes; at most {figures['peak_disk'] / 1e9:.1f} GB on disk.",
        *(["Other programs ran next to it: seconds and hours are too high, shares too low."] if others else []),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])


def items_of(layout: Layout, tokenizer: Tokenizer) -> operations.Items:
    """Return what the items of a dataset have whose images are fetched."""
    shards = io.shards(layout.images, "images")
    status = np.concatenate([pq.read_table(p, columns=["status"])["status"].to_numpy() for p in shards])
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    lengths = [len(ids) if text else 0 for text, ids in zip(texts, tokenizer.encode(texts, LONGEST), strict=True)]
    return operations.Items(status == "ok", np.array(lengths))


def computed_seconds(networks: operations.Networks, params: Parameters, items: operations.Items) -> dict[str, float]:
    """Return stage -> seconds at this machine's full GEMM rate."""
    work = {
        "pretrain": operations.pretrain(networks, params, items), "encode": operations.encode(networks, params, items)
    }  # fmt: skip
    return {
        stage: sum(flop / gemm_rate(precision) for precision, flop in parts.items()) for stage, parts in work.items()
    }
