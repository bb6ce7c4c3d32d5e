"""Settings of each model in the benchmark, and its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignrec.pipeline.benchmark.params import RATES, SPACES, Benchmark, Range, Search
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.protocol import Protocol, selecting_protocol
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import ABLATED, MODELS, RELEASED
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate


def model_settings(params: Parameters, model: str, ablation: str = "") -> Train:
    """Override a model's defaults with `train`, `benchmark.overrides` and the ablation; UserError for a wrong key."""
    kind, benchmark = MODELS[ABLATED if ablation else model].Params, params[Benchmark]
    trained = params[TrainSettings].resolved().model_dump(exclude_unset=True)
    settings = {key: value for key, value in trained.items() if key in kind.model_fields}
    own, changed = (
        benchmark.overrides.get(model, {}),
        benchmark.ablations[ablation] if ablation else {},
    )
    for given, where in ((own, f"overrides.{model}"), (changed, f"ablations.{ablation}")):
        settings |= validate(kind, given, f"benchmark.{where}").model_dump(exclude_unset=True)
    return validate(kind, settings, f"benchmark.overrides.{model}")


def with_settings(params: Parameters, model: str, setting: Mapping[str, Any]) -> Parameters:
    benchmark = params[Benchmark]
    own = benchmark.overrides.get(model, {}) | dict(setting)
    return params.with_sections(
        benchmark.model_copy(update={"overrides": benchmark.overrides | {model: own}})
    )


def search_ranges(params: Parameters, model: str) -> dict[str, Range]:
    # in order of precedence: search.spaces, the model's default space, lr and l2
    rates = {
        key: values for key, values in RATES.items() if key in MODELS[model].Params.model_fields
    }
    return (SPACES | params[Search].spaces).get(model, rates)


def sweep_params(params: Parameters, setting: Mapping[str, int | float], where: str) -> Parameters:
    graph, train = (
        {
            key.removeprefix(f"{section}."): value
            for key, value in setting.items()
            if key.startswith(f"{section}.")
        }
        for section in ("graph", "train")
    )
    validate(MODELS[RELEASED].Params, train, f"{where}.train")
    changed = validate(
        Graph, params[Graph].model_dump(exclude_unset=True) | graph, f"{where}.graph"
    )
    return with_settings(params.with_sections(changed), RELEASED, train)


def protocol_of(params: Parameters, dataset: str, split: Split, *draws: Split) -> Protocol:
    published, interactions = params.source(dataset).has_split, params[Interactions]
    cores = f"users >= {interactions.user_core}, items >= {interactions.item_core}, repeatedly"
    kept = "as imported" if published or split.own else cores
    if interactions.min_rating is not None:
        kept = f"ratings >= {interactions.min_rating:g}, {kept}"
    division = split.division or (
        "mmrec" if published else "imported" if split.own else interactions.protocol
    )
    return selecting_protocol(params[Benchmark].protocol, division, kept, split, *draws)
