"""Settings of one model -> every setting's valid figure, heat maps, and the winner's results. Not part of dvc.yaml."""

from pipeline import io
from pipeline.benchmark.params import Sweep
from pipeline.experiment.plans import search as plans
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import effects
from pipeline.run import Run


def main(run: Run, wanted: plans.Asked) -> None:
    """Try what has not been tried, then train the winner over the benchmark's seeds and open test; records stay."""
    layout = run.layout
    experiment = Experiment(run, run.params[Sweep].workers, layout.cells("benchmark"))
    done = plans.tried(experiment, wanted)
    won = plans.winners(experiment, done)
    found = experiment.complete(plans.final(experiment, wanted, won), "winner")
    written = plans.table(experiment, wanted, done, won, found)
    where = layout.sweep(*wanted.names).relative_to(run.folder)
    experiment.write({f"{where}/{name}": content for name, content in written.items()})
    all_effects = {names: io.read_json(layout.sweep_effects(*names)) for names in layout.sweeps()}
    io.write_json(layout.sweep_heatmaps(), effects.heatmaps(all_effects))
    run.rows_in, run.rows_out = wanted.trials, len(done)
