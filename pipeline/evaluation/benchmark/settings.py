"""Settings of each model in the benchmark, and its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.benchmark.params import RATES, SPACES, Benchmark, Range, Search
from alignrec.pipeline.evaluation.protocol import Protocol, selecting_protocol
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import ABLATED, RELEASED
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.settings import params_of
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate


def model_settings(params: Parameters, model: str, ablation: str = "") -> Train:
    """Override a model's defaults with `train`, `benchmark.overrides` and the ablation.

    Raise UserError for a wrong key.
    """
    benchmark = params[Benchmark]
    kind = params_of(ABLATED if ablation else model)
    trained = params[TrainSettings].resolved().model_dump(exclude_unset=True)
    settings = {key: value for key, value in trained.items() if key in kind.model_fields}

    changes = {f"overrides.{model}": benchmark.overrides.get(model, {})}
    if ablation:
        changes[f"ablations.{ablation}"] = benchmark.ablations[ablation]
    for key, changed in changes.items():
        settings |= validate(kind, changed, f"benchmark.{key}").model_dump(exclude_unset=True)
    return validate(kind, settings, f"benchmark.overrides.{model}")


def with_settings(params: Parameters, model: str, setting: Mapping[str, Any]) -> Parameters:
    benchmark = params[Benchmark]
    overrides = benchmark.overrides | {model: benchmark.overrides.get(model, {}) | dict(setting)}
    return params.with_sections(benchmark.model_copy(update={"overrides": overrides}))


def search_ranges(params: Parameters, model: str) -> dict[str, Range]:
    # in order of precedence: search.spaces, the model's default space, lr and l2
    spaces = SPACES | params[Search].spaces
    if model in spaces:
        return spaces[model]
    fields = params_of(model).model_fields
    return {key: space for key, space in RATES.items() if key in fields}


def sweep_params(params: Parameters, setting: Mapping[str, int | float], where: str) -> Parameters:
    by_section: dict[str, dict[str, int | float]] = {"graph": {}, "train": {}}
    for dotted, value in setting.items():
        section, _, key = dotted.partition(".")
        by_section[section][key] = value

    train = by_section["train"]
    validate(params_of(RELEASED), train, f"{where}.train")
    graph = params[Graph].model_dump(exclude_unset=True) | by_section["graph"]
    changed = validate(Graph, graph, f"{where}.graph")
    return with_settings(params.with_sections(changed), RELEASED, train)


def protocol_of(params: Parameters, dataset: str, split: Split, *draws: Split) -> Protocol:
    interactions = params[Interactions]
    is_published = params.source(dataset).has_split
    if is_published or split.own:
        filtering = "as imported"
    else:
        cores = f"users >= {interactions.user_core}, items >= {interactions.item_core}"
        filtering = f"{cores}, repeatedly"
    if interactions.min_rating is not None:
        filtering = f"ratings >= {interactions.min_rating:g}, {filtering}"

    division = split.division
    if not division and is_published:
        division = "mmrec"
    if not division:
        division = "imported" if split.own else interactions.protocol
    return selecting_protocol(params[Benchmark].protocol, division, filtering, split, *draws)
