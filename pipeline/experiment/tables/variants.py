"""Table VARIANTS: what each variant of pre-training is worth, and how it differs from the recipe. N users or items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file

import schemas
from pipeline.benchmark.params import Benchmark
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected, holm
from pipeline.experiment.plans.variants import FORMS, WHOLE, Variant, VariantRun, planned
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.experiment.tables import significance
from pipeline.models import RELEASED
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import tested_cutoffs
from pipeline.seeds import seed_for
from pipeline.study.params import RECIPE


class Figure(NamedTuple):
    """The columns that say what was measured."""

    what: str
    features: str
    form: str
    metric: str
    k: int
    protocol: str
    fingerprint: str

    @property
    def family(self) -> tuple[str, ...]:
        """The tests that p is corrected for: all of AlignRec, or the probes of one feature set in one form."""
        return (RELEASED,) if self.what == RELEASED else (self.features, self.form)

    @property
    def reference(self) -> Figure:
        """What it is compared with in the recipe: whole items as they are released, or the same modality masked."""
        return self if self.features.endswith("-masked") else self._replace(features=WHOLE)


class Measured(NamedTuple):
    """What one encoder or several have under one figure."""

    values: list[float]
    """a mean over users or items for each training"""
    cases: np.ndarray | None
    """float64 [N], of each user or item, mean over trainings; None where nothing is tested"""


def table(experiment: Experiment, found: Mapping[VariantRun, Record]) -> dict[str, pa.Table]:
    """Return the table of variants whose answers are on disk."""
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[int, tuple[str, ...], np.ndarray, np.ndarray]] = []
    recipe: Mapping[Figure, Measured] = {}
    variants = planned(experiment.params, experiment.layout)
    for name, group in groupby(enumerate(variants), lambda one: one[1].name):
        numbers, encoders = zip(*group, strict=True)
        each = [
            _measured(experiment, variant, {own: record for own, record in found.items() if own.variant == number})
            for number, variant in zip(numbers, encoders, strict=True)
        ]
        if len(each) > 1:
            for variant, one in zip(encoders, each, strict=True):
                rows += _rows(experiment, variant, variant.seed, one)
        together = _together(each)
        recipe = together if name == RECIPE else recipe
        seed = encoders[0].seed if len(each) == 1 else None
        for figure, row in zip(together, _rows(experiment, encoders[0], seed, together), strict=True):
            own, other = together[figure], recipe.get(figure.reference)
            if other and own.cases is not None and other.cases is not None and own is not other:
                pairs.append((len(rows), figure.family, own.cases, other.cases))
            rows.append(row)
    _test(rows, pairs, seed_for("variants", experiment.dataset))
    return {"variants.parquet": pa.Table.from_pylist(rows, schemas.VARIANTS)}


def _test(
    rows: list[dict[str, Any]], pairs: Sequence[tuple[int, tuple[str, ...], np.ndarray, np.ndarray]], seed: int
) -> None:
    """Add the tests of pairs (row, family, cases of both) to rows; p is corrected within each family."""
    tests = corrected([("", "", "", x, y) for _, _, x, y in pairs], seed)
    families = [family for _, family, _, _ in pairs]
    p_holm = np.zeros(len(pairs))
    for family in dict.fromkeys(families):
        mine = [i for i, one in enumerate(families) if one == family]
        p_holm[mine] = holm(np.array([tests[i]["p"] for i in mine]))
    for (number, *_), test, p in zip(pairs, tests, p_holm, strict=True):
        rows[number] |= {key: test[key] for key in ("n", "difference", "low", "high", "p")} | {"p_holm": float(p)}


def _rows(
    experiment: Experiment, variant: Variant, seed: int | None, measured: Mapping[Figure, Measured]
) -> Iterator[dict[str, Any]]:
    """Yield a row a figure, without tests."""
    untested = dict.fromkeys(("n", "difference", "low", "high", "p", "p_holm"))
    for figure, own in measured.items():
        spread = cell(own.values)
        yield {
            "dataset": experiment.dataset,
            "variant": variant.name,
            "encoder_seed": seed,
            **figure._asdict(),
            "seeds": len(own.values),
            "mean": spread.mean,
            "sd": spread.sd,
            **untested,
        }


def _together(each: Sequence[Mapping[Figure, Measured]]) -> dict[Figure, Measured]:
    """Return what several encoders have under each figure: all values, and of each case the mean."""
    together = {}
    for figure in each[0]:
        parts = [one[figure] for one in each if figure in one]
        cases = [part.cases for part in parts if part.cases is not None]
        values = [value for part in parts for value in part.values]
        together[figure] = Measured(values, np.mean(cases, axis=0) if cases else None)
    return together


def _measured(experiment: Experiment, variant: Variant, found: Mapping[VariantRun, Record]) -> dict[Figure, Measured]:
    """Return the figures of one encoder: of the probes, then of AlignRec."""
    figures = dict(_probed(experiment.params, experiment.rules, variant))
    for protocol in experiment.rules.variants:
        figures |= _recommended(experiment, protocol, variant, found)
    return figures


def _probed(params: Parameters, rules: Protocol, variant: Variant) -> Iterator[tuple[Figure, Measured]]:
    answers, ks = load_file(variant.branch.answers), params[Probe].ks
    tested = tested_cutoffs(ks)
    for probe in PROBES:
        for features in variant.sets:
            for form in FORMS:
                if (hits := answers.get(variant.answer_key(probe, features, form))) is None:  # it has no questions
                    continue
                for column, k in enumerate(ks):
                    figure = Figure(probe, features, form, PROBES[probe].measure, k, *rules.label.values())
                    cases = hits[:, column].copy()  # else all of the file stays in memory
                    yield figure, Measured([float(cases.mean())], cases if k in tested else None)


def _recommended(
    experiment: Experiment, rules: Protocol, variant: Variant, found: Mapping[VariantRun, Record]
) -> dict[Figure, Measured]:
    ks = experiment.params[Benchmark].ks
    figures: dict[Figure, Measured] = {}
    for features in variant.trained:
        records = [record for own, record in found.items() if own.features == features]
        runs = [record.evaluation(rules.suffix, experiment.split, ks) for record in records]
        for metric in significance.METRICS:
            for k in ks:
                values = [one.mean[metric, k] for one in runs]
                cases = np.mean([one.per_user[metric, k] for one in runs], axis=0) if k == headline(ks) else None
                figure = Figure(RELEASED, features, FORMS[0], metric, k, *rules.label.values())
                figures[figure] = Measured(values, cases)
    return figures
