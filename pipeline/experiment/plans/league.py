"""The league, a benchmark on several splits: every model tries equally many settings on each, valid chooses one, which
runs with several seeds.

Settings are the authors' grid in a seeded order, then draws from the search range. The try of a setting is its run of
the first seed, so that the chosen one needs one training less.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import NamedTuple

import numpy as np

import schemas
from pipeline.benchmark.params import AUTHORS, Benchmark
from pipeline.benchmark.runs import NO_FEATURES
from pipeline.benchmark.settings import model_settings, protocol_of, search_ranges, with_settings
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.protocol import Protocol
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.plans import benchmark
from pipeline.experiment.plans.tuning import Tuned
from pipeline.experiment.run import Experiment
from pipeline.experiment.search import Contender, Setting, Tried, best, grid, halton
from pipeline.experiment.store import Record
from pipeline.features import registry
from pipeline.interactions import again
from pipeline.interactions.division import Division
from pipeline.interactions.params import Interactions
from pipeline.interactions.split import Split
from pipeline.layout import Layout, OtherSplit
from pipeline.models import MODELS, RELEASED, closed
from pipeline.seeds import seed_for
from pipeline.train import inputs
from pipeline.train.params import Released


class LeagueRun(NamedTuple):
    """One training."""

    contender: Contender
    split: int  # 0 is the data's own
    number: int  # of the setting
    seed: int  # number of the run


@dataclass(frozen=True)
class Season:
    """Contenders, data and protocols of a league."""

    experiment: Experiment
    sets: list[str]  # the feature set that is judged, then those that it is tested against
    contenders: list[Contender]
    left_out: dict[str, str]  # model -> why it does not take part
    layouts: list[Layout]  # by split
    splits: list[Split]
    rules: list[Protocol]  # by split

    @property
    def benchmark(self) -> Benchmark:
        return self.experiment.params[Benchmark]

    @property
    def k(self) -> int:
        return headline(self.benchmark.ks)

    @property
    def main(self) -> list[Contender]:
        return [one for one in self.contenders if one.features in (NO_FEATURES, *self.sets[:1])]

    @cached_property
    def settings(self) -> dict[str, list[Setting]]:
        names = dict.fromkeys(one.model for one in self.contenders)
        return {name: settings(self.experiment.params, name) for name in names}

    def cell(self, one: LeagueRun) -> Cell:
        params, (model, features) = self.experiment.params, one.contender
        chosen = model_settings(with_settings(params, model, self.settings[model][one.number]), model)
        data = Stored.of(params, self.layouts[one.split], features)
        return replace(benchmark.cell(self.experiment, data, model, chosen, one.seed), protocol=self.rules[one.split])


class Played(NamedTuple):
    """Trainings of a league."""

    found: dict[LeagueRun, Record]
    chosen: dict[tuple[Contender, int], int]  # contender and split -> number of the setting of best valid Recall@20

    def runs(self, contender: Contender, split: int, seeds: int) -> dict[int, Record]:
        number = self.chosen[contender, split]
        each = {seed: self.found[LeagueRun(contender, split, number, seed)] for seed in range(seeds)}
        return {seed: record for seed, record in each.items() if record.judged}

    def whole(self, seeds: int) -> list[Contender]:
        """Return the contenders whose runs on the dataset's own split are all complete."""
        return [one for one, split in self.chosen if not split and len(self.runs(one, split, seeds)) == seeds]


def settings(params: Parameters, model: str) -> list[Setting]:
    """Return the settings of a model, at most `budget`; a larger budget begins with the same ones."""
    budget = params[Benchmark].budget
    own, seed = AUTHORS if model == RELEASED else MODELS[model].Params.grid, seed_for("league", model)
    combinations = grid(own) if own else []
    order = np.random.default_rng(seed).permutation(len(combinations))
    ranges = search_ranges(params, model)
    drawn = halton(ranges, budget, seed) if ranges else []
    accepted = (s for s in [*(combinations[i] for i in order), *drawn] if _accepts(params, model, s))
    return list(islice(accepted, budget)) or [{}]


def _accepts(params: Parameters, model: str, setting: Setting) -> bool:
    try:
        model_settings(with_settings(params, model, setting), model)
    except UserError:  # an invalid combination
        return False
    return True


def season(experiment: Experiment) -> Season:
    """Draw the splits, and return who takes part on them.

    Raises:
        UserError: no model takes part, a feature set has seen what other splits test, or the split has several draws.
    """
    params, own = experiment.params, experiment.params[Benchmark]
    if len(experiment.draws) > 1:
        raise UserError(
            f"'benchmark.splits': the split of {experiment.dataset} has {len(experiment.draws)} draws; set "
            "interactions.draws or benchmark.splits to 1"
        )
    layouts = _split(experiment)
    sets = _sets(params, experiment.layout, len(layouts))
    left_out = dict(_left_out(params, experiment.dataset, sets, experiment.split.n_items))
    names = [name for name in own.models if name not in left_out]
    if not names:
        raise UserError(f"'benchmark.models': no model takes part; {next(iter(left_out.values()))}")
    read = [MODELS[name].needs for name in names]
    contenders = [
        Contender(name, features)
        for name, reads in zip(names, read, strict=True)
        for features in (sets if reads else [NO_FEATURES])
    ]
    splits = [inputs.read(layout, None).split for layout in layouts]
    rules = [protocol_of(params, experiment.dataset, split) for split in splits]
    return Season(experiment, sets, contenders, left_out, layouts, splits, rules)


def _left_out(params: Parameters, dataset: str, sets: list[str], n_items: int) -> Iterator[tuple[str, str]]:
    for model in params[Benchmark].models:
        kind = MODELS[model]
        if kind.needs and not sets:
            yield model, f"{model} reads features, and {dataset} has none"
        elif issubclass(kind, closed.Closed):
            own = model_settings(params, model)
            assert isinstance(own, closed.ClosedParams)
            try:
                closed.fits(n_items, own.gib, model)
            except UserError as e:
                yield model, str(e)


def _sets(params: Parameters, layout: Layout, splits: int) -> list[str]:
    made, released = layout.feature_sets(), params[Released].features
    sets = sorted((name for name in params[Benchmark].features if name in made), key=lambda name: name != released)
    if splits > 1 and (taught := [name for name in sets if registry.learns(params.encoders, name)]):
        raise UserError(
            f"'benchmark.features': '{taught[0]}' learned from train interactions that other splits test; choose other "
            "sets, or set benchmark.splits to 1"
        )
    return sets


def _split(experiment: Experiment) -> list[Layout]:
    run = experiment.run
    layout, params, inner = run.layout, run.params[Interactions], run.within("interactions", run.params, run.layout, "")
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    if run.params[Benchmark].splits > 1 and not again.is_drawn(interactions, params.protocol):
        run.warn(f"no seed divides these interactions ({params.protocol}), so there is one split")
        return [layout]
    users, items = run.read(layout.users, schemas.USERS), run.read(layout.item_ids, schemas.ITEM_IDS)
    facts = {k: v for k, v in schemas.provenance(interactions).items() if k in ("timestamps", "split", "division")}
    others: list[Layout] = []
    for number in range(1, run.params[Benchmark].splits):
        path = run.folder / "splits" / str(number) / "interactions.parquet"
        seed = seed_for("interactions", run.dataset, "split", "league", number)
        division = Division(params.protocol, seed, params.cold_share, params.most_train)
        read = [layout.interactions, layout.users, layout.item_ids]
        inner.resume(path.parent, read, division, modules=[again.__name__])
        if not path.is_file():
            rows = again.divided(interactions, users, items, division, path.parent / ".scratch", params.memory_limit)
            inner.write_all(rows, path, schemas.INTERACTIONS, **facts)
        others.append(OtherSplit(layout.root, layout.dataset, path))
        experiment.made.append(path)
    return [layout, *others]


def play(own: Season) -> Played:
    """Try every setting on every split, then run the chosen ones over the other seeds.

    Raises:
        UserError: all settings of all models failed.
    """
    experiment, splits = own.experiment, range(len(own.splits))
    tries = [
        LeagueRun(one, split, number, 0)
        for one, split in product(own.contenders, splits)
        for number in range(len(own.settings[one.model]))
    ]
    found = experiment.complete({one: own.cell(one) for one in tries}, "settings", tolerant=True)
    chosen = {}
    for one, split in product(own.contenders, splits):
        each = enumerate(own.settings[one.model])
        if won := best(
            [Tried.of(number, setting, found[LeagueRun(one, split, number, 0)]) for number, setting in each]
        ):
            chosen[one, split] = won.number
    if not chosen:
        raise UserError(f"benchmark: all settings failed; the first: {found[tries[0]].values['reason']}")
    seeds = range(1, own.benchmark.seeds)
    more = [LeagueRun(*key, number, seed) for key, number in chosen.items() for seed in seeds]
    found |= experiment.complete({one: own.cell(one) for one in more}, "seeds", tolerant=True)
    return Played(found, chosen)


def tuned(own: Season, played: Played) -> Tuned:
    return Tuned({
        one: [
            Tried.of(number, setting, played.found[LeagueRun(one, 0, number, 0)])
            for number, setting in enumerate(own.settings[one.model])
        ]
        for one in played.whole(own.benchmark.seeds)
    })  # fmt: skip
