"""Codes judged by use: TIGER on the codes of each method, SASRec on item ids and popularity, by leave-one-out.

Valid chooses a learning rate for each contender and its epoch; test is opened once a run.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.experiment.cell import Cell, Opens
from pipeline.experiment.run import Experiment
from pipeline.experiment.sequences import POPULARITY, SASREC, TIGER, Ordered, read
from pipeline.layout import Layout
from pipeline.seeds import seed_for
from pipeline.semantic_ids import files
from pipeline.semantic_ids.registry import METHODS
from pipeline.sequential import judging
from pipeline.sequential.loop import CHOSEN_BY
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import Sequences
from pipeline.study.params import Study

NONE = "none"
"""feature set and method of models on item ids"""


class Contender(NamedTuple):
    """One row of the comparison."""

    model: str
    features: str
    """feature set whose codes it reads, or NONE"""
    method: str
    """that made the codes, or NONE"""

    def data(self, layout: Layout) -> Ordered:
        """Return what its trainings read."""
        return Ordered(layout, None if self.features == NONE else (self.features, self.method))


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
    return [*tigers, Contender(SASREC, NONE, NONE)] if tigers else []


def protocol(experiment: Experiment, sequences: Sequences) -> Protocol:
    """Return leave-one-out with the filter of the benchmark's interactions."""
    return judging.protocol(experiment.rules, sequences, experiment.params[Study].generative.length)


def cell(experiment: Experiment, rules: Protocol, one: GenerativeRun) -> Cell:
    """Return the cell of a training; what of the section does not shape it is left out of the settings."""
    own = experiment.params[Study].generative
    shape = {"features": [], "methods": [], "seeds": 1, "rates": [own.rates[0] if one.rate is None else one.rate]}
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
