"""Settings that every contender tries, equally many on each feature set; valid chooses, test is not opened.

The first setting is the one as given. The others are a quasi-random sequence of the model's space, the same for every
feature set, so that a larger budget continues a smaller one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import Entry
from pipeline.benchmark.settings import model_settings, search_ranges, with_settings
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.evidence import collect
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.experiment.run import Experiment
from pipeline.experiment.search import Contender, Setting, Tried, best, halton
from pipeline.models import MODELS, RELEASED
from pipeline.seeds import seed_for
from pipeline.train.params import Released


@dataclass(frozen=True)
class Tuned:
    """Tried settings by contender; empty without a budget."""

    tried: dict[Contender, list[Tried]]

    @property
    def chosen(self) -> dict[Contender, Tried]:
        """The best setting of each contender; UserError where all failed."""
        return {contender: _best(contender, tried) for contender, tried in self.tried.items()}

    def params(self, params: Parameters, entry: Entry) -> Parameters:
        """Return the parameters with the chosen setting of a run; ablations share that of the full model."""
        full = Contender(RELEASED, params[Released].features) if entry.ablation else Contender(*entry[:2])
        if full not in self.tried:
            return params
        return with_settings(params, entry.model, _best(full, self.tried[full]).setting)


def settings(params: Parameters, dataset: str, model: str) -> list[Setting]:
    """Return the settings of a model, `benchmark.budget` in all; none without a search space."""
    budget, ranges = params[Benchmark].budget, search_ranges(params, model)
    if not budget or not ranges:
        return []
    given = model_settings(params, model)
    drawn = halton(ranges, budget - 1, seed_for("tuning", dataset, model, "draws"))
    return [{name: getattr(given, name) for name in ranges}, *drawn]


def tuned(experiment: Experiment, entries: Iterable[Entry]) -> Tuned:
    params, dataset = experiment.params, experiment.dataset
    slow = [*reversed(MODELS)]
    ordered = sorted((e for e in entries if not e.ablation), key=lambda entry: slow.index(entry.model))
    contenders = dict.fromkeys(Contender(entry.model, entry.features) for entry in ordered)
    tries = {one: settings(params, dataset, one.model) for one in contenders}
    cells = {
        (one, number): cell(experiment, one, setting)
        for one, own in tries.items()
        for number, setting in enumerate(own)
    }
    records = experiment.complete(cells, "settings", "setting", tolerant=True)
    return Tuned(collect((one, Tried.of(n, tries[one][n], record)) for (one, n), record in records.items()))


def cell(experiment: Experiment, contender: Contender, setting: Setting) -> Cell:
    """Return the training of a setting; its seed depends on neither feature set nor setting."""
    model, features = contender
    data = Stored.of(experiment.params, experiment.layout, features)
    chosen = model_settings(with_settings(experiment.params, model, setting), model)
    seed = seed_for("tuning", experiment.dataset, model)
    return Cell(data, model, chosen, experiment.rules, seed, (CUTOFF,), "valid")


def _best(contender: Contender, tried: list[Tried]) -> Tried:
    if (found := best(tried)) is None:
        raise UserError(
            f"benchmark.budget: all {len(tried)} settings of {contender.name} failed; the first: {tried[0].reason}; "
            f"narrow search.spaces.{contender.model}"
        )
    return found
