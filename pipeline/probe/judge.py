"""Run every probe on every feature set, raw and processed, and summarise the results and verdicts.

Letters: I items, F feature width, K cutoff.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.combine import mapped
from alignrec.pipeline.combine.names import LEAKED, MASKED, PLANTED, can_refit, is_ceiling, kind_of, learns_from_train
from alignrec.pipeline.combine.params import Combine
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.probe import forms, questions, verdicts
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.questions import Questions
from alignrec.pipeline.probe.registry import PROBES, Data, Refit, Task

YARDSTICKS = (MASKED, LEAKED, PLANTED, "random", "shuffled", "constant")  # kinds of sets that are not processed
Tasks = Mapping[str, Questions | Task | str]  # probe -> its questions or task, or why it is skipped
Refits = Mapping[str, Refit | None]  # as `Data.refits`
Answers = dict[str, dict[str, np.ndarray]]  # see verdicts.Answers


def build_tasks(data: Data) -> dict[str, Questions | Task | str]:
    return {name: probe.ask(data) for name, probe in PROBES.items()}


def answer_sets(
    tasks: Tasks, sets: Iterable[tuple[str, np.ndarray]], ks: Sequence[int], refits: Refits | None = None,
    processing: forms.Processing | None = None, unprocessed: Collection[str] = (),
) -> tuple[Answers, Answers]:  # fmt: skip
    """Return raw and processed answers for feature sets, float32 [I, F], of which one is in memory at a time.

    Sets that cannot be refitted are skipped by probes that hide items; `unprocessed` sets are judged raw in both forms.
    """
    raw, processed = Answers({probe: {} for probe in tasks}), Answers({probe: {} for probe in tasks})
    refits = refits or {}
    for name, features in sets:
        hidden = _skipped_sets(tasks, {name: refits[name]} if name in refits else {})
        answers = _answer_set(tasks, features, ks, refits.get(name), hidden)
        for probe, answer in answers.items():
            raw[probe][name] = answer
        if processing is None:
            continue
        vectors = processing.process(name, features, name not in unprocessed)
        if processing.chosen[name] != forms.RAW:
            answers = _answer_set(tasks, vectors, ks, processing.refit(name, refits.get(name)), hidden)
        for probe, answer in answers.items():
            processed[probe][name] = answer
    return raw, processed


def _answer_set(
    tasks: Tasks, features: np.ndarray, ks: Sequence[int], refit: Refit | None, hidden: Collection[str]
) -> dict[str, np.ndarray]:
    asked = {probe: task for probe, task in tasks.items() if isinstance(task, Questions)}
    found = {}
    # one pass over the features answers the questions of all probes
    if asked:
        ends = np.cumsum([question.groups for question in asked.values()])
        hits = questions.hit_rates(features, questions.join_questions(list(asked.values())), ks)
        found = dict(zip(asked, np.split(hits, ends[:-1]), strict=True))
    for probe, task in tasks.items():
        if not isinstance(task, (Questions, str)) and probe not in hidden:
            found[probe] = task.answer(features, refit)
    return found


def _skipped_sets(probes: Iterable[str], refits: Refits) -> dict[str, dict[str, Any]]:
    """Return probe -> feature sets that learned from items it hides and cannot be refitted -> reason."""
    reason = "it learned from interactions with the items that are cold here, and cannot be made without them"
    skipped = {name: {"skipped": reason} for name, refit in refits.items() if refit is None}
    return {probe: skipped for probe in probes if skipped and PROBES[probe].drawn}


def summarise_answers(
    tasks: Tasks, answers: verdicts.Answers, ks: Sequence[int], refits: Refits | None = None
) -> dict[str, Any]:
    summaries: dict[str, Any] = {}
    skipped = _skipped_sets(tasks, refits or {})
    for probe, task in tasks.items():
        if isinstance(task, str):
            summaries[probe] = {"skipped": task}
            continue
        if isinstance(task, Questions):
            own = questions.summarise_hits(task, answers[probe], ks, PROBES[probe].measure)
        else:
            own = task.summary(answers[probe])
        # name the sets that the probe flatters
        if refits and PROBES[probe].leak:
            leak = f"Leak: of {', '.join(sorted(refits))}, {PROBES[probe].leak}."
            own["note"] = f"{own.get('note', '')} {leak}".strip()
        summaries[probe] = own | skipped.get(probe, {})
    return summaries


def summarise_processed(
    tasks: Tasks, answers: verdicts.Answers, ks: Sequence[int], processing: forms.Processing
) -> dict[str, Any]:
    figures = {probe: of for probe, of in summarise_answers(tasks, answers, ks).items() if "skipped" not in of}
    return processing.facts() | figures


def judge_sets(run: Run, data: Data, names: Sequence[str], ours: str) -> dict[str, Any]:
    """Return the content of probes.json, with verdicts on `ours` against every other set except ceilings."""
    params, layout = run.params[Probe], run.layout
    tasks, processing = build_tasks(data), forms.Processing(forms.valid_profiles(data), params.width)
    defined = run.params[Combine].sets
    # yardsticks calibrate the figures and do not compete, so their raw form is enough
    unprocessed = [name for name in names if kind_of(defined, name) in YARDSTICKS]
    rivals = [name for name in names if name != ours and not is_ceiling(defined, name)]
    sets = ((name, io.map_features(layout.features(name))) for name in names)
    shown = run.progress(sets, total=len(names), unit="set")
    raw, processed = answer_sets(tasks, shown, params.ks, data.refits, processing, unprocessed)
    pairs = [(ours, name) for name in rivals]
    return summarise_answers(tasks, raw, params.ks, data.refits) | {
        "processed": summarise_processed(tasks, processed, params.ks, processing),
        "verdicts": verdicts.paired_verdicts(raw, processed, pairs, params.ks, run.seed("verdicts")),
        "learned": sorted(data.refits),
    }


def refits_of(run: Run, names: Sequence[str]) -> dict[str, Refit | None]:
    params, refit = run.params, partial(mapped.refit_mapped, run.layout)
    learned = [name for name in names if learns_from_train(params, run.dataset, name)]
    return {name: partial(refit, name) if can_refit(params, run.dataset, name) else None for name in learned}
