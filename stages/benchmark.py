"""benchmark: models x feature sets x seeds -> a cell a run; results, slices, paired tests, and the headline means.

With a budget, settings are first tried on valid, the same number for every model and feature set.
"""

from typing import Any

from pipeline.benchmark.params import Benchmark, Search
from pipeline.features import needs as features
from pipeline.interactions.params import Interactions
from pipeline.models import MODELS, RELEASED
from pipeline.registry import Registry
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import Needs, Stage
from pipeline.train.params import Released
from stages.encode import ENCODE
from stages.graph import GRAPH
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    """Train what has no record yet, then write the tables."""
    from pipeline.experiment.plans import benchmark as plans  # load torch
    from pipeline.experiment.run import Experiment
    from pipeline.experiment.tables import benchmark as tables

    experiment = Experiment(run, run.params[Benchmark].workers, draws=run.layout.draws())
    run.params[Benchmark].check(experiment.split.n_items)
    found = experiment.complete(plans.plan(experiment))
    experiment.write(tables.table(experiment, found))
    experiment.end()
    run.rows_in, run.rows_out = len(found), len(found)


def needs(run: Run) -> Needs:
    """The ranges that a budget draws from count where there is one."""
    params = run.params
    facts = [params[Released].facts(), params[Interactions].facts(), run.source.model_dump(mode="json")]
    if params[Benchmark].budget:
        facts.append(params[Search].model_dump(mode="json"))
    parts: list[tuple[Registry[Any], str]] = [(SOURCES, run.source.kind)]
    parts += [(MODELS, name) for name in dict.fromkeys([*params[Benchmark].models, RELEASED])]
    if len(run.layout.draws()) > 1:  # sets that learn from interactions learn again
        learning = [name for name in features.named(params) if features.learns(params.encoders, name)]
        facts.append(features.settings(params.encoders, learning))
        parts += features.kinds(params.encoders, learning)
    return BENCHMARK.depends(run, *facts, parts=parts)


BENCHMARK = Stage(
    "benchmark",
    does="models x feature sets x seeds under one protocol",
    writes="`results.parquet` (long), `slices.parquet`, `tests.parquet`, `protocol.json`, `metrics.json`",
    reads=(INTERACTIONS, ENCODE, GRAPH),
    params=Benchmark,
    main=main,
    needs=needs,
    loads=(SOURCES, MODELS),
)
