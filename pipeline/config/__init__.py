"""params.yaml as closed, typed, frozen classes: one a stage.

An unknown key, a wrong type or a value out of range is one line that names section, key and the nearest valid key.
Where each section stands: sources.py; data.py (download, interactions, items, images); features.py (pretrain, encode,
graph); train.py; judging.py (probe, benchmark, sweep); release.py (report, publish).
"""

from __future__ import annotations

import difflib
import types
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import Field, ValidationError

from pipeline.config.base import Name, Section
from pipeline.config.data import Download, Images, Interactions, Items
from pipeline.config.features import Encode, Graph, Pretrain
from pipeline.config.judging import Benchmark, Probe, Range, Sweep
from pipeline.config.release import Publish, Report
from pipeline.config.sources import KINDS, AmazonSource, MmrecSource, SampleSource, Source, TabularSource
from pipeline.config.train import (
    Model,
    Overrides,
    Train,
    TrainBm3,
    TrainDualgnn,
    TrainFreedom,
    TrainGrcn,
    TrainItemKnn,
    TrainLattice,
    TrainMgcn,
    TrainMmgcn,
    TrainSlmrec,
)
from pipeline.errors import UserError

__all__ = [
    "KINDS",
    "AmazonSource",
    "Benchmark",
    "Download",
    "Encode",
    "Graph",
    "Images",
    "Interactions",
    "Items",
    "MmrecSource",
    "Model",
    "Overrides",
    "Params",
    "Pretrain",
    "Probe",
    "Publish",
    "Range",
    "Report",
    "SampleSource",
    "Section",
    "Source",
    "Sweep",
    "TabularSource",
    "Train",
    "TrainBm3",
    "TrainDualgnn",
    "TrainFreedom",
    "TrainGrcn",
    "TrainItemKnn",
    "TrainLattice",
    "TrainMgcn",
    "TrainMmgcn",
    "TrainSlmrec",
    "load",
]


class Params(Section):
    """The whole of params.yaml."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """what `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, Source]
    download: Download = Download()
    interactions: Interactions = Interactions()
    items: Items = Items()
    images: Images = Images()
    pretrain: Pretrain = Pretrain()
    encode: Encode = Encode()
    graph: Graph = Graph()
    train: Train = Train()
    probe: Probe = Probe()
    benchmark: Benchmark = Benchmark()
    sweep: Sweep = Sweep()
    report: Report = Report()
    publish: Publish = Publish()

    def source(self, dataset: str) -> SampleSource | AmazonSource | MmrecSource | TabularSource:
        """Return where `dataset` comes from; an unknown name raises UserError with the nearest known one."""
        if dataset not in self.sources:
            raise UserError(f"no dataset '{dataset}' under sources in the parameters{_nearest(dataset, self.sources)}")
        return self.sources[dataset]


def load(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises:
        UserError: the file is absent, no YAML mapping, or breaks a class above; one line, first fault.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file; run from the project's root or pass --params") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    try:
        params = Params.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{path}: {_first_fault(e)}") from None
    for name in params.datasets:
        params.source(name)
    return params


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    loc = [
        str(part) for part in fault["loc"] if part not in KINDS or fault["loc"].index(part) < 2
    ]  # pydantic adds the union's tag to the path
    where = ".".join(loc) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_nearest(loc[-1], _valid_keys(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{where}' is required"
    return f"'{where}': {fault['msg'].lower()}, found {fault['input']!r}"


def _valid_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys of the section at `loc`, following the annotations from Params down."""
    at: Any = Params
    for part in loc:
        if isinstance(at, type) and issubclass(at, Section):
            at = at.model_fields[part].annotation
        elif get_origin(at) is dict:
            at = get_args(at)[1]
        for option in _members(at):  # a tagged union: the tag is the next part of the path
            kind = option.model_fields.get("kind")
            if kind and part in get_args(kind.annotation):
                at = option
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, Section) else []


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return get_args(annotation) if isinstance(annotation, types.UnionType) else ()


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(known)}" if known else ""
