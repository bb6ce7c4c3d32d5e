"""`alignrec plan`: estimated time, memory, disk and downloads of each stage."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from alignrec.commands.arguments import PARAMS, ROOT, OneOrAll, ParamsFile, Root
from alignrec.commands.params import load, read
from alignrec.commands.terminal import say, show
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.checks.catalogue import check_catalogue
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.terminal import TerminalTable
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources import download
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.web.download import local_path

if TYPE_CHECKING:
    from alignrec.commands.estimate import Plan


def plan(
    dataset: OneOrAll = None,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="ask whether the addresses answer")
    ] = True,
) -> None:
    """estimate hours, memory, disk and downloads of each stage. Exit code 1 if a file cannot be found."""
    faults = []
    for name in [dataset] if dataset else read(params).datasets:
        faults += show_plan(load(params, name), Layout(root, name), ask)
    if faults:
        raise typer.Exit(1)


def show_plan(params: Parameters, layout: Layout, ask: bool) -> list[str]:
    """Print the estimates of a dataset and return its errors; without `ask` only local files are looked up."""
    source, weights = params.source(layout.dataset), params[Pretrain]
    files = source.files() if isinstance(source, Downloaded) else {}
    # parameter -> addresses of its file, the preferred one first
    addresses = {
        download.key_names(layout.dataset, [role]): mirrors for role, mirrors in files.items()
    }
    own = {f"pretrain.{key}": getattr(weights, key) for key in ("init", "tokenizer", "vqkd")}
    addresses |= {key: [address] for key, address in own.items() if address}
    addresses = {
        key: mirrors for key, mirrors in addresses.items() if ask or local_path(mirrors[0])
    }
    waiting = f"asking for {len(addresses)} files, at most {download.WAIT_SECONDS:g} s; timing a matrix product"
    say(f"{layout.dataset}: {waiting}", err=True)

    # load torch while waiting for servers
    wait_for_answers, size, faults = download.ask_for_files(addresses), None, []
    from alignrec.commands import estimate
    from alignrec.pipeline.linalg.device import gemm_rate

    try:
        size = estimate.read_size(params, layout)
        check_catalogue(params, size.items)
    except UserError as e:
        faults.append(str(e))
    answers = wait_for_answers()
    faults = [
        f"{a.key}: {a.fault}; give a path of this machine: {a.key}: PATH"
        for a in answers
        if a.fault
    ] + faults
    say(f"{layout.dataset}: {size}" if size else layout.dataset)
    if size:
        raw = sum(answer.size or 0 for answer in answers if answer.key.startswith("sources."))
        show_estimates(
            layout, estimate.Plan(params, layout.dataset, size, gemm_rate("float32"), raw)
        )
    if answers:
        rows = [
            [a.key, "not found" if a.fault else format_bytes(a.size), a.address] for a in answers
        ]
        show(
            TerminalTable(
                Table("Files to fetch", "", ["key", "bytes", "address"], rows, texts=1),
                unbroken=[0],
            )
        )
    for fault in dict.fromkeys(faults):
        say(f"error: {fault}", err=True)
    return faults


def show_estimates(layout: Layout, planned: Plan) -> None:
    from alignrec.commands import estimate

    taken = estimate.estimate_stages(planned)
    seconds, memory, disk, _ = zip(*taken.values(), strict=True)
    shown = {**taken, "all": estimate.Estimate(sum(seconds), max(memory), sum(disk))}
    rows = [
        [name, format_duration(s), *map(format_bytes, (m, d)), basis]
        for name, (s, m, d, basis) in shown.items()
    ]
    show(
        TerminalTable(
            Table("Stages", "", ["stage", "time", "memory", "disk", "most of it"], rows),
            unbroken=[0],
        )
    )
    there = next(
        folder for folder in (layout.root, *layout.root.absolute().parents) if folder.exists()
    )
    if sum(disk) > (free := shutil.disk_usage(there).free):
        say(
            f"too little disk: {format_bytes(sum(disk))} are needed, {format_bytes(free)} are free in {there}"
        )
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for stage, of in taken.items():
        if of.memory > installed:
            has = format_bytes(installed)
            say(
                f"too little memory for {stage}: {format_bytes(of.memory)} are needed, the machine has {has}"
            )
    say(f"computed for {planned.gemm / 1e12:.2f} TFLOP/s, measured now")
    say(
        "assumed: an image of 18 kB per item, training best at its 40th epoch; DVC copies what it cannot link"
    )


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def format_bytes(count: float | None) -> str:
    return "size unknown" if count is None else decimal(int(count))
