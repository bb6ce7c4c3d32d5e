"""`alignrec sweep`: settings of one model, of which valid chooses; test is opened for the winner alone.

With `sweep.test_selected` test is opened for every setting, as published tables do; its choice has a name of its own.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

import schemas
from pipeline import engine
from pipeline.benchmark.params import Benchmark, Range, Sweep
from pipeline.benchmark.runs import NO_FEATURES, Entry
from pipeline.benchmark.settings import model_settings, search_ranges
from pipeline.config.base import checked
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF, bounded
from pipeline.experiment.cell import Cell, Opens
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.run import Experiment, Work
from pipeline.experiment.search import Search, Setting, Space, Tried, became, best, grid
from pipeline.experiment.store import Record
from pipeline.experiment.tables import effects
from pipeline.experiment.tables.benchmark import judged, results
from pipeline.models import MODELS
from pipeline.models.params import Train
from pipeline.seeds import seed_for
from pipeline.train.params import Released

TPE = "tpe"


@dataclass(frozen=True)
class Asked:
    """What is swept."""

    model: str
    features: str
    """feature set, or NO_FEATURES"""
    kind: str
    """TPE, or the grid's name"""
    space: Space
    first: list[Setting]
    """settings tried before any that TPE draws: the current one, or the whole grid"""
    trials: int
    """settings in all"""

    @property
    def names(self) -> tuple[str, str, str]:
        """Its names in the layout."""
        return self.model, self.features, self.kind


class Won(NamedTuple):
    """One training of a setting that won, evaluated on test as the benchmark does."""

    number: int
    """of the setting"""
    seed: int
    """number of the run; equal to the benchmark's, so that figures compare"""


def asked(params: Parameters, model: str, features: str | None, grid_name: str | None, tpe: int | None) -> Asked:
    """Return what a command line asks for; UserError: neither or both of grid and tpe, an unknown name or key."""
    if model not in MODELS:
        raise UserError(f"no model '{model}'; known: {', '.join(MODELS)}")
    if (grid_name is None) == (tpe is None):
        raise UserError("a sweep is either --grid <name> or --tpe <settings to try>")
    content = (features or params[Released].features) if MODELS[model].needs else NO_FEATURES
    own = MODELS[model].Params.grid
    grids = params[Sweep].grids | ({"authors": own} if own else {})
    if grid_name is None:
        assert tpe is not None
        ranges = search_ranges(params, model)
        wanted = Asked(model, content, TPE, ranges, current(params, model, ranges), tpe)
    elif grid_name in grids:
        values = grids[grid_name]
        wanted = Asked(model, content, grid_name, values, grid(values), len(grid(values)))
    else:
        raise UserError(f"sweep.grids: no '{grid_name}'; there are {', '.join(grids)}")
    settings(params, model, {name: v[0] if isinstance(v, list) else v.low for name, v in wanted.space.items()})
    return wanted


def current(params: Parameters, model: str, ranges: Mapping[str, Range]) -> list[Setting]:
    """Return the setting of params.yaml, if it lies in the ranges: the baseline."""
    base = model_settings(params, model)
    setting = {name: getattr(base, name, math.nan) for name in ranges}
    return [setting] if all(ranges[name].low <= value <= ranges[name].high for name, value in setting.items()) else []


def settings(params: Parameters, model: str, changed: Setting) -> Train:
    """Return a model's settings with some keys changed; UserError names a key or value that it refuses."""
    base = model_settings(params, model)
    return checked(type(base), base.model_dump() | changed, model)


def tried(experiment: Experiment, wanted: Asked) -> list[Tried]:
    """Try what has not been tried, and return all by number; the bar shows how many."""
    own = experiment.params[Sweep]
    done: list[Tried] = []
    search = Search(own, wanted.space, experiment.run.seed(*wanted.names), wanted.first)
    under_way: deque[tuple[int, Setting, Sequence[Cell]]] = deque()

    def groups() -> Iterator[Sequence[Cell]]:
        for number in range(len(done), wanted.trials):
            setting, rule = search.suggest(number, done)
            first, *others = trainings(experiment, wanted, setting)
            under_way.append((number, setting, [replace(first, pruning=rule), *others]))
            yield under_way[-1][-1]

    def is_taken() -> bool:
        number, setting, cells = under_way[0]
        if one := became(number, setting, map(experiment.store.get, cells)):
            experiment.named |= {cell.key: cell for cell in cells}
            under_way.popleft()
            done.append(one)
            bar.update()
        return one is not None

    with experiment.run.progress(total=wanted.trials, unit="setting", what=" ".join(wanted.names)) as bar:
        found = all(is_taken() for _ in groups())
        under_way.clear()
        make, places = partial(Work, experiment.store, tolerant=True), engine.Processes(own.workers)
        for _ in () if found else engine.map(make, groups(), places):  # when each is trained, in order
            is_taken()
    return done


def trainings(experiment: Experiment, wanted: Asked, setting: Setting) -> list[Cell]:
    """Return the cells of a setting, one a seed; a later one is trained if those before ended as they should."""
    params, own = experiment.params, experiment.params[Sweep]
    data = Stored.of(params, experiment.layout, wanted.features)
    chosen, ks = settings(params, wanted.model, setting), (CUTOFF,)
    if own.test_selected:
        ks = (bounded(experiment.split.n_items),)
    opens: Opens = "test" if own.test_selected else "valid"
    seeds = [seed_for("sweep", experiment.dataset, wanted.model, i) for i in range(own.seeds)]
    return [Cell(data, wanted.model, chosen, experiment.rules, seed, ks, opens) for seed in seeds]


def winners(experiment: Experiment, done: Sequence[Tried]) -> dict[str, Tried]:
    """Return what selected -> the setting: valid, and test where that was measured; UserError if none is complete."""
    won = {}
    for by in ("valid", "test") if experiment.params[Sweep].test_selected else ("valid",):
        if (one := best(done, by)) is None:
            raise UserError(f"sweep: none of {len(done)} settings trained to the end; the first: {done[0].reason}")
        won[by] = one
    return won


def final(experiment: Experiment, wanted: Asked, won: Mapping[str, Tried]) -> dict[Won, Cell]:
    """Return the cells of the settings that won, over the benchmark's seeds."""
    params = experiment.params
    data = Stored.of(params, experiment.layout, wanted.features)
    return {
        Won(one.number, seed): benchmark.cell(
            experiment, data, wanted.model, settings(params, wanted.model, one.setting), seed
        )
        for one in won.values()
        for seed in range(params[Benchmark].seeds)
    }


def table(
    experiment: Experiment,
    wanted: Asked,
    done: Sequence[Tried],
    won: Mapping[str, Tried],
    found: Mapping[Won, Record],
) -> dict[str, Any]:
    """Return the files of a sweep; what selected a setting is in column selected_by."""
    each = [
        results(
            experiment.dataset,
            [
                judged(Entry(wanted.model, wanted.features, run.seed)._asdict(), record, variant)
                for run, record in found.items()
                if run.number == one.number
                for variant in range(len(record.judged))
            ],
            by,
        )
        for by, one in won.items()
    ]
    return {
        "trials.parquet": trials(done, list(wanted.space)),
        "effects.json": effects.effects(done, wanted.space),
        "results.parquet": pa.concat_tables(each),
    }


def trials(done: Sequence[Tried], names: Sequence[str]) -> pa.Table:
    """Return table trials(names)."""
    rows = [
        {"trial": t.number, "state": t.state, **{name: float(t.setting[name]) for name in names}, "epochs": t.epochs,
         "valid": t.valid, "test": t.test, "reason": t.reason}
        for t in done
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.trials(names))
