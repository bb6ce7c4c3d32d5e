"""Variants of pre-training: encoders with other keys of `pretrain`, judged by probes and by AlignRec; table VARIANTS.

The variant `recipe` is the given parameters; the others are tested against it, on the same N users or items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

import schemas
from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import cell
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.statistics import corrected, holm
from pipeline.experiment.cell import Cell
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.experiment.store import Record
from pipeline.experiment.tables import significance
from pipeline.layout import Layout
from pipeline.models import RELEASED
from pipeline.ops import whitening
from pipeline.pretrain.params import Pretrain
from pipeline.probe import asking
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import tested_cutoffs
from pipeline.run import Run
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch, prepared
from pipeline.study.params import RECIPE, REFERENCES, Study
from pipeline.study.settings import variant_params

WHOLE = "beit3"
TRAINED = (WHOLE, "beit3-raw")  # feature sets that AlignRec is trained on: the released ones, the raw CLS
SETS = (*TRAINED, "beit3-image-masked", "beit3-text-masked")  # those that the probes judge
FORMS = ("raw", "processed")  # how probes read a feature set: as it is, and after the same processing as all others


class Variant(NamedTuple):
    """One encoder of a variant, or a reference feature set."""

    name: str
    seed: int | None  # `pretrain.seed`; None for a reference
    data: Layout  # of features and graphs
    branch: Branch  # of answers
    params: Parameters
    sets: tuple[str, ...]  # judged by probes
    trained: tuple[str, ...]  # of these those that AlignRec is trained on


def planned(params: Parameters, layout: Layout) -> list[Variant]:
    if not params[Study].variants:
        return []
    made = layout.feature_sets()
    variants = [
        _variant(params, layout, name, number)
        for name in (RECIPE, *params[Study].variants)
        for number in range(params[Study].encoder_seeds)
    ]
    references = [
        Variant(name, None, layout, Branch(layout.root, layout.dataset, f"variants/{name}"), params, (name,), (name,))
        for name in REFERENCES
        if name in made
    ]
    return [*variants, *references]


def _variant(params: Parameters, layout: Layout, name: str, number: int) -> Variant:
    own = variant_params(params, name, number)
    seed = own[Pretrain].seed
    branch = Branch(layout.root, layout.dataset, f"variants/{name}/{seed}", seed)
    if own[Pretrain] != params[Pretrain]:
        return Variant(name, seed, branch, branch, own, SETS, TRAINED)
    made = layout.feature_sets()  # its encoder is the dataset's own
    sets = tuple(one for one in SETS if one in made)
    return Variant(name, seed, layout, branch, own, sets, tuple(one for one in TRAINED if one in made))


class VariantRun(NamedTuple):
    """One training of AlignRec."""

    variant: int  # place among the variants that are planned
    features: str
    seed: int  # number of the run


def plan(experiment: Experiment) -> dict[VariantRun, Cell]:
    run, params = experiment.run, experiment.params
    variants = planned(params, experiment.layout)
    for variant in variants:
        if variant.data == variant.branch:
            experiment.made += prepared(run, variant.params, variant.branch, variant.sets, variant.trained)
    _judge(run, variants)
    experiment.made += [variant.branch.answers for variant in variants]
    return {
        VariantRun(number, features, seed): benchmark.whole(experiment, variant.data, features, seed)
        for number, variant in enumerate(variants)
        for features in variant.trained
        for seed in range(params[Study].seeds)
    }


def _judge(run: Run, variants: Sequence[Variant]) -> None:
    params, layout = run.params[Probe], run.layout
    modules = ["pipeline.probe.questions", "pipeline.ops.whitening", *(PROBES.module(name) for name in PROBES)]
    for variant in variants:
        shards = [path for name in variant.sets for path in io.shards(variant.data.features(name), "features")]
        tables = [layout.interactions, layout.item_ids]
        facts = params.ks, params.width, variant.sets
        run.resume(variant.branch.folder("probe"), [*tables, *shards], *facts, modules=modules)
    if not (todo := [variant for variant in variants if not variant.branch.answers.is_file()]):
        return
    probes = asking.neighbours(run.layout)
    for variant in run.progress(todo, total=len(todo), unit="variant", what="probes"):
        sets = {name: io.matrix(io.read_features(variant.data.features(name))["vector"]) for name in variant.sets}
        processed = {name: whitening.processed(vectors, params.width) for name, vectors in sets.items()}
        tensors = {
            f"{probe}/{name}/{form}": hits
            for form, read in zip(FORMS, (sets, processed), strict=True)
            for probe, by_set in asking.answers(probes, read.items(), params.ks).items()
            for name, hits in by_set.items()
        }
        io.write_bytes(variant.branch.answers, save_arrays(tensors))


class Figure(NamedTuple):
    """Columns that identify a figure."""

    what: str
    features: str
    form: str
    metric: str
    k: int
    protocol: str
    fingerprint: str

    @property
    def family(self) -> tuple[str, ...]:
        return (RELEASED,) if self.what == RELEASED else (self.features, self.form)

    @property
    def reference(self) -> Figure:
        return self if self.features.endswith("-masked") else self._replace(features=WHOLE)


class Measured(NamedTuple):
    """Values of one or several encoders for a figure."""

    values: list[float]  # a mean over users or items for each training
    cases: np.ndarray | None  # float64 [N], of each user or item, mean over trainings; None where nothing is tested


def table(experiment: Experiment, found: Mapping[VariantRun, Record]) -> dict[str, pa.Table]:
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[int, tuple[str, ...], np.ndarray, np.ndarray]] = []
    recipe: Mapping[Figure, Measured] = {}
    variants = planned(experiment.params, experiment.layout)
    for name, group in groupby(enumerate(variants), lambda one: one[1].name):
        numbers, encoders = zip(*group, strict=True)
        each = [
            _figures(experiment, variant, {own: record for own, record in found.items() if own.variant == number})
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
    named = {"dataset": experiment.dataset, "variant": variant.name, "encoder_seed": seed}
    for figure, own in measured.items():
        spread = cell(own.values)
        yield named | figure._asdict() | {"seeds": len(own.values), "mean": spread.mean, "sd": spread.sd}


def _together(each: Sequence[Mapping[Figure, Measured]]) -> dict[Figure, Measured]:
    together = {}
    for figure in each[0]:
        parts = [one[figure] for one in each if figure in one]
        cases = [part.cases for part in parts if part.cases is not None]
        values = [value for part in parts for value in part.values]
        together[figure] = Measured(values, np.mean(cases, axis=0) if cases else None)
    return together


def _figures(experiment: Experiment, variant: Variant, found: Mapping[VariantRun, Record]) -> dict[Figure, Measured]:
    figures = dict(_probe_figures(experiment.params, experiment.rules, variant))
    for protocol in experiment.rules.variants:
        figures |= _model_figures(experiment, protocol, variant, found)
    return figures


def _probe_figures(params: Parameters, rules: Protocol, variant: Variant) -> Iterator[tuple[Figure, Measured]]:
    answers, ks = load_file(variant.branch.answers), params[Probe].ks
    tested = tested_cutoffs(ks)
    for probe, features, form in product(PROBES, variant.sets, FORMS):
        if (hits := answers.get(f"{probe}/{features}/{form}")) is None:  # it has no questions
            continue
        for column, k in enumerate(ks):
            figure = Figure(probe, features, form, PROBES[probe].measure, k, *rules.label.values())
            cases = hits[:, column].copy()  # else all of the file stays in memory
            yield figure, Measured([float(cases.mean())], cases if k in tested else None)


def _model_figures(
    experiment: Experiment, rules: Protocol, variant: Variant, found: Mapping[VariantRun, Record]
) -> dict[Figure, Measured]:
    ks = experiment.params[Benchmark].ks
    figures: dict[Figure, Measured] = {}
    for features in variant.trained:
        records = [record for own, record in found.items() if own.features == features]
        runs = [record.evaluation(rules.suffix, experiment.split, ks) for record in records]
        for metric, k in product(significance.METRICS, ks):
            values = [one.mean[metric, k] for one in runs]
            cases = np.mean([one.per_user[metric, k] for one in runs], axis=0) if k == headline(ks) else None
            figure = Figure(RELEASED, features, FORMS[0], metric, k, *rules.label.values())
            figures[figure] = Measured(values, cases)
    return figures
