"""Arms of pre-training: encoders trained with other keys of `pretrain`, judged by probes and recommended with.

The arm `recipe` is the parameters as they stand; every other one is tested against it, on the same users or items.
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
from pipeline.study.settings import arm_params

WHOLE, RAW = "beit3", "beit3-raw"
SETS = (WHOLE, RAW, "beit3-image-masked", "beit3-text-masked")
"""feature sets of an encoder that the probes judge"""
FORMS = ("raw", "processed")
"""how probes read a feature set: as it is, and after the same processing as all others"""


class Arm(NamedTuple):
    """One encoder of an arm, or a feature set that stands beside the arms."""

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


def planned(params: Parameters, layout: Layout) -> list[Arm]:
    """Return the arms, `recipe` first, and what stands beside them; nothing where there are no arms."""
    if not params[Study].arms:
        return []
    made = layout.feature_sets()
    arms = [
        _arm(params, layout, name, number)
        for name in (RECIPE, *params[Study].arms)
        for number in range(params[Study].encoder_seeds)
    ]
    return [*arms, *(_beside(layout, name, params) for name in REFERENCES if name in made)]


def _arm(params: Parameters, layout: Layout, name: str, number: int) -> Arm:
    own, trained = arm_params(params, name, number), tuple(dict.fromkeys(params[Study].arm_features))
    seed = own[Pretrain].seed
    branch = Branch(layout.root, layout.dataset, f"arms/{name}/{seed}", seed)
    if own[Pretrain] != params[Pretrain]:
        return Arm(name, seed, branch, branch, own, SETS, trained)
    made = layout.feature_sets()  # its encoder is the dataset's own
    sets = tuple(one for one in SETS if one in made)
    return Arm(name, seed, layout, branch, own, sets, tuple(one for one in trained if one in made))


def _beside(layout: Layout, name: str, params: Parameters) -> Arm:
    return Arm(name, None, layout, Branch(layout.root, layout.dataset, f"arms/{name}"), params, (name,), (name,))


class Trained(NamedTuple):
    """One training of AlignRec."""

    arm: int
    """place among the arms that are planned"""
    features: str
    seed: int
    """number of the run"""


def plan(experiment: Experiment) -> dict[Trained, Cell]:
    """Train the encoders, encode, and ask the probes; return the cells that recommend with the features."""
    run, params = experiment.run, experiment.params
    arms = planned(params, experiment.layout)
    for arm in arms:
        if arm.data == arm.branch:
            experiment.made += prepared(run, arm.params, arm.branch, arm.sets, arm.trained)
    shutil.rmtree(teachers(experiment.layout), ignore_errors=True)
    _judge(run, arms)
    experiment.made += [arm.branch.answers for arm in arms]
    return {
        Trained(number, features, seed): benchmark.whole(experiment, arm.data, features, seed)
        for number, arm in enumerate(arms)
        for features in arm.trained
        for seed in range(params[Study].seeds)
    }


def _judge(run: Run, arms: Sequence[Arm]) -> None:
    """Ask the probes of the arms that have no answers yet."""
    params, layout = run.params[Probe], run.layout
    modules = ["pipeline.probe.questions", "pipeline.ops.whitening", *(PROBES.module(name) for name in PROBES)]
    for arm in arms:
        shards = [path for name in arm.sets for path in io.shards(arm.data.features(name), "features")]
        tables = [layout.interactions, layout.item_ids]
        facts = params.ks, params.width, arm.sets
        run.resume(arm.branch.folder("probe"), [*tables, *shards], *facts, modules=modules)
    if not (todo := [arm for arm in arms if not arm.branch.answers.is_file()]):
        return
    probes = _questions(run)
    for arm in run.progress(todo, total=len(todo), unit="arm", what="probes"):
        sets = {name: io.matrix(io.read_features(arm.data.features(name))["vector"]) for name in arm.sets}
        processed = {name: whitening.processed(vectors, params.width) for name, vectors in sets.items()}
        tensors = {
            arm.answer_key(probe, name, form): hits
            for form, read in zip(FORMS, (sets, processed), strict=True)
            for probe, by_set in asking.answers(probes, read.items(), params.ks, 0).items()
            for name, hits in by_set.items()
        }
        io.write_bytes(arm.branch.answers, save_arrays(tensors))


def _questions(run: Run) -> dict[str, Questions]:
    """Return the probes that ask for neighbours; that of categories needs no arm to be compared."""
    interactions = run.read(run.layout.interactions, schemas.INTERACTIONS)
    data = Data(interactions, len(run.read(run.layout.item_ids, schemas.ITEM_IDS)), [])
    return {name: probe for name, probe in asking.ask(data).items() if isinstance(probe, Questions)}
