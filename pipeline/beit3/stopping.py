"""When pre-training ends, and the learning rate until then.

With a patience, `steps` is a budget: the rate stays at its peak until neither held-out loss falls,
and then itself falls to 0 within a fifth of all steps. Everything follows from settings and the
history, never from time, so that a resumed run ends as an undisturbed one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignrec.pipeline.beit3.params import Pretrain

TASKS = ("mim", "mlm")
WARMUP_SHARE = 0.1  # share of `steps` with a rising learning rate
# share of all steps with a falling rate after a constant one, as good as a cosine over all of them
# (arXiv 2405.18392)
FALLING_SHARE = 0.2
MIN_FALL = 0.005  # share of the lowest loss by which a loss has to fall below it
MIN_Z = 2.0  # standard errors by which an accuracy has to exceed chance


class Ending(NamedTuple):
    """The steps of a run, as far as its history tells."""

    rising: int  # steps with a rising rate
    falling_from: int  # first step with a falling rate
    last: int  # number of steps
    stalled: bool  # whether neither held-out loss fell any longer within the budget


def plan_ending(history: Sequence[Mapping[str, Any]], steps: int, patience: int) -> Ending:
    """Return how a run of at most `steps` steps ends; `patience` is counted in measurements.

    A patience of 0 trains for `steps` steps, with a cosine after the warm-up.
    """
    rising = max(1, round(WARMUP_SHARE * steps))
    if not patience:
        return Ending(rising, rising, steps, stalled=False)

    latest = math.floor((1 - FALLING_SHARE) * steps)
    stall = _find_stall(history, patience)
    if stall is None or stall >= latest:
        return Ending(rising, latest, steps, stalled=False)
    falling_steps = math.ceil(stall * FALLING_SHARE / (1 - FALLING_SHARE))
    return Ending(rising, stall, min(steps, stall + falling_steps), stalled=True)


def _find_stall(history: Sequence[Mapping[str, Any]], patience: int) -> int | None:
    """Return the first step at which no loss fell for `patience` measurements."""
    lowest: dict[str, float] = {}
    waited = 0
    for entry in history:
        losses = {task: entry.get(f"{task}_held_out_loss") for task in TASKS}
        measured = {task: loss for task, loss in losses.items() if loss is not None}
        fell = False
        for task, loss in measured.items():
            if loss < (1 - MIN_FALL) * lowest.get(task, math.inf):
                lowest[task] = loss
                fell = True

        # without held-out targets nothing tells whether the losses fall
        waited = 0 if fell or not measured else waited + 1
        if waited == patience:
            return int(entry["step"])
    return None


def learning_rate(step: int, ending: Ending, peak: float) -> float:
    """Return the rate of a step: linear up to `peak`, constant, then a cosine down to 0."""
    if step < ending.rising:
        return peak * (step + 1) / ending.rising
    if step < ending.falling_from:
        return peak
    falling_steps = max(1, ending.last - ending.falling_from)
    cosine = math.cos(math.pi * (step - ending.falling_from) / falling_steps)
    return peak * 0.5 * (1 + cosine)


def describe_ending(history: Sequence[Mapping[str, Any]], params: Pretrain) -> str:
    """Return why a run ended, for its record."""
    if not params.patience:
        return f"after pretrain.steps, {params.steps}"
    ending = plan_ending(history, params.steps, params.patience)
    if ending.stalled:
        return (
            f"neither held-out loss fell in {params.patience} measurements up to step "
            f"{ending.falling_from}; the rate fell until step {ending.last}"
        )
    return (
        f"the budget pretrain.steps, {params.steps}, was spent before both losses stopped falling"
    )


def list_at_chance(figures: Mapping[str, Any]) -> list[str]:
    """Return which of MIM and MLM were measured on held-out items, without beating chance.

    Chance is to predict the most frequent token of train items always. To beat it takes MIN_Z
    standard errors over items. `figures` are an entry of the history, or notes of the run's record.
    """
    names = []
    for task in TASKS:
        accuracy, chance = figures.get(f"{task}_accuracy"), figures.get(f"{task}_chance")
        if accuracy is None or chance is None:
            continue
        error = figures.get(f"{task}_margin_se")
        if error is None or accuracy - chance <= MIN_Z * error:
            names.append(task.upper())
    return names
