"""`alignrec plan`: hours, memory, disk and downloads of each stage, before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.facts.table import Table
from pipeline.http.fetch import local
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.plan import addresses, size
from pipeline.plan.addresses import Answer
from pipeline.sources.base import Downloaded

if TYPE_CHECKING:
    from pipeline.plan.estimate import Estimate


BUSY = 0.7
"""running programs per core, above which others slow the measurement down"""


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
    """Return what the stages of a dataset will take on this machine, scaled by what they took here before.

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
    from pipeline.features.registry import feature_sets
    from pipeline.ops.device import gemm_rate  # loads torch
    from pipeline.plan import estimate, past

    raw = sum(answer.size or 0 for answer in answers if answer.key.startswith("sources."))
    gemm, sets = gemm_rate("float32"), feature_sets(params, layout.dataset)
    remote, ran = is_remote(params, layout.dataset), past.runs(params, layout, gemm)
    taken = estimate.stages(estimate.Plan(params, found, sets, gemm, remote, raw), ran)
    scaling = [stage for stage in taken if stage not in estimate.UNSCALED]
    remarks = [*_remarks(taken, layout.root), *_grounds(scaling, ran, gemm)]
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


def is_remote(params: Parameters, dataset: str) -> bool:
    """Return whether images come from a host."""
    own = params[Images]
    return isinstance(params.source(dataset), Downloaded) and not (own.folder or own.pattern)


def _remarks(taken: Mapping[str, Estimate], root: Path) -> Iterator[str]:
    """Yield what is too little on this machine."""
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    disk, free = sum(of.disk for of in taken.values()), shutil.disk_usage(there).free
    if disk > free:
        yield f"too little disk: {amount(disk)} are needed, {amount(free)} are free in {there}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for stage, of in taken.items():
        if of.memory > memory:
            yield f"too little memory for {stage}: {amount(of.memory)} are needed, the machine has {amount(memory)}"


def _grounds(stages: Sequence[str], ran: Collection[str], gemm: float) -> Iterator[str]:
    """Yield what the figures stand on."""
    if scaled := [stage for stage in stages if stage in ran]:
        yield f"scaled by what ran here, where a resumed stage counts its last part: {', '.join(scaled)}"
    if others := [stage for stage in stages if stage not in ran]:
        busy = (
            ", beside other programs, so this is too long" if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1) else ""
        )
        yield (
            f"computed for {gemm / 1e12:.2f} TFLOP/s, measured now{busy}: {', '.join(others)}; once any dataset, "
            "such as `sample`, has run here, they are scaled by it"
        )
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
