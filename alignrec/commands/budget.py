"""Say how long pre-training of BEiT3 may take, before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from alignrec.commands.arguments import ROOT
from alignrec.commands.params import Params
from alignrec.commands.plan import format_duration
from alignrec.commands.terminal import say
from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate

if TYPE_CHECKING:
    from alignrec.commands.size import Size


def cost_of_beit3(name: str, text: str, asked: bool, size: Size | None = None) -> str:
    """Return a message with the estimated time of `--beit3`, whether it was asked for or not;
    `text` is the parameter file with it.
    """
    params = validate(Params, yaml.safe_load(text))
    message = "BEiT3 is left out, as there is no GPU; --beit3 pre-trains it"
    if asked:
        message = describe_budget(params[Pretrain])
    duration = estimate_beit3(params, name, size)
    return message if duration is None else f"{message}, in about {duration}"


def describe_budget(pretrain: Pretrain) -> str:
    if not pretrain.patience:
        return f"BEiT3 is pre-trained for {pretrain.steps:,} steps"
    return (
        f"BEiT3 is pre-trained for at most {pretrain.steps:,} steps, "
        "fewer if its held-out losses stop falling"
    )


def estimate_beit3(params: Parameters, name: str, size: Size | None = None) -> str | None:
    """Return the time of pre-training all steps and encoding; None for an unknown size."""
    from alignrec.commands import estimate, machine
    from alignrec.commands.size import read_size
    from alignrec.commands.workload import Workload

    try:
        size = size or read_size(params, Layout(ROOT, name))
    except UserError:  # the category has no published size
        return None

    work = Workload(params, name, size, machine.measure_machine().gemm)
    seconds = 0.0
    for estimate_stage in (estimate.estimate_pretrain, estimate.estimate_beit3):
        seconds += estimate_stage(work).seconds + estimate.START_SECONDS
    return format_duration(seconds)


def state_budgets(params: Parameters) -> None:
    """Say how long pre-training takes at most, where the held-out losses decide."""
    pretrain = params[Pretrain]
    if not pretrain.patience or not params[BEiT3Sets].sets:
        return
    for dataset in params.datasets:
        duration = estimate_beit3(params, dataset)
        if duration is not None:
            say(f"{dataset}: {describe_budget(pretrain)}, in about {duration}")
