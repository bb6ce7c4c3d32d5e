"""A sweep's suggestions, drawn by Optuna, and outcomes, one record each, from which a killed sweep goes on.

A suggestion depends on its number and on the outcomes that are `workers` before it, never on which training ended
first: a sweep that was killed ends as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from pipeline import io
from pipeline.benchmark.params import Range, Sweep
from pipeline.errors import UserError, installing
from pipeline.seeds import seed_for

if TYPE_CHECKING:
    import optuna

Setting = dict[str, int | float]
Space = Mapping[str, Range | list[int | float]]
"""key of `train` -> range, or values to choose from"""


class Suggestion(NamedTuple):
    """One setting to try."""

    number: int
    """from 0; the same whether or not the sweep was killed"""
    setting: Setting
    ended: list[optuna.trial.FrozenTrial]
    """complete trials, by whose curves it is pruned"""


class Outcome(NamedTuple):
    """What became of a suggestion."""

    number: int
    state: str
    """complete, pruned, failed"""
    curve: list[float]
    """best valid Recall@20 of the first training up to each epoch"""
    epochs: int
    """trained, all seeds together"""
    valid: float | None = None
    test: float | None = None
    reason: str = ""


class Study:
    """Suggests settings one after the other, and records their outcomes."""

    def __init__(self, folder: Path, params: Sweep, space: Space, seed: int, first: Sequence[Setting]) -> None:
        """Open or begin a study.

        Args:
            folder: of one record a setting, `<number>.json`; those after a missing one are tried again.
            params: how many are drawn at random, how many run at a time.
            space: what may be suggested.
            seed: of what TPE draws.
            first: settings suggested before TPE draws any; for a grid, all.

        Raises:
            UserError: Optuna is not installed.
        """
        self.optuna, self.folder, self.params, self.seed, self.first = library(), folder, params, seed, first
        self.distributions = {name: self._distribution(values) for name, values in space.items()}
        self.tried: list[tuple[Setting, Outcome]] = []
        self.under_way: dict[int, Setting] = {}
        while (path := self._record(len(self.tried))).is_file():
            record = io.read_json(path)
            self.tried.append((record["setting"], Outcome(**record["outcome"])))

    def ask(self, until: int) -> Iterator[Suggestion]:
        """Yield settings until `until` have ended or are under way."""
        for number in range(len(self.tried), until):
            ended = [self._trial(*one) for one in self.tried[: max(0, number + 1 - self.params.workers)]]
            sampler = self.optuna.samplers.TPESampler(
                seed=seed_for(self.seed, number) % 2**32, n_startup_trials=self.params.startup
            )
            study = self.optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(ended)
            if number < len(self.first):
                study.enqueue_trial(self.first[number])
            setting = dict(study.ask(self.distributions).params)
            self.under_way[number] = setting
            complete = self.optuna.trial.TrialState.COMPLETE
            yield Suggestion(number, setting, [trial for trial in ended if trial.state == complete])

    def tell(self, outcome: Outcome) -> None:
        """Record what became of a setting; outcomes come in the order of their numbers."""
        setting = self.under_way.pop(outcome.number)
        io.write_json(self._record(outcome.number), {"setting": setting, "outcome": outcome._asdict()})
        self.tried.append((setting, outcome))

    def outcomes(self) -> list[tuple[Setting, Outcome]]:
        """Return every setting that has ended, and its outcome, by number."""
        return list(self.tried)

    def _record(self, number: int) -> Path:
        return self.folder / f"{number}.json"

    def _trial(self, setting: Setting, outcome: Outcome) -> optuna.trial.FrozenTrial:
        """Return a setting that has ended as Optuna holds it."""
        states = self.optuna.trial.TrialState
        return self.optuna.trial.create_trial(
            state={"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state],
            value=outcome.valid if outcome.state == "complete" else None,
            params=setting,
            distributions=self.distributions,
            intermediate_values=dict(enumerate(outcome.curve)),
        )

    def _distribution(self, values: Range | list[int | float]) -> optuna.distributions.BaseDistribution:
        kinds = self.optuna.distributions
        if isinstance(values, list):
            return kinds.CategoricalDistribution(values)
        if isinstance(values.low, int) and isinstance(values.high, int):
            return kinds.IntDistribution(values.low, values.high, log=values.log)
        return kinds.FloatDistribution(values.low, values.high, log=values.log)


class Pruned(Exception):
    """The setting is below the median of the others at the same epoch."""


class Curve:
    """One training's valid figures, compared with those of trials that have ended, in a study in memory."""

    def __init__(self, params: Sweep, ended: Sequence[optuna.trial.FrozenTrial]) -> None:
        optuna = library()
        pruner = optuna.pruners.MedianPruner(n_startup_trials=params.startup, n_warmup_steps=params.warmup)
        study = optuna.create_study(direction="maximize", pruner=pruner)
        study.add_trials(ended)
        self.trial = study.ask()
        self.best: list[float] = []

    def add(self, value: float) -> None:
        """Add an epoch's figure; raise Pruned if the setting is below the median of the others."""
        self.best.append(max([value, *self.best[-1:]]))
        self.trial.report(self.best[-1], len(self.best) - 1)
        if self.trial.should_prune():
            raise Pruned


def library() -> ModuleType:
    """Return Optuna, with warnings alone; UserError says how to install it."""
    try:
        import optuna
    except ImportError:
        raise UserError(f"a sweep needs Optuna: {installing('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
