"""Run profiles/baby.yaml end to end on small synthetic files: `make rehearsal` or `python -m benchmarks._rehearsal`.

With `--new`, it runs what `alignrec new baby --amazon 2014 --category Baby` writes, with files and
pictures from a local server; with `--published`, with Baby's published interactions in them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import vqkd
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS
from alignrec.pipeline.linalg.device import gemm_rate
from alignrec.pipeline.runtime import yaml_files
from alignrec.pipeline.runtime.layout import WORK, Layout
from alignrec.pipeline.runtime.machine import machine_facts
from alignrec.stages.order import STAGES
from benchmarks import RESULTS, _baby, _official, _raw2014
from benchmarks._turns import short

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "profiles" / "baby.yaml"
DATASET = "baby"
FEWEST = 40  # minimum items, so that half of them reach the main cutoff, 20
BATCH = 8  # batch size of pre-training at which size base fits 12 GB without a GPU
INIT, TOKENIZER, VQKD = (
    "beit3_base_patch16_224.pth",
    "beit3.spm",
    "vqkd_encoder_base_decoder_1x768x12_clip.pth",
)
# both published sizes of BEiT3 predict the codes of the same tokenizer
VISUAL_TOKENIZERS = {size: vqkd.VQKDConfig() for size in BEIT3_CONFIGS} | {
    "small": vqkd.VQKDConfig(width=128, layers=3, heads=2)
}
OPTIONS = "rehearsal.json"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="rehearsal", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--items", type=int, default=300, help=f"before the 5-core, at least {FEWEST}"
    )
    parser.add_argument(
        "--size", choices=[*BEIT3_CONFIGS], default="base", help="of BEiT3 and of the files"
    )
    parser.add_argument("--folder", type=Path, help="kept and resumed; by default a temporary one")
    parser.add_argument("--new", action="store_true", help="`new --amazon` in place of the profile")
    parser.add_argument(
        "--published", action="store_true", help=f"`--new` at full size, by {_baby.DATA}"
    )
    options = parser.parse_args(arguments)
    if options.items < FEWEST:
        sys.exit(f"rehearsal: --items {options.items} is too few; give at least {FEWEST}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        if options.published:
            figures = rehearse_new(folder, _raw2014.write_published)
        elif options.new:
            figures = rehearse_new(folder, partial(_raw2014.write, items=options.items))
        else:
            figures = rehearse(folder, options.size, options.items)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    name = "rehearsal-new" if options.new or options.published else "rehearsal"
    io.write_json(path := RESULTS / f"{name}.json", figures)
    print("\n".join([*lines(figures), f"-> {path}"]))


def rehearse(folder: Path, size: str, items: int) -> dict[str, Any]:
    """Run the pipeline in `folder`, resuming a rehearsal with equal options, and return its figures."""
    options = {"size": size, "items": items}
    if not (mark := folder / OPTIONS).exists():
        lay_out(folder)
        raw = folder / "raw"
        published(raw, size, [_raw2014.text(product) for product in _raw2014.write(raw, items)])
        params = parameters(yaml_files.read_extended(PROFILE), raw, size, items)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        _run("alignrec", "new", folder=folder)
        io.write_json(mark, options)
    elif json.loads(mark.read_text()) != options:
        sys.exit(f"rehearsal: {folder} has a rehearsal with other options; give another --folder")
    return options | run_all(folder)


def rehearse_new(folder: Path, write: Callable[[Path], object]) -> dict[str, Any]:
    """Build what `new --amazon` writes from files and pictures of a server; return its figures."""
    raw = folder / "raw"
    write(raw)
    handler = partial(_Quiet, directory=str(raw))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        _raw2014.give_addresses(raw / _raw2014.METADATA, address)
        _run("git", "init", "-q", folder=folder)
        category = ["--amazon", "2014", "--category", "Baby"]
        _run("alignrec", "new", DATASET, *category, folder=folder)
        path = folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        files = {"reviews": _raw2014.REVIEWS, "metadata": _raw2014.METADATA}
        addresses = {role: f"{address}/{name}" for role, name in files.items()}
        params["sources"][DATASET] |= addresses
        params["images"] = {"private_hosts": ["127.0.0.1"]}
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        _run("alignrec", "plan", folder=folder)
        figures = run_all(folder)
        server.shutdown()
    manifest = io.read_json(Layout(folder / "outputs", DATASET).release / "manifest.json")
    return {"size": "none"} | manifest["counts"] | figures


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # `plan` asks for the size of a file and leaves
            super().copyfile(source, outputfile)


def run_all(folder: Path) -> dict[str, Any]:
    """Build and verify the release, and return the machine and what each stage took."""
    layout = Layout(folder / "outputs", DATASET)
    _run("dvc", "repro", folder=folder)
    _run("alignrec", "verify", str(Layout(Path("outputs"), DATASET).release), folder=folder)
    paths = [path for stage in STAGES for path in sorted(layout.work(stage).rglob(io.COST))]
    costs = {
        path.parent.relative_to(layout.root / WORK).as_posix(): io.read_json(path) for path in paths
    }
    return {"machine": machine_facts(), "stages": costs}


def lay_out(folder: Path) -> None:
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    _run("dvc", "init", "-q", "-f", "--no-scm", folder=folder)
    shutil.copy(
        ROOT / ".dvc" / "config", folder / ".dvc" / "config.local"
    )  # keeps the config of `dvc init`


def published(raw: Path, size: str, texts: list[str]) -> None:
    """Write weights and tokenizers in the published formats, for a BEiT3 of `size`."""
    _official.beit3(raw / INIT, BEIT3_CONFIGS[size])
    _official.tokenizer(raw / TOKENIZER, texts)
    _official.visual_tokenizer(raw / VQKD, VISUAL_TOKENIZERS[size])


def parameters(profile: dict[str, Any], raw: Path, size: str, items: int) -> dict[str, Any]:
    """Return the profile with local paths for addresses, scaled down."""
    source = profile["sources"][DATASET]
    files = {"reviews": str(raw / _raw2014.REVIEWS), "metadata": str(raw / _raw2014.METADATA)}
    features = {name: str(raw / _raw2014.IMAGE_FEATURES) for name in source["features"]}
    weights = {"init": str(raw / INIT), "tokenizer": str(raw / TOKENIZER), "vqkd": str(raw / VQKD)}
    precision = max(("float32", "bfloat16"), key=gemm_rate)
    steps = max(1, items // BATCH)
    ks = [k for k in STAGES["benchmark"].params().model_dump()["ks"] if k <= items // 2]
    scale = {
        "steps": steps,
        "batch_size": BATCH,
        "precision": precision,
        "checkpoint_every": max(1, steps // 2),
    }
    changed: dict[str, dict[str, Any]] = {
        "sources": {DATASET: source | files | {"features": features}},
        "pretrain": weights | scale | {"size": size},
        "encode": {"workers": 2},
        "encoders": {"clip": {"kind": "descriptors"}},  # in place of weights from the Hub
        "beit3": {"precision": precision},
        "train": {"epochs": 3, "batch_size": 512},
        "probe": {"ks": ks[:]},  # a copy, as YAML would write an alias
        "study": {"mask": {"ratios": [0, 1], "seeds": 1}},
        "benchmark": {"seeds": 1, "ablation_seeds": 1, "ks": ks},
    }
    return profile | {
        section: profile.get(section, {}) | values for section, values in changed.items()
    }


def _run(*command: str, folder: Path) -> None:
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        sys.exit(
            f"rehearsal: `{' '.join(command)}` failed in {folder}; its last lines above say why"
        )


def lines(figures: dict[str, Any]) -> list[str]:
    table = [("stage", "s", "peak MiB")]
    for stage, record in figures["stages"].items():
        table.append((stage, short(record["seconds"]), f"{record['peak_memory_mib']:,}"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        f"BEiT3: {figures['size']}, {figures['items']} stickers, from dvc repro to a verified release.",
        f"{figures['machine']['cpu']}, {figures['machine']['cores']} cores.",
        *(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        ),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
