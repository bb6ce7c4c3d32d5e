"""Arms of pre-training: encoders trained with other keys of `pretrain`, judged by probes and recommended with.

The arm `recipe` is the parameters as they stand; every other one is tested against it, on the same users or items.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save as save_arrays

import schemas
from pipeline import engine, io
from pipeline.benchmark.jobs import Job, Trial, TrialResult, is_lacking, write
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.protocol import Protocol
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.ops import whitening
from pipeline.probe import asking
from pipeline.probe.base import Data
from pipeline.probe.params import Probe
from pipeline.probe.questions import Questions
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.study import differences
from pipeline.study.branch import prepared, teachers
from pipeline.study.encoders import FORMS, Arm, planned
from pipeline.study.params import Study
from pipeline.train import inputs


def study(run: Run, rules: Protocol) -> list[Path]:
    """Train, encode, judge and recommend what has no record yet; write table ARMS; return the files of this part.

    Args:
        run: of the stage.
        rules: by which epochs are chosen; each of its variants judges every training.
    """
    table, arms = run.layout.study("arms"), planned(run.params, run.layout)
    made = [path for arm in arms if arm.data == arm.branch for path in _encoded(run, arm)]
    shutil.rmtree(teachers(run.layout), ignore_errors=True)
    _judge(run, arms)
    made += [arm.branch.answers for arm in arms]
    made += _recommend(run, rules, arms)
    run.write(differences.table(run, rules, arms), table, schemas.ARMS)
    return [table, *made]


def _encoded(run: Run, arm: Arm) -> list[Path]:
    return prepared(run, arm.params, arm.branch, arm.sets, arm.trained)


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


@dataclass(frozen=True)
class ArmTrial:
    """Trains AlignRec on a feature set of an arm; pickled for the processes of a pool."""

    data: Sequence[Layout]
    """where the features of each arm lie"""
    params: Parameters
    protocol: Protocol

    def __call__(self, job: tuple[int, Job]) -> list[TrialResult]:
        """Return what the benchmark's Trial does, for the number of an arm and a job."""
        number, own = job
        return Trial(self.data[number], self.params, self.protocol)(own)


def _recommend(run: Run, rules: Protocol, arms: Sequence[Arm]) -> list[Path]:
    """Train AlignRec where there is no record yet; return all records and rankings."""
    params = run.params
    settings = model_settings(params, RELEASED).model_dump()
    for arm in arms:
        for name in arm.trained:
            facts = (rules.fingerprint, params[Benchmark].ks, settings, params[Benchmark].modalities.get(name, []))
            folder, files = arm.branch.runs(RELEASED, name), inputs.files(arm.data, name)
            modules = ["pipeline.benchmark.jobs", MODELS.module(RELEASED)]
            run.resume(folder, files, *facts, modules=modules)
    jobs = [(number, job) for number, arm in enumerate(arms) for job in arm.jobs(params[Study].seeds)]
    todo = [(number, job) for number, job in jobs if is_lacking(arms[number].branch, job, rules)]
    trial = ArmTrial([arm.data for arm in arms], params, rules)
    runs = engine.each(trial, todo, params[Study].workers)
    for (number, job), results in run.progress(runs, total=len(todo), unit="run", what="arms") if todo else ():
        write(arms[number].branch, job, results, params[Benchmark].ks)
    return [
        path(*job, suffix=judging.suffix)
        for number, job in jobs
        for judging in rules.variants
        for path in (arms[number].branch.trial, arms[number].branch.trial_rankings)
    ]
