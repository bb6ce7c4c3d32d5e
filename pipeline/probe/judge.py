"""Run every probe on every feature set, raw and processed, and summarise the results and verdicts.

Letters: I items, F and W feature widths, G groups (users or items), n cases, D draws, K cutoff.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.linalg  # noqa: F401  (has a BLAS of its own, which is limited only once it is loaded)
from threadpoolctl import threadpool_limits

from alignrec.pipeline.dataset import profiles
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.statistics import agreed_verdict, corrected_tests
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.probe import questions
from alignrec.pipeline.probe.questions import Questions
from alignrec.pipeline.probe.registry import PROBES, Data, Refit, Task
from alignrec.pipeline.runtime import engine
from alignrec.schemas import TRAIN, VALID

RAW = "raw"
# A large common mean dominates every cosine, and full whitening amplifies noise in directions of
# little variance, so validation chooses: form -> exponent of the sd by which directions are divided
# after centring and PCA; None: raw
POWERS = {RAW: None, "relaxed": 0.5, "whitened": 1.0}
UNCHOSEN = "whitened"  # without validation interactions
VALID_K = 20
CHOSEN_BY = f"content neighbours on valid, recall@{VALID_K}"
CUTOFFS = (10, 20)
TESTED = ("difference", "low", "high", "p_holm")  # fields of a test that are recorded
Tasks = Mapping[str, Questions | Task | str]  # probe -> its questions or task, or why it is skipped
Refits = Mapping[str, Refit | None]  # as `Data.refits`
Answers = dict[
    str, dict[str, np.ndarray]
]  # probe -> set -> hits [G, len(ks)], or figures of cases [n]


def transform_vectors(x: np.ndarray, form: str, width: int) -> np.ndarray:
    """Transform float32 [I, F] to [I, W], where W is at most `width`, or F for RAW."""
    power = POWERS[form]
    return x if power is None else projections.whiten_rows(x, width, power)


class Processing:
    """Processes feature sets one at a time and records the chosen forms."""

    def __init__(self, data: Data, width: int) -> None:
        """Choose forms by predicting validation items from train items, if there are any.

        `width` is the maximum.
        """
        user, item, split = (
            data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split")
        )
        has, finds = ((user[split == part], item[split == part]) for part in (TRAIN, VALID))
        asked = profiles.build_profiles(
            has, finds, profiles.draw_users(finds[0], data.items, 0), data.items
        )
        self.valid, self.width = asked if len(asked.user) else None, width
        self.chosen: dict[str, str] = {}  # feature set -> its form
        self.figures: dict[str, dict[str, float]] = {}  # feature set -> form -> valid recall@K

    def process(self, name: str, x: np.ndarray, chooses: bool = True) -> np.ndarray:
        """Return vectors in the best form on validation, the first on ties.

        Unchanged unless `chooses`.
        """
        if not chooses or self.valid is None:
            self.chosen[name] = UNCHOSEN if chooses else RAW
            return transform_vectors(x, self.chosen[name], self.width)
        measured = self.figures.setdefault(name, {})
        # at most two forms are in memory: the current one and the best so far
        for form in POWERS:
            vectors = transform_vectors(x, form, self.width)
            measured[form] = round(float(np.nanmean(self.valid.recalls(vectors, VALID_K))), 6)
            if measured[form] > max((v for k, v in measured.items() if k != form), default=-1.0):
                self.chosen[name], best = form, vectors
        return best

    def refit(self, name: str, refit: Refit | None) -> Refit | None:
        return refit and (
            lambda cold: transform_vectors(refit(cold), self.chosen[name], self.width)
        )

    def facts(self) -> dict[str, Any]:
        by = {"chosen_by": CHOSEN_BY} if self.valid else {}
        forms = {
            name: {"form": form} | self.figures.get(name, {}) for name, form in self.chosen.items()
        }
        return {"width": self.width, **by, "forms": forms}


def build_tasks(data: Data) -> dict[str, Questions | Task | str]:
    return {name: probe.ask(data) for name, probe in PROBES.items()}


def answer_sets(
    tasks: Tasks, sets: Iterable[tuple[str, np.ndarray]], ks: Sequence[int], refits: Refits | None = None,
    processing: Processing | None = None, unprocessed: Collection[str] = (),
) -> tuple[Answers, Answers]:  # fmt: skip
    """Return raw and processed answers for feature sets, float32 [I, F]; each processor takes one at a time.

    Sets that cannot be refitted are skipped by probes that hide items; `unprocessed` sets are judged raw in both forms.
    """
    refits = refits or {}

    def answer(
        pair: tuple[str, np.ndarray],
    ) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
        name, features = pair
        refit, cannot = refits.get(name), name in refits and refits[name] is None
        asked = {
            probe: task for probe, task in tasks.items() if not (cannot and PROBES[probe].drawn)
        }
        found = _answer_set(asked, features, ks, refit)
        if processing is None:
            return name, found, {}
        vectors = processing.process(name, features, name not in unprocessed)
        is_raw = processing.chosen[name] == RAW
        return (
            name,
            found,
            found if is_raw else _answer_set(asked, vectors, ks, processing.refit(name, refit)),
        )

    found = [*engine.in_threads(answer, sets)]
    if processing:
        processing.chosen = {
            name: processing.chosen[name] for name, *_ in found
        }  # in the order of the sets
    raw, processed = (
        {
            probe: {name: of[form][probe] for name, *of in found if probe in of[form]}
            for probe in tasks
        }
        for form in (0, 1)
    )
    return raw, processed


def _answer_set(
    tasks: Tasks, features: np.ndarray, ks: Sequence[int], refit: Refit | None
) -> dict[str, np.ndarray]:
    asked = {probe: task for probe, task in tasks.items() if isinstance(task, Questions)}
    found = {}
    # one pass over the features answers the questions of all probes
    if asked:
        ends = np.cumsum([question.groups for question in asked.values()])
        hits = questions.hit_rates(features, questions.join_questions(list(asked.values())), ks)
        found = dict(zip(asked, np.split(hits, ends[:-1]), strict=True))
    for probe, task in tasks.items():
        if not isinstance(task, (Questions, str)):
            found[probe] = task.answer(features, refit)
    return found


def summarise_answers(
    tasks: Tasks, answers: Answers, ks: Sequence[int], refits: Refits | None = None
) -> dict[str, Any]:
    reason = "it learned from interactions with the items that are cold here, and cannot be made without them"
    skipped = {name: {"skipped": reason} for name, refit in (refits or {}).items() if refit is None}
    summaries: dict[str, Any] = {}
    for probe, task in tasks.items():
        if isinstance(task, str):
            summaries[probe] = {"skipped": task}
            continue
        if isinstance(task, Questions):
            own = questions.summarise_hits(task, answers[probe], ks, PROBES[probe].measure)
        else:
            own = task.summary(answers[probe])
        # name the sets whose figures the probe inflates
        if refits and PROBES[probe].leak:
            leak = f"Leak: of {', '.join(sorted(refits))}, {PROBES[probe].leak}."
            own["note"] = f"{own.get('note', '')} {leak}".strip()
        summaries[probe] = own | (skipped if PROBES[probe].drawn else {})
    return summaries


def judge_sets(
    data: Data, sets: Iterable[tuple[str, np.ndarray]], ks: Sequence[int], pairs: Sequence[tuple[str, str]],
    seed: int, width: int, unprocessed: Collection[str] = (),
) -> tuple[dict[str, Any], Answers]:  # fmt: skip
    """Return figures raw and processed to `width`, with verdicts on pairs of sets, and raw answers."""
    with threadpool_limits(
        1
    ):  # sets share the processors, and the number of threads changes the order of sums
        # of reading the table, which may take more memory than the tasks
        pa.default_memory_pool().release_unused()
        tasks, processing, refits = build_tasks(data), Processing(data, width), data.refits
        del data
        pa.default_memory_pool().release_unused()
        raw, processed = answer_sets(tasks, sets, ks, refits, processing, unprocessed)
        shown = {
            probe: of
            for probe, of in summarise_answers(tasks, processed, ks).items()
            if "skipped" not in of
        }
        judged = {
            "probes": summarise_answers(tasks, raw, ks, refits),
            "processed": processing.facts() | shown,
            "verdicts": paired_verdicts(raw, processed, pairs, ks, seed),
        }
    return judged, raw


def paired_verdicts(
    raw: Answers, processed: Answers, pairs: Iterable[tuple[str, str]], ks: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Return a row per pair, probe and measure: tests of a - b, raw and processed, and the verdict on a.

    All tests are corrected together; pairs without answers to a probe are left out.
    """
    rows, tests = list[dict[str, Any]](), []
    cutoffs = [k for k in CUTOFFS if k in ks] or [headline_cutoff(ks)]
    for a, b in pairs:
        for probe in (name for name, sets in raw.items() if {a, b} <= sets.keys()):
            sides = [of[probe][name] for of in (raw, processed) for name in (a, b)]
            found = [figures_of_cases(probe, answers, cutoffs, ks) for answers in sides]
            for measure in found[0]:
                rows.append({"probe": probe, "measure": measure, "a": a, "b": b})
                raw_a, raw_b, processed_a, processed_b = (figures[measure] for figures in found)
                tests += [(measure, a, b, raw_a, raw_b), (measure, a, b, processed_a, processed_b)]
    results = corrected_tests(tests, seed)
    for row, *both in zip(rows, results[::2], results[1::2], strict=True):
        for form, test in zip(("raw", "processed"), both, strict=True):
            row[form] = {key: round(test[key], 6) for key in TESTED}
        row["verdict"] = agreed_verdict(both)
    return rows


def figures_of_cases(
    probe: str, answers: np.ndarray, cutoffs: Sequence[int], ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return measure -> float64 [n], or [n, D] of a probe with draws, from the answers for one set."""
    entry = PROBES[probe]
    if entry.drawn or answers.ndim == 1:
        return {entry.figure: answers}
    return {f"{entry.measure}@{k}": answers[:, list(ks).index(k)] for k in cutoffs}
