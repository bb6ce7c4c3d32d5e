"""`alignrec plan`: hours, memory, disk and downloads of each stage, before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from rich.filesize import decimal

from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.http.fetch import local
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.plan import size
from pipeline.pretrain.params import Pretrain
from pipeline.report.table import Table
from pipeline.sources import reachable
from pipeline.sources.base import Downloaded
from pipeline.sources.download import keys

if TYPE_CHECKING:
    from pipeline.plan.estimate import Estimate


class Planned(NamedTuple):
    """A heading, tables of stages and of files, remarks, and files that cannot be found."""

    heading: str
    tables: list[Table]
    remarks: list[str]
    faults: list[str]


def plan(params: Parameters, layout: Layout, ask: bool = True, begin: Callable[[str], object] = print) -> Planned:
    """Estimate the stages of a dataset on this machine.

    With `ask` addresses are asked, local files in any case; `begin` prints a line at once.
    """
    source, images, weights = params.source(layout.dataset), params[Images], params[Pretrain]
    files = source.files() if isinstance(source, Downloaded) else {}
    addresses = {keys(layout.dataset, [role]): mirrors for role, mirrors in files.items()}
    addresses |= {f"pretrain.{key}": [own] for key in ("init", "tokenizer", "vqkd") if (own := getattr(weights, key))}
    addresses = {key: mirrors for key, mirrors in addresses.items() if ask or local(mirrors[0])}
    begin(f"{layout.dataset}: asking for {len(addresses)} files, at most {reachable.WAIT:g} s; timing a matrix product")
    asked, fault = reachable.ask(addresses), ""
    try:
        found = size.measure(params, layout)
    except UserError as e:
        found, fault = None, str(e)
    from pipeline.combine.names import feature_sets
    from pipeline.ops.device import gemm_rate  # loads torch, while addresses are asked
    from pipeline.plan import estimate

    gemm, answers = gemm_rate("float32"), asked()
    faults = [f"{a.key}: {a.fault}; give a path of this machine: {a.key}: PATH" for a in answers if a.fault]
    rows = [[a.key, "not found" if a.fault else _amount(a.size), a.address] for a in answers]
    tables = [Table("Files to fetch", "", ["key", "bytes", "address"], rows, texts=1)] if rows else []
    if found is None:
        return Planned(layout.dataset, tables, [], list(dict.fromkeys([*faults, fault])))
    raw = sum(answer.size or 0 for answer in answers if answer.key.startswith("sources."))
    remote = isinstance(source, Downloaded) and not (images.folder or images.pattern)
    taken = estimate.stages(estimate.Plan(params, found, feature_sets(params, layout.dataset), gemm, remote, raw))
    is_busy = os.getloadavg()[0] > 0.7 * (os.cpu_count() or 1)  # other programs slow the measurement down
    remarks = [
        *_shortages(taken, layout),
        f"computed for {gemm / 1e12:.2f} TFLOP/s, measured now" + " on a busy machine" * is_busy,
        "assumed: an image of 18 kB per item, training best at its 40th epoch; DVC copies what it cannot link",
    ]
    return Planned(f"{layout.dataset}: {found}", [_stages(taken), *tables], remarks, faults)


def _stages(taken: Mapping[str, Estimate]) -> Table:
    rows = [[name, duration(of.seconds), _amount(of.memory), _amount(of.disk), of.basis] for name, of in taken.items()]
    seconds, disk = sum(of.seconds for of in taken.values()), sum(of.disk for of in taken.values())
    rows.append(["all", duration(seconds), _amount(max(of.memory for of in taken.values())), _amount(disk), ""])
    return Table("Stages", "", ["stage", "time", "memory", "disk", "most of it"], rows)


def _shortages(taken: Mapping[str, Estimate], layout: Layout) -> list[str]:
    there = next(folder for folder in (layout.root, *layout.root.absolute().parents) if folder.exists())
    memory, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), shutil.disk_usage(there).free
    disk = sum(of.disk for of in taken.values())
    short = [f"too little disk: {_amount(disk)} are needed, {_amount(free)} are free in {there}"] * (disk > free)
    return short + [
        f"too little memory for {stage}: {_amount(of.memory)} are needed, the machine has {_amount(memory)}"
        for stage, of in taken.items()
        if of.memory > memory
    ]


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _amount(count: float | None) -> str:
    return "size unknown" if count is None else decimal(int(count))
