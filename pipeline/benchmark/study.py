"""A sweep's suggestions and outcomes, kept by Optuna in an SQLite file from which a killed sweep goes on.

Suggestions depend on seeds and earlier outcomes, never on which training ended first: a sweep that was killed ends as
one that was not.
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
"""key of `train` -> range, or values to choose from"""
ATTRIBUTE = "told"
"""of a trial in the SQLite file: its outcome"""


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

    def __init__(self, path: Path, params: Sweep, space: Space, seed: int, first: Sequence[Setting]) -> None:
        """Open or begin a study.

        Args:
            path: SQLite file.
            params: how many are drawn at random, how many run at a time.
            space: what may be suggested.
            seed: of what TPE draws.
            first: settings suggested before TPE draws any; for a grid, all.

        Raises:
            UserError: Optuna is not installed, or the file is no study.
        """
        self.optuna, self.params, self.seed, self.first = library(), params, seed, first
        self.distributions = {name: self._distribution(values) for name, values in space.items()}
        try:
            storage = self.optuna.storages.RDBStorage(f"sqlite:///{path}")
            self.study = self.optuna.create_study(
                storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
            )
        except Exception as e:  # SQLAlchemy raises many kinds for a file that is no database
            raise UserError(f"{path}: no study that can go on ({type(e).__name__}); delete it to start over") from e
        self.open: dict[int, optuna.trial.Trial] = {}
        self.interrupted: list[Setting] = []
        running = self.study.get_trials(states=[self.optuna.trial.TrialState.RUNNING])
        for trial in running:  # cut short by a kill: suggested again first, in their order
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            if trial.params:
                self.interrupted.append(trial.params)

    def ask(self, until: int) -> Iterator[Suggestion]:
        """Yield settings until `until` have ended or are under way."""
        for number in range(len(self.outcomes()), until):
            interrupted = self.interrupted.pop(0) if self.interrupted else None
            fixed = interrupted or (self.first[number] if number < len(self.first) else None)
            if fixed is not None:
                self.study.enqueue_trial(fixed)
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=seed_for(self.seed, number) % 2**32, n_startup_trials=self.params.startup
            )
            trial = self.study.ask(self.distributions)
            self.open[number] = trial
            yield Suggestion(number, dict(trial.params), self._ended(number))

    def tell(self, outcome: Outcome) -> None:
        """Record what became of a setting."""
        trial = self.open.pop(outcome.number)
        for epoch, value in enumerate(outcome.curve):
            trial.report(value, epoch)
        trial.set_user_attr(ATTRIBUTE, outcome._asdict())
        states = self.optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state]
        self.study.tell(trial, outcome.valid if outcome.state == "complete" else None, state)

    def outcomes(self) -> list[tuple[Setting, Outcome]]:
        """Return every setting that has ended, and its outcome, by number."""
        ended = [
            (dict(trial.params), Outcome(**trial.user_attrs[ATTRIBUTE]))
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and ATTRIBUTE in trial.user_attrs
        ]
        by_number = {outcome.number: (setting, outcome) for setting, outcome in ended}  # the last one of retries
        return [by_number[number] for number in sorted(by_number)]

    def _ended(self, number: int) -> list[optuna.trial.FrozenTrial]:
        """Return the complete trials that ended before `number` was suggested, had nothing been killed."""
        complete = self.study.get_trials(states=[self.optuna.trial.TrialState.COMPLETE])
        return [t for t in complete if t.user_attrs[ATTRIBUTE]["number"] <= number - self.params.workers]

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
        raise UserError("a sweep needs Optuna; install the extra `sweep`: pip install 'alignrec[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
