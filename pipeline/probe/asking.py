"""All probes of registry.py asked of all feature sets: their answers, and the figures of those.

F feature width, K cutoff.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import schemas
from pipeline import io
from pipeline.layout import Layout
from pipeline.probe import questions
from pipeline.probe.base import Data, Relearned, Task
from pipeline.probe.questions import Questions
from pipeline.probe.registry import PROBES


def ask(data: Data, names: Iterable[str] = PROBES) -> dict[str, Questions | Task | str]:
    """Return the questions or task of each probe named, or why it has none."""
    return {name: PROBES[name].ask(data) for name in names}


def neighbours(layout: Layout, names: Iterable[str] = PROBES) -> dict[str, Questions]:
    """Return those of the probes named that ask a dataset for neighbours; tasks do not, and some have no question."""
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    asked = ask(Data(interactions, len(io.read_table(layout.item_ids, schemas.ITEM_IDS))), names)
    return {name: probe for name, probe in asked.items() if isinstance(probe, Questions)}


def answers(
    probes: Mapping[str, Questions | Task | str],
    sets: Iterable[tuple[str, np.ndarray]],
    ks: Sequence[int],
    relearned: Mapping[str, Relearned | None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return probe -> feature set -> hits [G, len(ks)] of its groups, or of a task the figure of each case, [n].

    Args:
        probes: see `ask`.
        sets: name and float32 [I, F] of each feature set; one is held at a time.
        relearned: see `Data.relearned`; a set that cannot be refitted has no answer where a probe hides items.
    """
    learned = relearned or {}
    answers: dict[str, dict[str, np.ndarray]] = {probe: {} for probe in probes}
    asked = {probe: question for probe, question in probes.items() if isinstance(question, Questions)}
    whole = questions.joined(list(asked.values())) if asked else None
    ends = np.cumsum([question.groups for question in asked.values()])
    for name, features in sets:
        if whole is not None:
            parts = np.split(questions.hits(features, whole, ks), ends[:-1])
            for probe, part in zip(asked, parts, strict=True):
                answers[probe][name] = part
        for probe, task in probes.items():
            if not isinstance(task, (Questions, str)) and name not in _skipped_sets(probe, learned):
                answers[probe][name] = task.answer(features, learned.get(name))
    return answers


def _skipped_sets(probe: str, relearned: Mapping[str, Relearned | None]) -> dict[str, str]:
    """Return the feature sets that know what a probe hides and cannot be refitted without it -> why."""
    reason = "it learned from interactions with the items that are cold here, and cannot be made without them"
    return {name: reason for name, make in relearned.items() if make is None and PROBES[probe].hides_items}


def summaries(
    probes: Mapping[str, Questions | Task | str],
    answers: Mapping[str, Mapping[str, np.ndarray]],
    ks: Sequence[int],
    relearned: Mapping[str, Relearned | None] | None = None,
) -> dict[str, Any]:
    """Return probe -> feature set -> figures (see `summary`); arguments as for `answers`.

    A probe without questions is `{"skipped": reason}`, and so is a feature set that cannot be asked. The note of a
    probe names the sets that it flatters, see `Probe.leak`.
    """
    out: dict[str, Any] = {}
    for probe, task in probes.items():
        if isinstance(task, str):
            out[probe] = {"skipped": task}
            continue
        if isinstance(task, Questions):
            out[probe] = questions.summary(task, answers[probe], ks, PROBES[probe].measure)
        else:
            out[probe] = task.summary(answers[probe])
        if relearned and PROBES[probe].leak:
            leak = f"Leak: of {', '.join(sorted(relearned))}, {PROBES[probe].leak}."
            out[probe]["note"] = f"{out[probe].get('note', '')} {leak}".strip()
        out[probe] |= {name: {"skipped": reason} for name, reason in _skipped_sets(probe, relearned or {}).items()}
    return out


def processed(
    probes: Mapping[str, Questions | Task | str],
    answers: Mapping[str, Mapping[str, np.ndarray]],
    ks: Sequence[int],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `facts` of the processing, and the figures of each probe that was measured; see `summaries`."""
    return {**facts} | {p: s for p, s in summaries(probes, answers, ks).items() if "skipped" not in s}
