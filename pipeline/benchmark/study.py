"""A sweep's questions and answers, kept by Optuna in an SQLite file from which a killed sweep goes on.

What is asked depends on seeds and on earlier answers, never on which training ended first, so a sweep that was killed
ends as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config import Range, Sweep
from pipeline.errors import UserError
from pipeline.seeds import seed_for

if TYPE_CHECKING:
    import optuna

Setting = dict[str, int | float]
Space = Mapping[str, Range | list[int | float]]
"""key of `train` -> where to look, or what to choose from"""


class Asked(NamedTuple):
    """One setting to try."""

    number: int
    """from 0; the same whether or not the sweep was killed"""
    setting: Setting
    ended: list[optuna.trial.FrozenTrial]
    """complete trials, by whose curves it is pruned"""


class Told(NamedTuple):
    """What became of it."""

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
    """Asks settings one after the other, and is told what they are worth."""

    def __init__(self, path: Path, params: Sweep, space: Space, seed: int, first: Sequence[Setting]) -> None:
        """Open or begin a study.

        Args:
            path: SQLite file.
            params: how many are drawn at random, how many run at a time.
            space: what may be asked.
            seed: of what TPE draws.
            first: settings asked before TPE draws any; all there are, for a grid.

        Raises:
            UserError: Optuna is not installed, or the file is none of its own.
        """
        self.optuna, self.params, self.seed, self.first = library(), params, seed, first
        self.distributions = {name: self._distribution(found) for name, found in space.items()}
        try:
            storage = self.optuna.storages.RDBStorage(f"sqlite:///{path}")
            self.study = self.optuna.create_study(
                storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
            )
        except Exception as e:  # whatever SQLAlchemy makes of a file that is not its own
            raise UserError(f"{path}: no study that can go on ({type(e).__name__}); delete it to start over") from e
        self.open: dict[int, optuna.trial.Trial] = {}
        self.again: list[Setting] = []
        died = self.study.get_trials(states=[self.optuna.trial.TrialState.RUNNING])
        for trial in died:  # a kill cut them short: they are asked again first, in their order
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            if trial.params:
                self.again.append(trial.params)

    def ask(self, until: int) -> Iterator[Asked]:
        """Yield settings until `until` have been told of or are under way."""
        for number in range(len(self.told()), until):
            again = self.again.pop(0) if self.again else None
            fixed = again or (self.first[number] if number < len(self.first) else None)
            if fixed is not None:
                self.study.enqueue_trial(fixed)
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=seed_for(self.seed, number) % 2**32, n_startup_trials=self.params.startup
            )
            trial = self.study.ask(self.distributions)
            self.open[number] = trial
            yield Asked(number, dict(trial.params), self._ended(number))

    def tell(self, told: Told) -> None:
        """Record what became of a setting."""
        trial = self.open.pop(told.number)
        for epoch, value in enumerate(told.curve):
            trial.report(value, epoch)
        trial.set_user_attr("told", told._asdict())
        states = self.optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[told.state]
        self.study.tell(trial, told.valid if told.state == "complete" else None, state)

    def told(self) -> list[tuple[Setting, Told]]:
        """Return every setting that has ended and what it was worth, by number."""
        found = [
            (dict(trial.params), Told(**trial.user_attrs["told"]))
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and "told" in trial.user_attrs
        ]
        by_number = {told.number: (setting, told) for setting, told in found}  # of one cut short and retried, the last
        return [by_number[number] for number in sorted(by_number)]

    def _ended(self, number: int) -> list[optuna.trial.FrozenTrial]:
        """Return the complete trials that ended before `number` was asked, had nothing been killed."""
        complete = self.study.get_trials(states=[self.optuna.trial.TrialState.COMPLETE])
        return [t for t in complete if t.user_attrs["told"]["number"] <= number - self.params.workers]

    def _distribution(self, found: Range | list[int | float]) -> optuna.distributions.BaseDistribution:
        kinds = self.optuna.distributions
        if isinstance(found, list):
            return kinds.CategoricalDistribution(found)
        if isinstance(found.low, int) and isinstance(found.high, int):
            return kinds.IntDistribution(found.low, found.high, log=found.log)
        return kinds.FloatDistribution(found.low, found.high, log=found.log)


class Pruned(Exception):
    """The setting is below the median of the others at the same epoch."""


class Curve:
    """One training's valid figures, held against those of trials that have ended, in a study in memory."""

    def __init__(self, params: Sweep, ended: Sequence[optuna.trial.FrozenTrial]) -> None:
        optuna = library()
        pruner = optuna.pruners.MedianPruner(n_startup_trials=params.startup, n_warmup_steps=params.warmup)
        study = optuna.create_study(direction="maximize", pruner=pruner)
        study.add_trials(ended)
        self.trial = study.ask()
        self.best: list[float] = []

    def add(self, value: float) -> None:
        """Note an epoch's figure; raise Pruned if the setting is not worth another epoch."""
        self.best.append(max([value, *self.best[-1:]]))
        self.trial.report(self.best[-1], len(self.best) - 1)
        if self.trial.should_prune():
            raise Pruned


def library() -> ModuleType:
    """Return Optuna, quiet; UserError says how to install it."""
    try:
        import optuna
    except ImportError:
        raise UserError("a sweep needs Optuna; install the extra `sweep`: pip install 'alignrec[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
