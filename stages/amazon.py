"""Amazon's review data by name: `alignrec categories` and `alignrec new --amazon`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pipeline.config.base import known
from pipeline.errors import UserError
from pipeline.sources.catalogue import KIND, SIZES, Subset, vintages
from stages.terminal import say, show

OFFICIAL: dict[str, dict[str, Any]] = {
    "pretrain": {
        "size": "base",
        "init": "https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth",
        "tokenizer": "https://github.com/addf400/files/releases/download/beit3/beit3.spm",
        "vqkd": "https://github.com/addf400/files/releases/download/BEiT-v2/"
        "vqkd_encoder_base_decoder_1x768x12_clip-d93179da.pth",
        "distill": 0,
        "hide": 0,
        "max_tokens": 128,
        "steps": 1000,
        "batch_size": 64,
        "lr": 0.0001,
        "precision": "bfloat16",
    },
    "encode": {
        "encoders": [
            *("beit3-raw", "beit3-raw-image-masked", "beit3-raw-text-masked", "beit3-official", "beit3-untrained"),
            *("minilm", "minilm-cnn"),
        ],
        "workers": 8,
    },
    "encoders": {"beit3": {"precision": "bfloat16", "max_tokens": 128, "whiten": False}},
    "train": {"features": "beit3-raw"},
}  # what profiles/article.yaml says of the encoder: BEiT3-base from its official weights, by MIM and MLM only
PASSES = 9.08  # over the items, as a thousand steps of 64 are over Baby's
ENOUGH, TIGHT = 24e9, 12e9  # bytes of a GPU that hold a step of 64 items of BEiT3-base, and a quarter of one
HEAD = """# What `dvc repro` builds, and how: Amazon's {category} of {year}. Absent keys have their defaults.
"""
# keys of a source's `split` -> the file in a folder of a published split; users may be absent
SPLIT = {"interactions": "*.inter*", "items": "i_id_mapping*.csv*", "users": "u_id_mapping*.csv*"}


def categories(
    year: Annotated[int, typer.Option(help="of the data: 2014, 2018 or 2023")] = 2023,
    category: Annotated[str | None, typer.Option(help="only this one")] = None,
) -> None:
    """Amazon's categories: names and published sizes."""
    from pipeline.report.table import Table
    from pipeline.report.terminal import drawn

    vintage = _vintage(year)
    names = [category] if category else list(vintage["categories"])
    known(names, vintage["categories"], "--category")
    counts = ("users", "items", "reviews")
    rows = [[name, *(vintage["categories"][name].get(key, "") for key in counts)] for name in names]
    show(drawn(Table(f"Amazon {year}", "", ["category", *counts], rows), unbroken=[0]))
    say(f"counted: {vintage['counted']}; read in: {vintage['read in']}")
    say(f"next: alignrec new {names[0].lower()} --amazon {year} --category {names[0]}")


def _vintage(year: int) -> dict[str, Any]:
    known([str(year)], vintages(), "--amazon")
    return vintages()[str(year)]


def look(
    name: str, year: int, category: str | None, subset: Subset, split: Path | None, official: bool
) -> tuple[str, list[str]]:
    """Return the text of a parameter file for a category, and lines on its size and this machine.

    `split` is the folder of a published split; `official` starts BEiT3-base from its official weights.
    """
    found = _vintage(year)["categories"]
    if category is None:
        raise UserError(f"--amazon {year}: give --category too; `alignrec categories --year {year}` lists them")
    known([category], found, "--category")
    source: dict[str, Any] = {"kind": KIND.format(year), "category": category}
    if split is not None:
        source["split"] = split_of(split)
    elif subset != "5-core":
        source["subset"] = subset
    sections: dict[str, Any] = {"datasets": [name], "sources": {name: source}}
    published = SIZES.get((KIND.format(year), category))
    if official:
        sections |= OFFICIAL
        steps = round(PASSES * published.items / 64, -2) if published else OFFICIAL["pretrain"]["steps"]
        parts = {"accumulate": 4} if (memory := gpu_memory()) and memory < ENOUGH else {}
        sections["pretrain"] = OFFICIAL["pretrain"] | {"steps": int(steps)} | parts
    body = yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=120)
    size = published or "of a size that is known once it is downloaded"
    return HEAD.format(category=category, year=year) + body, [f"{category} of {year}: {size}", *_able(official)]


def split_of(folder: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for key, pattern in SPLIT.items():
        several = sorted(folder.glob(pattern))
        if len(several) > 1 or not (several or key == "users"):
            has = ", ".join(path.name for path in several) or "none"
            raise UserError(f"--split {folder}: one file {pattern} is needed, there is {has}")
        if several:
            files[key] = str(several[0])
    return files


def _able(official: bool) -> Iterator[str]:
    memory = gpu_memory()
    if official and memory < TIGHT:
        what = f"a GPU of {memory / 1e9:.0f} GB" if memory else "no GPU"
        yield f"warning: {what} here: pre-training BEiT3-base takes {math.ceil(TIGHT / 1e9)} GB; see `alignrec plan`"
    elif not official and memory >= TIGHT:
        yield f"a GPU of {memory / 1e9:.0f} GB is here: --official writes BEiT3-base with its official weights"


def gpu_memory() -> float:
    import torch  # seconds, which other commands need not wait for

    if not torch.cuda.is_available():
        return 0.0
    return float(max(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())))
