"""Codes judged by use: TIGER on the codes of each method, beside networks on items and popularity, by leave-one-out.

Valid chooses a learning rate for each contender and its epoch; test is opened once a run. Tables GENERATIVE and
GENERATIVE_TESTS. N test users, K cutoff.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

import schemas
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected
from pipeline.experiment.cell import Cell, Opens
from pipeline.experiment.run import Experiment
from pipeline.experiment.sequences import POPULARITY, TIGER, Ordered, read
from pipeline.experiment.store import Record
from pipeline.layout import Layout
from pipeline.seeds import seed_for
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS
from pipeline.sequential import judging
from pipeline.sequential.loop import CHOSEN_BY
from pipeline.sequential.params import Generative, Reads
from pipeline.sequential.sequences import Sequences
from pipeline.study.params import Study

NONE = "none"
"""feature set and method of models on item ids"""
MEASURED = ("recall", "ndcg")


class Contender(NamedTuple):
    """One row of the comparison."""

    model: str
    features: str
    """feature set that it reads, itself or as codes, or NONE"""
    method: str
    """that made the codes; of networks what they read of an item, or NONE for ids alone"""

    def data(self, layout: Layout) -> Ordered:
        """Return what its trainings read."""
        if self.model == TIGER:
            return Ordered(layout, codes=(self.features, self.method))
        if self.features == NONE:
            return Ordered(layout)
        return Ordered(layout, features=self.features, reads=cast(Reads, self.method))


class GenerativeRun(NamedTuple):
    """One training."""

    contender: Contender
    rate: float | None
    """of Adam; None of what nothing trains"""
    seed: int
    """number of the run; equal numbers draw the same order of windows"""
    opens: bool
    """whether test is opened at the best valid epoch"""


TRIVIAL = GenerativeRun(Contender(POPULARITY, NONE, NONE), None, 0, True)


def plan(experiment: Experiment) -> dict[GenerativeRun, Cell]:
    """Try learning rates, where there are several; return these cells, then those that open test.

    Raises:
        UserError: the interactions have no times, codes are absent, or a cutoff is larger than the catalogue.
    """
    own = experiment.params[Study].generative
    if not own.features:
        return {}
    sequences = _checked(experiment)
    rules = protocol(experiment, sequences)
    everyone = contenders(own, experiment.layout)
    rates = own.rates if len(own.rates) > 1 else []
    tries = [GenerativeRun(one, rate, 0, False) for one in everyone for rate in rates]
    tried = {one: cell(experiment, rules, one) for one in tries}
    records = experiment.complete(tried, "generative")
    best: dict[Contender, GenerativeRun] = {}
    for one in tries:
        if one.contender not in best or records[one].best[CHOSEN_BY] > records[best[one.contender]].best[CHOSEN_BY]:
            best[one.contender] = one  # of equal ones the first
    chosen = {one: best[one].rate if one in best else own.rates[0] for one in everyone}
    runs = [GenerativeRun(one, chosen[one], n, True) for n in range(own.seeds) for one in everyone]
    return tried | {one: cell(experiment, rules, one) for one in [*runs, TRIVIAL]}


def contenders(params: Generative, layout: Layout) -> list[Contender]:
    """Return what is trained, the slow ones first; nothing where no feature set is named."""
    tigers = []
    for features in params.features:
        made = [m for m in METHODS if (layout.semantic_ids(features, m) / files.IDS).is_file()]
        tigers += [Contender(TIGER, features, method) for method in params.methods or made or METHODS]
    both = [(network, reads) for reads in reversed(params.reads) for network in reversed(params.networks)]
    rivals = [
        Contender(network, *of)
        for network, reads in both
        for of in ([(NONE, NONE)] if reads == "ids" else [(features, reads) for features in params.features])
    ]
    return [*tigers, *rivals] if tigers else []


def protocol(experiment: Experiment, sequences: Sequences) -> Protocol:
    """Return leave-one-out with the filter of the benchmark's interactions."""
    return judging.protocol(experiment.rules, sequences, experiment.params[Study].generative.length)


def cell(experiment: Experiment, rules: Protocol, one: GenerativeRun) -> Cell:
    """Return the cell of a training; what of the section does not shape it is left out of the settings."""
    own = experiment.params[Study].generative
    shape = {"features": [], "methods": [], "networks": [], "reads": [], "seeds": 1}
    shape["rates"] = [own.rates[0] if one.rate is None else one.rate]
    seed = seed_for("generative", experiment.dataset, one.contender.model, one.seed)
    data, settings = one.contender.data(experiment.layout), own.model_copy(update=shape)
    opens: Opens = "rankings" if one.opens else "valid"
    return Cell(data, one.contender.model, settings, rules, seed, tuple(own.ks), opens)


def _checked(experiment: Experiment) -> Sequences:
    """Return the sequences; what is left out is counted, what cannot be judged refused."""
    run, own = experiment.run, experiment.params[Study].generative
    sequences, largest = read(experiment.layout), max(own.ks)
    if largest > sequences.n_items:
        raise UserError(f"'study.generative.ks': {largest} is larger than the catalogue; give smaller ones")
    read_by = [one.data(experiment.layout).files() for one in contenders(own, experiment.layout)]
    if absent := next((path for paths in read_by for path in paths if not path.is_file()), None):
        raise UserError(f"{absent}: not there; run `alignrec semantic_ids {experiment.dataset}` first")
    for reason, n in sequences.dropped.items():
        run.count(f"generative: {reason}", n)
    return sequences


def table(experiment: Experiment, found: Mapping[GenerativeRun, Record]) -> dict[str, pa.Table]:
    """Return both tables; empty ones where no feature set is named."""
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    if found:
        sequences = read(experiment.layout)
        rules = protocol(experiment, sequences)
        rows = list(_rows(experiment.dataset, found, rules))
        tests = _tests(experiment, {one: record for one, record in found.items() if one.opens}, sequences, rules)
    return {
        "generative.parquet": pa.Table.from_pylist(rows, schemas.GENERATIVE),
        "generative_tests.parquet": pa.Table.from_pylist(tests, schemas.GENERATIVE_TESTS),
    }


def _rows(dataset: str, found: Mapping[GenerativeRun, Record], rules: Protocol) -> Iterator[dict[str, Any]]:
    """Yield the rows of GENERATIVE: of each run valid and test, of a rate that was not chosen valid alone."""
    ran = [one for one in found if one.opens]
    used = {(one.contender, one.rate) for one in ran}
    for one in [*ran, *(one for one in found if (one.contender, one.rate) not in used)]:
        record = found[one]
        watched = {name: record.best.get(f"valid_{name}") for name in ("recall@20", "ndcg@20")}
        judged = record.judged[0]["metrics"] if one.opens else {"valid": watched}
        for part, means in judged.items():
            for name, value in means.items():
                metric, _, k = name.partition("@")
                yield {
                    "dataset": dataset, **one.contender._asdict(), "rate": one.rate, "seed": one.seed,
                    "best_epoch": record.values["best_epoch"], **rules.label,
                    "split": part, "metric": metric, "k": int(k), "value": value,
                }  # fmt: skip


def _tests(
    experiment: Experiment, ran: Mapping[GenerativeRun, Record], sequences: Sequences, rules: Protocol
) -> list[dict[str, Any]]:
    """Return the rows of GENERATIVE_TESTS: what reads one feature set against each other, and each against item ids."""
    split, own = sequences.split(), experiment.params[Study].generative
    k = headline(own.ks)
    figures: dict[Contender, dict[str, list[np.ndarray]]] = {}
    for one, record in ran.items():  # a run's rankings at a time
        per_user = record.evaluation(rules.suffix, split, [k]).per_user
        for metric in MEASURED:
            figures.setdefault(one.contender, {}).setdefault(metric, []).append(per_user[metric, k])
    pairs = [
        (a, b)
        for a, b in combinations([one for one in figures if one != TRIVIAL.contender], 2)
        if a.features == b.features or b.features == NONE
    ]
    compared = [
        (metric, "", "", np.mean(figures[a][metric], axis=0), np.mean(figures[b][metric], axis=0))
        for metric in MEASURED for a, b in pairs
    ]  # fmt: skip
    found = corrected(compared, seed_for("generative", experiment.dataset))
    return [
        {
            "dataset": experiment.dataset, **rules.label, "metric": metric, "k": k, "seeds": own.seeds,
            **{f"{key}_a": value for key, value in a._asdict().items()},
            **{f"{key}_b": value for key, value in b._asdict().items()},
            **{key: value for key, value in test.items() if key not in ("a", "b", "measure")},
        }
        for (metric, (a, b)), test in zip([(m, pair) for m in MEASURED for pair in pairs], found, strict=True)
    ]  # fmt: skip
