"""All probes of registry.py asked of all feature sets: their answers, the figures of those, and verdicts on pairs.

F feature width, K cutoff.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.combine import mapped
from alignrec.pipeline.combine.names import can_refit, learns_from_train
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.probe import forms, questions, verdicts
from alignrec.pipeline.probe.base import Data, Relearned, Task
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.questions import Questions
from alignrec.pipeline.probe.registry import PROBES

Asked = Mapping[str, Questions | Task | str]  # probe -> its questions or task, or why it has none
Answers = Mapping[str, Mapping[str, np.ndarray]]
"""probe -> feature set -> hits [G, len(ks)] of its groups, or of a task the figure of each case, [n]"""


def ask(data: Data) -> dict[str, Questions | Task | str]:
    return {name: probe.ask(data) for name, probe in PROBES.items()}


def answers(
    probes: Asked,
    sets: Iterable[tuple[str, np.ndarray]],
    ks: Sequence[int],
    relearned: Mapping[str, Relearned | None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the answers of feature sets, float32 [I, F]; one is held at a time.

    A set that cannot be refitted, see `Data.relearned`, has no answer where a probe hides items.
    """
    learned = relearned or {}
    answers: dict[str, dict[str, np.ndarray]] = {probe: {} for probe in probes}
    asked = {probe: question for probe, question in probes.items() if isinstance(question, Questions)}
    together = questions.join(list(asked.values())) if asked else None
    ends = np.cumsum([question.groups for question in asked.values()])
    for name, features in sets:
        if together is not None:
            parts = np.split(questions.hits(features, together, ks), ends[:-1])
            for probe, part in zip(asked, parts, strict=True):
                answers[probe][name] = part
        for probe, task in probes.items():
            if not isinstance(task, (Questions, str)) and name not in _skipped_sets(probe, learned):
                answers[probe][name] = task.answer(features, learned.get(name))
    return answers


def _skipped_sets(probe: str, relearned: Mapping[str, Relearned | None]) -> dict[str, str]:
    """Return the feature sets that know what a probe hides and cannot be refitted without it -> why."""
    reason = "it learned from interactions with the items that are cold here, and cannot be made without them"
    return {name: reason for name, make in relearned.items() if make is None and PROBES[probe].drawn}


def summaries(
    probes: Asked, answers: Answers, ks: Sequence[int], relearned: Mapping[str, Relearned | None] | None = None
) -> dict[str, Any]:
    """Return probe -> feature set -> figures, see `questions.summary`.

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


def processed(probes: Asked, answers: Answers, ks: Sequence[int], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return `facts` of the processing, and the figures of each probe that was measured; see `summaries`."""
    return {**facts} | {p: s for p, s in summaries(probes, answers, ks).items() if "skipped" not in s}


def judge_sets(run: Run, data: Data, names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    params, layout, learned = run.params[Probe], run.layout, data.relearned
    probes, processing = ask(data), forms.Processing(forms.ask(data), params.width)

    def shown(sets: Iterable[tuple[str, np.ndarray]]) -> Iterable[tuple[str, np.ndarray]]:
        return run.progress(sets, total=len(names), unit="set")

    raw = answers(probes, shown(_read_sets(layout, names)), params.ks, learned)
    sets = shown(processing.sets(_read_sets(layout, names)))
    chosen = answers(probes, sets, params.ks, processing.relearned(learned))
    return summaries(probes, raw, params.ks, learned) | {
        "processed": processed(probes, chosen, params.ks, processing.facts()),
        "verdicts": verdicts.verdicts(raw, chosen, pairs, params.ks, run.seed("verdicts")),
        "learned": sorted(learned),
    }


def _read_sets(layout: Layout, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, io.map_features(layout.features(name))


def relearned(run: Run, names: Sequence[str]) -> dict[str, Relearned | None]:
    """Return feature set that learned from interactions -> what refits it without cold items; None: it cannot be."""
    params, again = run.params, partial(mapped.refit_mapped, run.layout)
    learned = [name for name in names if learns_from_train(params, run.dataset, name)]
    return {name: partial(again, name) if can_refit(params, run.dataset, name) else None for name in learned}
