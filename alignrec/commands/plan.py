"""`alignrec plan`: estimated time, memory, disk and downloads of each stage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from alignrec.commands import networks
from alignrec.commands.arguments import PARAMS, ROOT, OneOrAll, ParamsFile, Root
from alignrec.commands.params import load, read
from alignrec.commands.terminal import say, show
from alignrec.pipeline.beit3.params import Pretrain, split_pin
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.report.terminal import TerminalTable
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources import download
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.download import Answer
from alignrec.pipeline.web.download import local_path
from alignrec.stages.checks import check_catalogue

if TYPE_CHECKING:
    from alignrec.commands.workload import Workload


def plan(
    dataset: OneOrAll = None,
    params: ParamsFile = PARAMS,
    root: Root = ROOT,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="ask whether the addresses answer")
    ] = True,
) -> None:
    """estimate hours, memory, disk and downloads of each stage. Exit code 1 if a file cannot be
    found.
    """
    faults = []
    for name in [dataset] if dataset else read(params).datasets:
        faults += show_plan(load(params, name), Layout(root, name), ask)
    if faults:
        raise typer.Exit(1)


def show_plan(params: Parameters, layout: Layout, ask: bool) -> list[str]:
    """Print the estimates of a dataset and return its errors; without `ask` only local files are
    looked up.
    """
    addresses = list_addresses(params, layout.dataset)
    if not ask:
        addresses = {key: address for key, address in addresses.items() if local_path(address)}
    questions = networks.list_questions(params) if ask else []
    of_models = f" and {len(questions)} models" if questions else ""
    asking = f"asking for {len(addresses)} files{of_models}, at most {download.WAIT_SECONDS:g} s"
    say(f"{layout.dataset}: {asking}; timing a matrix product", err=True)

    # load torch while waiting for servers
    wait_for_answers = download.ask_for_files(addresses)
    wait_for_models = download.ask_in_background(questions, download.WAIT_SECONDS)
    from alignrec.commands import machine
    from alignrec.commands.size import read_size
    from alignrec.commands.workload import Workload

    size = None
    faults = []
    try:
        size = read_size(params, layout)
        check_catalogue(params, size.items)
    except UserError as e:
        faults.append(str(e))
    answers = [*wait_for_answers(), *wait_for_models()]
    faults[:0] = list_faults(answers)

    say(f"{layout.dataset}: {size}" if size else layout.dataset)
    if size:
        raw = sum(answer.size or 0 for answer in answers if answer.key.startswith("sources."))
        speed = machine.measure_machine()
        on_hub = {answer.key: answer.parameters for answer in answers if answer.parameters}
        work = Workload(params, layout.dataset, size, speed.gemm, raw, on_hub)
        show_estimates(layout, work)
        say(str(speed))
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


def list_faults(answers: list[Answer]) -> list[str]:
    """Return a message for each reason why files were not found, with the paths to give."""
    keys_by_fault: dict[str, list[str]] = {}
    for answer in answers:
        if answer.fault:
            keys_by_fault.setdefault(answer.fault, []).append(answer.key)

    faults = []
    for fault, keys in keys_by_fault.items():
        paths = ", ".join(f"{key}: PATH" for key in keys)
        some = "a path" if len(keys) == 1 else "paths"
        faults.append(f"{fault}; give {some} of this machine: {paths}")
    return faults


def show_files(answers: list[Answer]) -> None:
    rows = []
    for answer in answers:
        size = "not found" if answer.fault else format_bytes(answer.size)
        rows.append([answer.key, size, answer.address])
    table = Table("Files to fetch", "", ["key", "bytes", "address"], rows, texts=1)
    show(TerminalTable(table, unbroken=[0]))


def show_estimates(layout: Layout, work: Workload) -> None:
    from alignrec.commands import estimate

    stages = estimate.estimate_stages(work)
    total = estimate.add_up(stages.values())
    rows = []
    for name, cost in [*stages.items(), ("all", total)]:
        memory, disk = format_bytes(cost.memory), format_bytes(cost.disk)
        rows.append([name, format_duration(cost.seconds), memory, disk, cost.basis])
    table = Table("Stages", "", ["stage", "time", "memory", "disk", "most of it"], rows)
    show(TerminalTable(table, unbroken=[0]))

    warn_of_disk(layout.root, total.disk)
    for name, cost in stages.items():
        warn_of_memory(name, cost.memory)
    say(
        "assumed: an image of 18 kB per item, training best at its 40th epoch; "
        "DVC copies what it cannot link"
    )


def warn_of_disk(root: Path, needed: float) -> None:
    folder = root.absolute()
    while not folder.exists():
        folder = folder.parent

    free = shutil.disk_usage(folder).free
    if needed > free:
        say(
            f"too little disk: {format_bytes(needed)} are needed, "
            f"{format_bytes(free)} are free in {folder}"
        )


def warn_of_memory(stage: str, needed: float) -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed:
        say(
            f"too little memory for {stage}: "
            f"{format_bytes(needed)} are needed, the machine has {format_bytes(installed)}"
        )


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def format_bytes(count: float | None) -> str:
    return "size unknown" if count is None else decimal(int(count))
