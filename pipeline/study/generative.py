"""Codes judged by use: TIGER on the codes of each method, SASRec on item ids and popularity, by leave-one-out.

Valid chooses a learning rate for each contender and its epoch; test is opened once a run. N test users, K cutoff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import engine, io
from pipeline.benchmark.jobs import TrialResult
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.metrics import judge
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run
from pipeline.seeds import seed_for
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS
from pipeline.sequential import judging
from pipeline.sequential.jobs import NONE, POPULARITY, SASREC, TIGER, Contender, Job, Trained, Trial, read
from pipeline.sequential.loop import CHOSEN_BY
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import Sequences
from pipeline.study.params import Study

PART, TESTS = "generative", "generative_tests"
MODULE = "pipeline.sequential.jobs"
TRIVIAL = Contender(POPULARITY, NONE, NONE)
MEASURED = ("recall", "ndcg")


class Ran(NamedTuple):
    """A training that is done."""

    contender: Contender
    path: Path
    """of its record, beside which its rankings lie if test was opened"""

    @property
    def record(self) -> dict[str, Any]:
        """As `Trained.record`."""
        return dict(io.read_json(self.path))

    @property
    def rankings(self) -> Path:
        """Table rankings(K)."""
        return self.path.with_suffix(".parquet")


def study(run: Run, rules: Protocol) -> list[Path]:
    """Train what has no record yet, write tables GENERATIVE and GENERATIVE_TESTS; return the files of this part.

    Args:
        run: of the stage.
        rules: the benchmark's, whose filter of interactions holds here too.

    Raises:
        UserError: the interactions have no times, codes are absent, or a cutoff is larger than the catalogue.
    """
    layout, own = run.layout, run.params[Study].generative
    tried: list[Ran] = []
    ran: list[Ran] = []
    tests: list[dict[str, Any]] = []
    if own.features:
        sequences = _checked(run)
        trial = Trial(layout, own, judging.protocol(rules, sequences, own.length))
        tried, ran = _trained(run, trial)
        tests = _tests(run.dataset, ran, sequences, trial)
    rows = list(_rows(run.dataset, tried, ran))
    for part, found in ((PART, rows), (TESTS, tests)):
        run.write(pa.Table.from_pylist(found, schemas.STUDY[part]), layout.study(part), schemas.STUDY[part])
    made = [*(one.path for one in [*tried, *ran]), *(one.rankings for one in ran)]
    return [layout.study(PART), layout.study(TESTS), *made]


def contenders(params: Generative, layout: Layout) -> list[Contender]:
    """Return what is trained, the slow ones first; nothing where no feature set is named."""
    tigers = []
    for features in params.features:
        made = [m for m in METHODS if (layout.semantic_ids(features, m) / files.IDS).is_file()]
        tigers += [Contender(TIGER, features, method) for method in params.methods or made or METHODS]
    return [*tigers, Contender(SASREC, NONE, NONE)] if tigers else []


def inputs(layout: Layout, contender: Contender) -> list[Path]:
    """Return the files that the trainings of a contender read."""
    tables = [layout.interactions, layout.users, layout.item_ids]
    if contender.features == NONE:
        return tables
    return [*tables, layout.semantic_ids(contender.features, contender.method) / files.IDS]


def folder(layout: Layout, contender: Contender) -> Path:
    """Return the folder of a contender's runs."""
    return layout.study_runs(PART).joinpath(*contender)


def _checked(run: Run) -> Sequences:
    """Return the sequences; what is left out is counted, what cannot be judged refused."""
    sequences, largest = read(run.layout), max(run.params[Study].generative.ks)
    if largest > sequences.n_items:
        raise UserError(f"'study.generative.ks': {largest} is larger than the catalogue; give smaller ones")
    read_by = [inputs(run.layout, one) for one in contenders(run.params[Study].generative, run.layout)]
    if absent := next((path for paths in read_by for path in paths if not path.is_file()), None):
        raise UserError(f"{absent}: not there; run `alignrec semantic_ids {run.dataset}` first")
    for reason, n in sequences.dropped.items():
        run.count(f"generative: {reason}", n)
    if run.params[Pretrain].collaborative:
        run.warn("study.generative: the encoder read train interactions of another split, some of them targets here")
    return sequences


def _trained(run: Run, trial: Trial) -> tuple[list[Ran], list[Ran]]:
    """Train; return the trials of learning rates, none where there is one rate alone, and the runs that opened test."""
    layout, own, everyone = run.layout, trial.params, contenders(trial.params, run.layout)
    size = own.model_dump(exclude={"features", "methods", "seeds", "rates"})
    for one in [*everyone, TRIVIAL]:
        run.resume(folder(layout, one), inputs(layout, one), trial.protocol.fingerprint, size, modules=[MODULE])
    rates = own.rates if len(own.rates) > 1 else []
    tried = _work(run, trial, [_job(layout, one, rate, 0, False) for one in everyone for rate in rates])
    best = {one: _chosen([t for t in tried if t.contender == one], own.rates) for one in everyone}
    ran = _work(run, trial, [_job(layout, one, best[one], n, True) for n in range(own.seeds) for one in everyone])
    trivial = Ran(TRIVIAL, folder(layout, TRIVIAL) / "0.json")
    if not trivial.path.is_file():
        _write(trivial, trial.popularity(), own.ks)
    return tried, [*ran, trivial]


def _job(layout: Layout, contender: Contender, rate: float, seed: int, opens: bool) -> Job:
    return Job(contender, rate, seed, opens, folder(layout, contender) / f"{rate:g}" / f"{seed}.safetensors")


def _work(run: Run, trial: Trial, jobs: Sequence[Job]) -> list[Ran]:
    """Do the jobs without a record; the bar shows loss and valid NDCG@20 of the one that ended last."""
    ran = {
        job: Ran(job.contender, job.checkpoint.with_name(f"{job.seed}.json" if job.opens else "tried.json"))
        for job in jobs
    }
    missing = [job for job, one in ran.items() if not one.path.is_file()]
    if missing:
        done = engine.each(trial, missing, run.params[Study].workers)
        bar = run.progress(done, total=len(missing), unit="run", what="generative")
        for job, trained in bar:
            _write(ran[job], trained, trial.params.ks)
            bar.set_postfix(loss=trained.record["loss"], ndcg=trained.record[CHOSEN_BY])
    return list(ran.values())


def _write(one: Ran, trained: Trained, ks: Sequence[int]) -> None:
    """Write rankings, then the record, whose existence means that the run is done."""
    if len(trained.users):
        table = TrialResult(trained.record, trained.users, trained.top).rankings()
        io.write_table(table, one.rankings, schemas.rankings(max(ks)))
    io.write_json(one.path, trained.record)


def _chosen(tried: Sequence[Ran], rates: Sequence[float]) -> float:
    """Return the learning rate of best valid NDCG@20, the first of equal ones."""
    return max(tried, key=lambda one: one.record[CHOSEN_BY]).record["rate"] if tried else rates[0]


def _rows(dataset: str, tried: Sequence[Ran], ran: Sequence[Ran]) -> Iterator[dict[str, Any]]:
    """Yield the rows of GENERATIVE: of each run valid and test, of a rate that was not chosen valid alone."""
    used = {(one.contender, one.record["rate"]) for one in ran}
    for one in [*ran, *(t for t in tried if (t.contender, t.record["rate"]) not in used)]:
        record = one.record
        for part, means in record["metrics"].items():
            for name, value in means.items():
                metric, _, k = name.partition("@")
                yield {
                    "dataset": dataset, **one.contender._asdict(),
                    **{key: record[key] for key in ("rate", "seed", "best_epoch", "protocol", "fingerprint")},
                    "split": part, "metric": metric, "k": int(k), "value": value,
                }  # fmt: skip


def _tests(dataset: str, ran: Sequence[Ran], sequences: Sequences, trial: Trial) -> list[dict[str, Any]]:
    """Return the rows of GENERATIVE_TESTS: codes of one feature set against each other, and each against SASRec."""
    split, ks = sequences.split(), trial.params.ks
    k = headline(ks)
    figures: dict[Contender, dict[str, list[np.ndarray]]] = {}
    for one in ran:  # a run's rankings at a time
        table = io.read_table(one.rankings, schemas.rankings(max(ks)))
        top = table["items"].combine_chunks().flatten().to_numpy().reshape(-1, max(ks))
        per_user = judge(top, table["user_id"].to_numpy(), split.test, split.n_items, [k]).per_user
        for metric in MEASURED:
            figures.setdefault(one.contender, {}).setdefault(metric, []).append(per_user[metric, k])
    pairs = [
        (a, b)
        for a, b in combinations([one for one in figures if one != TRIVIAL], 2)
        if a.features == b.features or b.model == SASREC
    ]
    compared = [
        (metric, "", "", np.mean(figures[a][metric], axis=0), np.mean(figures[b][metric], axis=0))
        for metric in MEASURED for a, b in pairs
    ]  # fmt: skip
    found = corrected(compared, seed_for("generative", dataset))
    return [
        {
            "dataset": dataset, **trial.protocol.label, "metric": metric, "k": k, "seeds": trial.params.seeds,
            **{f"{key}_a": value for key, value in a._asdict().items()},
            **{f"{key}_b": value for key, value in b._asdict().items()},
            **{key: value for key, value in test.items() if key not in ("a", "b", "measure")},
        }
        for (metric, (a, b)), test in zip([(m, pair) for m in MEASURED for pair in pairs], found, strict=True)
    ]  # fmt: skip
