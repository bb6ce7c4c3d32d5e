"""What each stage's results depend on: files of earlier stages, parameters, code. Imports no slow library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.encode.registry import ENCODERS
from pipeline.features import needs as encoding
from pipeline.features import registry as encoders
from pipeline.images import paths
from pipeline.layout import STAGES
from pipeline.models import MODELS
from pipeline.params import RELEASED
from pipeline.pretrain import needs as pretraining
from pipeline.probe.registry import PROBES
from pipeline.registry import Registry
from pipeline.run import Needs, Run
from pipeline.semantic_ids.registry import METHODS
from pipeline.sources import download
from pipeline.sources.base import Downloaded
from pipeline.sources.registry import SOURCES
from pipeline.train import inputs

ONLY = {("probe", "train"): {"features"}, ("report", "train"): {"features"}, ("benchmark", "sweep"): {"spaces"}}
"""(stage, section) -> the keys that it reads, where it does not read all"""
SPEED = {
    "download": {"timeout", "retries"},
    "pretrain": pretraining.SPEED,
    "encode": {"engine", "workers"},
    "train": {"checkpoint_every"},
    "benchmark": {"workers"},
    "study": {"workers"},
}
"""section -> keys that affect the run time of a stage, and no result"""
JUDGED = ("interactions", "encode", "graph", "semantic_ids", "benchmark")
"""what a study reads that trains no encoder"""


def of(run: Run) -> Needs:
    """Return what the results of a run's stage depend on.

    Raises:
        UserError: an input file is missing; says which stage makes it.
    """
    stage, layout, params = run.stage, run.layout, run.params
    files = [path for name in STAGES[stage].reads for path in layout.outputs(name)]
    facts: list[Any] = [_values(run, section) for section in STAGES[stage].params]
    parts = loaded(run)
    modules = [f"stages.{stage}", *(registry.module(name) for registry, name in parts)]
    match stage:
        case "download" if isinstance(run.source, Downloaded):
            facts.append(download.local_files(run.source.files()))  # path, size, time of change
        case "images":
            facts.append(paths.fingerprint(layout, run.source, params.images))  # of files of this machine
            if isinstance(run.source, Downloaded):
                files = layout.outputs("items")  # the raw files, which may be gigabytes, hold no images
        case "pretrain" if not pretrains(run):
            files, facts = [], ["nothing reads it"]
        case "pretrain":
            return pretraining.of(params, layout)
        case "encode":
            names = encoded(run)
            files += encoding.files(params.encoders, names)
            facts.append(encoding.libraries(params.encoders, names))
        case "train":
            files = inputs.files(layout, params.trained_on)
        case "benchmark" if not params.benchmark.budget:
            facts = facts[:-1]  # nothing is drawn from sweep.spaces
        case "study" if not params.study.pretrains:
            files = [path for name in _read(run, JUDGED) for path in layout.outputs(name)]
            own = {"pretrain", "encode", "encoders"}  # nothing of them is read
            facts = [_values(run, section) for section in STAGES[stage].params if section not in own]
        case "study":
            files = [path for name in _read(run, STAGES[stage].reads) for path in layout.outputs(name)]
            trained = [pretraining.of(one, layout) for one in params.pretrained()]
            files = list(dict.fromkeys([*files, *(path for one in trained for path in one.files)]))
            facts += [encoding.libraries(params.encoders, encoded(run)), *(one.facts for one in trained)]
        case "report":
            files += layout.outputs("sweep")  # which no stage makes
    return Needs([*files, *(p for registry, name in parts for p in registry.source_files(name))], facts, modules)


def loaded(run: Run) -> list[tuple[Registry[Any], str]]:
    """Return the parts that a run's stage loads by name, each with its registry."""
    params = run.params
    source = [(SOURCES, run.source.kind)]
    probes = [(PROBES, name) for name in PROBES]
    match run.stage:
        case "download" | "interactions" | "items":
            return source
        case "pretrain" if pretrains(run):
            return encoding.kinds(params.encoders, pretraining.taught_by(params))
        case "encode":
            return [*source, *encoding.kinds(params.encoders, encoded(run))]
        case "probe" | "report":
            return probes
        case "semantic_ids":
            coding = params.semantic_ids
            parts = [part for name in coding.methods for part in coding.parts(name)]
            return [*probes, *((METHODS, part) for part in dict.fromkeys(parts))]
        case "benchmark":
            return [*source, *((MODELS, name) for name in dict.fromkeys([*params.benchmark.models, RELEASED]))]
        case "study":
            names = encoded(run) if params.study.pretrains else []
            names += [name for one in params.pretrained() for name in pretraining.taught_by(one)]
            arms = sorted(encoding.kinds(params.encoders, names), key=lambda one: one[1])
            return [*source, (MODELS, RELEASED), *probes, *arms]
        case "publish":
            return [*source, *probes, *((ENCODERS, name) for name in params.publish.features if name in ENCODERS)]
    return []


def pretrains(run: Run) -> bool:
    """Return whether a feature set that the parameters name reads what `pretrain` makes."""
    given = run.params.encoders
    return any(ENCODERS[encoders.kind(given, name)].pretrained for name in encoders.networks(given, encoded(run)))


def encoded(run: Run) -> list[str]:
    """Return the encoders that a run needs, parts of others included."""
    return encoders.whole(run.params.encoders, run.params.encode.encoders)


def _read(run: Run, stages: Iterable[str]) -> list[str]:
    """Return those of the stages that a study reads: codes only where they are judged by use."""
    return [name for name in stages if name != "semantic_ids" or run.params.study.generative.features]


def _values(run: Run, section: str) -> dict[str, Any]:
    """Return a section; of `train` what the file gives: its class, which has the defaults, counts as code."""
    only, speed = ONLY.get((run.stage, section)), SPEED.get(section, set())
    if section == "source":
        return run.source.model_dump(mode="json")
    if section == "encoders":  # of those that are not run nothing depends on
        return encoding.settings(run.params.encoders, encoded(run))
    if section == "train":
        train = run.params.train_section
        return {key: train[key] for key in train if key not in speed and (only is None or key in only)}
    values: dict[str, Any] = getattr(run.params, section).model_dump(mode="json", include=only, exclude=speed)
    return values
