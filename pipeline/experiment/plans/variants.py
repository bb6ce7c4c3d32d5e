"""Variants of pre-training: encoders trained with other keys of `pretrain`, judged by probes and recommended with.

The variant `recipe` is the parameters as they stand; every other one is tested against it, on the same users or items.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import NamedTuple

from safetensors.numpy import save as save_arrays

import schemas
from pipeline import io
from pipeline.config.parameters import Parameters
from pipeline.experiment.cell import Cell
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment
from pipeline.layout import Layout
from pipeline.ops import whitening
from pipeline.pretrain.params import Pretrain
from pipeline.probe import asking
from pipeline.probe.base import Data
from pipeline.probe.params import Probe
from pipeline.probe.questions import Questions
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.study.branch import Branch, prepared, teachers
from pipeline.study.params import RECIPE, REFERENCES, Study
from pipeline.study.settings import variant_params

WHOLE, RAW = "beit3", "beit3-raw"
SETS = (WHOLE, RAW, "beit3-image-masked", "beit3-text-masked")
"""feature sets of an encoder that the probes judge"""
FORMS = ("raw", "processed")
"""how probes read a feature set: as it is, and after the same processing as all others"""


class Variant(NamedTuple):
    """One encoder of a variant, or a feature set that stands beside the variants."""

    name: str
    seed: int | None
    """`pretrain.seed`; None for what no encoder of the study makes"""
    data: Layout
    """where its features and graphs lie"""
    branch: Branch
    """where its answers lie"""
    params: Parameters
    sets: tuple[str, ...]
    """feature sets that the probes judge"""
    trained: tuple[str, ...]
    """those of them that AlignRec is trained on"""

    def answer_key(self, probe: str, features: str, form: str) -> str:
        """Return the name of one tensor of `Branch.answers`."""
        return f"{probe}/{features}/{form}"


def planned(params: Parameters, layout: Layout) -> list[Variant]:
    """Return the variants, `recipe` first, and what stands beside them; nothing where there are no variants."""
    if not params[Study].variants:
        return []
    made = layout.feature_sets()
    variants = [
        _variant(params, layout, name, number)
        for name in (RECIPE, *params[Study].variants)
        for number in range(params[Study].encoder_seeds)
    ]
    return [*variants, *(_beside(layout, name, params) for name in REFERENCES if name in made)]


def _variant(params: Parameters, layout: Layout, name: str, number: int) -> Variant:
    own, trained = variant_params(params, name, number), tuple(dict.fromkeys(params[Study].variant_features))
    seed = own[Pretrain].seed
    branch = Branch(layout.root, layout.dataset, f"variants/{name}/{seed}", seed)
    if own[Pretrain] != params[Pretrain]:
        return Variant(name, seed, branch, branch, own, SETS, trained)
    made = layout.feature_sets()  # its encoder is the dataset's own
    sets = tuple(one for one in SETS if one in made)
    return Variant(name, seed, layout, branch, own, sets, tuple(one for one in trained if one in made))


def _beside(layout: Layout, name: str, params: Parameters) -> Variant:
    branch = Branch(layout.root, layout.dataset, f"variants/{name}")
    return Variant(name, None, layout, branch, params, (name,), (name,))


class VariantRun(NamedTuple):
    """One training of AlignRec."""

    variant: int
    """place among the variants that are planned"""
    features: str
    seed: int
    """number of the run"""


def plan(experiment: Experiment) -> dict[VariantRun, Cell]:
    """Train the encoders, encode, and ask the probes; return the cells that recommend with the features."""
    run, params = experiment.run, experiment.params
    variants = planned(params, experiment.layout)
    for variant in variants:
        if variant.data == variant.branch:
            experiment.made += prepared(run, variant.params, variant.branch, variant.sets, variant.trained)
    shutil.rmtree(teachers(experiment.layout), ignore_errors=True)
    _judge(run, variants)
    experiment.made += [variant.branch.answers for variant in variants]
    return {
        VariantRun(number, features, seed): benchmark.whole(experiment, variant.data, features, seed)
        for number, variant in enumerate(variants)
        for features in variant.trained
        for seed in range(params[Study].seeds)
    }


def _judge(run: Run, variants: Sequence[Variant]) -> None:
    """Ask the probes of the variants that have no answers yet."""
    params, layout = run.params[Probe], run.layout
    modules = ["pipeline.probe.questions", "pipeline.ops.whitening", *(PROBES.module(name) for name in PROBES)]
    for variant in variants:
        shards = [path for name in variant.sets for path in io.shards(variant.data.features(name), "features")]
        tables = [layout.interactions, layout.item_ids]
        facts = params.ks, params.width, variant.sets
        run.resume(variant.branch.folder("probe"), [*tables, *shards], *facts, modules=modules)
    if not (todo := [variant for variant in variants if not variant.branch.answers.is_file()]):
        return
    probes = _questions(run)
    for variant in run.progress(todo, total=len(todo), unit="variant", what="probes"):
        sets = {name: io.matrix(io.read_features(variant.data.features(name))["vector"]) for name in variant.sets}
        processed = {name: whitening.processed(vectors, params.width) for name, vectors in sets.items()}
        tensors = {
            variant.answer_key(probe, name, form): hits
            for form, read in zip(FORMS, (sets, processed), strict=True)
            for probe, by_set in asking.answers(probes, read.items(), params.ks, 0).items()
            for name, hits in by_set.items()
        }
        io.write_bytes(variant.branch.answers, save_arrays(tensors))


def _questions(run: Run) -> dict[str, Questions]:
    """Return the probes that ask for neighbours; that of categories needs no variant to be compared."""
    interactions = run.read(run.layout.interactions, schemas.INTERACTIONS)
    data = Data(interactions, len(run.read(run.layout.item_ids, schemas.ITEM_IDS)), [])
    return {name: probe for name, probe in asking.ask(data).items() if isinstance(probe, Questions)}
