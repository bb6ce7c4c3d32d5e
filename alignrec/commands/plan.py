"""`alignrec plan`: what will run, what is missing, and time, memory, disk and downloads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.filesize import decimal

from alignrec.commands.arguments import PARAMS, ROOT, OneOrAll, ParamsFile, Root
from alignrec.commands.params import load, read
from alignrec.commands.terminal import say, show
from alignrec.pipeline.beit3.params import Pretrain, split_pin
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.terminal import TerminalTable
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.process import MIN_IDLE_SHARE, measure_idle_share
from alignrec.pipeline.sources import download
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.download import Answer
from alignrec.stages.checks import check_catalogue
from alignrec.stages.order import STAGES

if TYPE_CHECKING:
    from alignrec.commands.estimate import Estimate

BY_NETWORK = ("download", "images")  # stages that wait for servers


def plan(dataset: OneOrAll = None, params: ParamsFile = PARAMS, root: Root = ROOT) -> None:
    """estimate hours, memory, disk and downloads of each stage. Exit code 1 if a file cannot be
    found.
    """
    faults = []
    for name in [dataset] if dataset else read(params).datasets:
        faults += show_plan(load(params, name), Layout(root, name))
    if faults:
        raise typer.Exit(1)


def show_plan(params: Parameters, layout: Layout) -> list[str]:
    """Print the estimates of a dataset and return its errors."""
    addresses = list_addresses(params, layout.dataset)
    asking = f"asking for {len(addresses)} files, at most {download.WAIT_SECONDS:g} s"
    say(f"{layout.dataset}: {asking}; timing a matrix product", err=True)
    wait_for_answers = download.ask_for_files(addresses)

    size = None
    faults = []
    from alignrec.commands.size import read_size  # load torch while waiting for servers

    try:
        size = read_size(params, layout)
        check_catalogue(params, size.items)
    except UserError as e:
        faults.append(str(e))
    answers = wait_for_answers()
    faults[:0] = list_faults(answers)

    say(f"{layout.dataset}: {size}" if size else layout.dataset)
    if size:
        from alignrec.commands.estimate import estimate_stages

        estimates = estimate_stages(params, layout.dataset, size, measure_rate())
        downloads = sum(answer.size or 0 for answer in answers.values())
        show_estimates(estimates, layout.root, downloads)
    if answers:
        show_files(answers)
    for fault in dict.fromkeys(faults):
        say(f"error: {fault}", err=True)

    return faults


def list_addresses(params: Parameters, dataset: str) -> dict[str, str]:
    """Return parameter -> address of its file."""
    source, pretrain = params.source(dataset), params[Pretrain]
    addresses = {}
    if isinstance(source, Downloaded):
        for role, address in source.files().items():
            addresses[download.key_names(dataset, [role])] = address
    for key in ("init", "tokenizer", "vqkd"):
        address = getattr(pretrain, key)
        if address:
            addresses[f"pretrain.{key}"] = split_pin(address)[0]

    return addresses


def list_faults(answers: Mapping[str, Answer]) -> list[str]:
    """Return a message for each reason why files were not found, with the paths to give."""
    keys_by_fault: dict[str, list[str]] = {}
    for key, answer in answers.items():
        if answer.fault:
            keys_by_fault.setdefault(answer.fault, []).append(f"{key}: PATH")

    faults = []
    for fault, keys in keys_by_fault.items():
        some = "a path" if len(keys) == 1 else "paths"
        faults.append(f"{fault}; give {some} of this machine: {', '.join(keys)}")
    return faults


def measure_rate() -> float:
    """Return the rate of a matrix product, FLOP/s, and say it."""
    from alignrec.pipeline.linalg.device import gemm_rate

    rate = gemm_rate("float32")
    busy = measure_idle_share() < MIN_IDLE_SHARE
    but = ", next to other processes: hours are fewer when the machine is idle" if busy else ""
    say(f"computed for matrix products at {rate / 1e12:.2f} TFLOP/s, measured now{but}")
    return rate


def show_files(answers: Mapping[str, Answer]) -> None:
    rows = []
    for key, answer in answers.items():
        size = "size unknown" if answer.size is None else format_bytes(answer.size)
        rows.append([key, "not found" if answer.fault else size, answer.address])
    table = Table("Files to fetch", "", ["key", "bytes", "address"], rows, texts=1)
    show(TerminalTable(table, unbroken=[0]))


def show_estimates(estimates: Mapping[str, Estimate], root: Path, downloads: float) -> None:
    seconds = sum(cost.seconds for cost in estimates.values())
    memory = max(cost.memory for cost in estimates.values())
    disk = downloads + sum(cost.disk for cost in estimates.values())

    rows = []
    for stage in STAGES:
        cost = estimates.get(stage)
        if cost is None:
            time = "" if stage in BY_NETWORK else "seconds"
            rows.append([stage, time, "", "", ""])
        else:
            rows.append(describe(stage, cost))
    rows.append(["all", format_duration(seconds), format_bytes(memory), format_bytes(disk), ""])
    table = Table("Stages", "", ["stage", "time", "memory", "disk", "most of it"], rows)
    show(TerminalTable(table, unbroken=[0]))

    say(f"{' and '.join(BY_NETWORK)} come on top, as fast as servers are")
    folder = root.absolute()
    while not folder.exists():
        folder = folder.parent
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    warn_of_lack("disk", disk, shutil.disk_usage(folder).free, f"free in {folder}")
    warn_of_lack("memory", memory, installed, "installed")


def describe(stage: str, cost: Estimate) -> list[str]:
    sizes = [format_bytes(count) for count in (cost.memory, cost.disk)]
    return [stage, format_duration(cost.seconds), *sizes, cost.basis]


def warn_of_lack(what: str, needed: float, present: int, where: str) -> None:
    if needed > present:
        needs = f"{format_bytes(needed)} are needed, {format_bytes(present)} are {where}"
        say(f"too little {what}: {needs}")


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def format_bytes(count: float) -> str:
    return decimal(int(count)) if count else ""
