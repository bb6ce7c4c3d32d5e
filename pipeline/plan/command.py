"""`alignrec plan`: hours, memory, disk and downloads of each stage, before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.benchmark.params import Benchmark
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.facts.table import Table
from pipeline.http.fetch import local
from pipeline.layout import Layout
from pipeline.plan import addresses, size
from pipeline.plan.addresses import Answer
from pipeline.pretrain.params import Pretrain

if TYPE_CHECKING:
    from pipeline.plan.estimate import Estimate
    from pipeline.plan.rates import Rates


class Planned(NamedTuple):
    """What was found."""

    heading: str
    """the dataset and its size"""
    tables: list[Table]
    """of stages, and of files that are fetched"""
    remarks: list[str]
    """what is too little here, and what the figures stand on"""
    faults: list[str]
    """files that are nowhere, and the keys that take a path"""


def plan(params: Parameters, layout: Layout, asked: bool = True) -> Planned:
    """Return what the stages of a dataset will take on this machine; rates that are not known yet are measured.

    Args:
        layout: of the dataset; stages that have run say how large it is.
        asked: whether addresses are asked; files of this machine are looked at in any case.

    Raises:
        UserError: a path or an address is none.
    """
    named = addresses.named(params, layout.dataset)
    answers = addresses.ask(named if asked else {key: own for key, own in named.items() if local(own[0])})
    faults, files = list(addresses.advice(answers)), [_files(answers)] if answers else []
    try:
        found = size.measure(params, layout)
    except UserError as e:
        return Planned(layout.dataset, files, [], list(dict.fromkeys([*faults, str(e)])))
    from pipeline.plan import estimate, rates  # load torch

    known = rates.measured(params[Pretrain].size, params[Benchmark].models)
    raw = sum(answer.size or 0 for answer in answers if answer.key.startswith("sources."))
    taken = estimate.stages(estimate.Plan(params, layout.dataset, found, known, raw))
    remarks = list(_remarks(taken, layout.root, known, rates.kept()))
    return Planned(f"{layout.dataset}: {found}", [_stages(taken), *files], remarks, faults)


def _stages(taken: Mapping[str, Estimate]) -> Table:
    """Return a row a stage, and their sum: time and disk add up, memory does not."""
    rows = [[stage, duration(of.seconds), amount(of.memory), amount(of.disk), of.basis] for stage, of in taken.items()]
    all_seconds, disk = sum(of.seconds for of in taken.values()), sum(of.disk for of in taken.values())
    rows.append(["all", duration(all_seconds), amount(max(of.memory for of in taken.values())), amount(disk), ""])
    return Table("Stages", "", ["stage", "time", "memory", "disk", "most of it"], rows)


def _files(answers: Sequence[Answer]) -> Table:
    rows = [
        [a.key, "nowhere" if a.fault else amount(a.size) if a.size is not None else "size unknown", a.address]
        for a in answers
    ]
    return Table("Files to fetch", "", ["key", "bytes", "address"], rows, texts=1)


def _remarks(taken: Mapping[str, Estimate], root: Path, known: Rates, kept: Path) -> Iterator[str]:
    """Yield what is too little on this machine, and what the figures stand on."""
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    disk, free = sum(of.disk for of in taken.values()), shutil.disk_usage(there).free
    if disk > free:
        yield f"too little disk: {amount(disk)} are needed, {amount(free)} are free in {there}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for stage, of in taken.items():
        if of.memory > memory:
            yield f"too little memory for {stage}: {amount(of.memory)} are needed, the machine has {amount(memory)}"
    products = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {precision}" for precision, rate in known.gemm.items())
    yield f"measured here: {products}; kept in {kept}; delete it to measure anew"
    if known.busy:
        yield "the machine was busy as it was measured, so this is too long; it is measured anew once nothing else runs"
    yield (
        "assumed: each item has an image, photos have 18 kB, a training is best at its 40th epoch. DVC links files, "
        "where the file system can, and copies them elsewhere"
    )


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def amount(count: float) -> str:
    """Return bytes in the unit that suits: 12 kB, 3 MB, 1.4 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}" if factor == 1e9 else f"{count / factor:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"
