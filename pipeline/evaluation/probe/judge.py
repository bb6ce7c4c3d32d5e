"""Run every probe on every feature set, raw and processed, and summarise the results and verdicts.

Letters: I items, F and W feature widths, G groups (users or items), n cases, D draws, K cutoff.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.linalg  # noqa: F401  (has a BLAS of its own, which is limited only once it is loaded)
from threadpoolctl import threadpool_limits

from alignrec.pipeline.evaluation.probe import questions
from alignrec.pipeline.evaluation.probe.questions import Questions
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data, Task
from alignrec.pipeline.evaluation.statistics import agreed_verdict, corrected_tests
from alignrec.pipeline.features import profiles
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.runtime import engine, process
from alignrec.schemas import TRAIN, VALID

RAW_FORM = "raw"
# A large common mean dominates every cosine, and full whitening amplifies noise in directions of
# little variance, so validation chooses: form -> exponent of the sd by which directions are divided
# after centring and PCA; None: raw
POWERS = {RAW_FORM: None, "relaxed": 0.5, "whitened": 1.0}
UNCHOSEN = "whitened"  # without validation interactions
VALID_K = 20
CHOSEN_BY = f"content neighbours on valid, recall@{VALID_K}"
TESTED_CUTOFFS = (10, 20)
TESTED = ("difference", "low", "high", "p_holm")  # fields of a test that are recorded
Tasks = Mapping[str, Questions | Task | str]  # probe -> its questions or task, or why it is skipped
SetAnswers = dict[str, np.ndarray]  # probe -> hits [G, len(ks)], or figures of cases [n], of a set
Answers = dict[str, dict[str, np.ndarray]]  # probe -> set -> its answers


def transform_vectors(x: np.ndarray, form: str, width: int) -> np.ndarray:
    """Transform float32 [I, F] to [I, W], where W is at most `width`, or F for RAW_FORM."""
    power = POWERS[form]
    return x if power is None else projections.whiten_rows(x, width, power)


class Processing:
    """Processes feature sets one at a time and records the chosen forms."""

    def __init__(self, data: Data, width: int) -> None:
        """Choose forms by predicting validation items from train items, if there are any.

        `width` is the maximum.
        """
        user, item, split = data.columns("user_id", "item_id", "split")
        has = user[split == TRAIN], item[split == TRAIN]
        finds = user[split == VALID], item[split == VALID]
        users = profiles.draw_users(finds[0], data.items, 0)
        valid = profiles.build_profiles(has, finds, users, data.items)
        self.valid = valid if len(valid.user) else None
        self.width = width
        self.chosen: dict[str, str] = {}  # feature set -> its form
        self.figures: dict[str, dict[str, float]] = {}  # feature set -> form -> valid recall@K

    def process(self, name: str, x: np.ndarray, chooses: bool = True) -> np.ndarray:
        """Return vectors in the best form on validation, the first on ties.

        They are unchanged unless `chooses`.
        """
        if not chooses or self.valid is None:
            self.chosen[name] = UNCHOSEN if chooses else RAW_FORM
            return transform_vectors(x, self.chosen[name], self.width)

        recalls = self.figures.setdefault(name, {})
        best_recall = -1.0
        # at most two forms are in memory: the current one and the best so far
        for form in POWERS:
            vectors = transform_vectors(x, form, self.width)
            recalls[form] = round(float(np.nanmean(self.valid.recalls(vectors, VALID_K))), 6)
            if recalls[form] > best_recall:
                best_recall = recalls[form]
                best = vectors
                self.chosen[name] = form
        return best

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"width": self.width}
        if self.valid:
            facts["chosen_by"] = CHOSEN_BY
        facts["forms"] = {
            name: {"form": form} | self.figures.get(name, {}) for name, form in self.chosen.items()
        }
        return facts


def build_tasks(data: Data) -> dict[str, Questions | Task | str]:
    return {name: probe.ask(data) for name, probe in PROBES.items()}


def answer_sets(
    tasks: Tasks,
    sets: Iterable[tuple[str, np.ndarray]],
    ks: Sequence[int],
    processing: Processing | None = None,
    unprocessed: Collection[str] = (),
) -> tuple[Answers, Answers]:
    """Return raw and processed answers for feature sets, float32 [I, F].

    Each processor takes one set at a time; `unprocessed` sets are judged raw in both forms.
    """
    process.keep_large_buffers()

    def answer(pair: tuple[str, np.ndarray]) -> tuple[str, SetAnswers, SetAnswers]:
        name, features = pair
        raw = _answer_set(tasks, features, ks)
        if processing is None:
            return name, raw, {}

        vectors = processing.process(name, features, name not in unprocessed)
        if processing.chosen[name] == RAW_FORM:
            return name, raw, raw
        return name, raw, _answer_set(tasks, vectors, ks)

    raw: Answers = {probe: {} for probe in tasks}
    processed: Answers = {probe: {} for probe in tasks}
    names = []
    for name, raw_answers, processed_answers in engine.in_threads(answer, sets):
        names.append(name)
        for probe, answers in raw_answers.items():
            raw[probe][name] = answers
        for probe, answers in processed_answers.items():
            processed[probe][name] = answers

    if processing:
        processing.chosen = {name: processing.chosen[name] for name in names}
    return raw, processed


def _answer_set(tasks: Tasks, features: np.ndarray, ks: Sequence[int]) -> SetAnswers:
    answers = {}
    # one pass over the features answers the questions of all probes
    asked = {probe: task for probe, task in tasks.items() if isinstance(task, Questions)}
    if asked:
        joined = questions.join_questions(list(asked.values()))
        hits = questions.hit_rates(features, joined, ks)
        ends = np.cumsum([task.groups for task in asked.values()])
        answers = dict(zip(asked, np.split(hits, ends[:-1]), strict=True))

    for probe, task in tasks.items():
        if not isinstance(task, (Questions, str)):
            answers[probe] = task.answer(features)
    return answers


def summarise_answers(tasks: Tasks, answers: Answers, ks: Sequence[int]) -> dict[str, Any]:
    summaries: dict[str, Any] = {}
    for probe, task in tasks.items():
        entry = PROBES[probe]
        if isinstance(task, str):
            summaries[probe] = {"skipped": task}
            continue

        if isinstance(task, Questions):
            summary = questions.summarise_hits(task, answers[probe], ks, entry.measure)
        else:
            summary = task.summary(answers[probe])
        summaries[probe] = summary
    return summaries


def judge_sets(
    data: Data,
    sets: Iterable[tuple[str, np.ndarray]],
    ks: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    seed: int,
    width: int,
    unprocessed: Collection[str] = (),
) -> tuple[dict[str, Any], Answers]:
    """Return figures raw and processed to `width`, with verdicts on pairs, and raw answers."""
    # sets share the processors, and the number of threads changes the order of sums
    with threadpool_limits(1):
        # release the memory of reading the table, which may be more than the tasks take
        pool = pa.default_memory_pool()
        pool.release_unused()
        tasks = build_tasks(data)
        processing = Processing(data, width)
        del data
        pool.release_unused()

        raw, processed = answer_sets(tasks, sets, ks, processing, unprocessed)
        processed_summary = processing.facts()
        for probe, summary in summarise_answers(tasks, processed, ks).items():
            if "skipped" not in summary:
                processed_summary[probe] = summary
        judged = {
            "probes": summarise_answers(tasks, raw, ks),
            "processed": processed_summary,
            "verdicts": paired_verdicts(raw, processed, pairs, ks, seed),
        }
    return judged, raw


def paired_verdicts(
    raw: Answers,
    processed: Answers,
    pairs: Iterable[tuple[str, str]],
    ks: Sequence[int],
    seed: int,
) -> list[dict[str, Any]]:
    """Return a row per pair, probe and measure: tests of a - b, raw and processed, and the verdict.

    All tests are corrected together; pairs without answers to a probe are left out.
    """
    cutoffs = [k for k in TESTED_CUTOFFS if k in ks] or [headline_cutoff(ks)]
    rows: list[dict[str, Any]] = []
    tests = []
    for a, b in pairs:
        for probe, raw_answers in raw.items():
            if not {a, b} <= raw_answers.keys():
                continue

            forms = raw_answers, processed[probe]
            figures_of_a = [figures_of_cases(probe, form[a], cutoffs, ks) for form in forms]
            figures_of_b = [figures_of_cases(probe, form[b], cutoffs, ks) for form in forms]
            for measure in figures_of_a[0]:
                rows.append({"probe": probe, "measure": measure, "a": a, "b": b})
                for of_a, of_b in zip(figures_of_a, figures_of_b, strict=True):
                    tests.append((measure, a, b, of_a[measure], of_b[measure]))

    results = corrected_tests(tests, seed)
    for row, raw_test, processed_test in zip(rows, results[::2], results[1::2], strict=True):
        row["raw"] = {key: round(raw_test[key], 6) for key in TESTED}
        row["processed"] = {key: round(processed_test[key], 6) for key in TESTED}
        row["verdict"] = agreed_verdict([raw_test, processed_test])
    return rows


def figures_of_cases(
    probe: str, answers: np.ndarray, cutoffs: Sequence[int], ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return measure -> float64 [n], or [n, D] of a probe with draws, for one set."""
    entry = PROBES[probe]
    if entry.drawn or answers.ndim == 1:
        return {entry.figure: answers}
    return {f"{entry.measure}@{k}": answers[:, list(ks).index(k)] for k in cutoffs}
