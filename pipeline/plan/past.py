"""What stages took in runs of this machine, with the sizes and parameters that they ran with."""

from pipeline import io
from pipeline.config.base import checked
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.plan.estimate import STAGES, Plan
from pipeline.plan.size import counted


def runs(params: Parameters, layout: Layout, gemm: float) -> dict[str, tuple[Plan, float]]:
    """Return stage -> plan of a run and the seconds of the stage in it: of the dataset itself, else of another one.

    Args:
        params: for what the records do not hold, such as the kinds of encoders.
        gemm: operations of float32 products a second.
    """
    found: dict[str, tuple[Plan, float]] = {}
    others = sorted(folder.name for folder in layout.root.glob("interactions/*/"))
    for own in (Layout(layout.root, name) for name in dict.fromkeys([layout.dataset, *others])):
        if (size := counted(own, 0)) is None:
            continue
        plan = Plan(_as_run(params, own), size, own.feature_sets(), gemm)
        for stage in STAGES.keys() - found.keys():
            if own.cost(stage).exists() and own.run_record(stage).exists():
                found[stage] = plan, float(io.read_json(own.cost(stage))["seconds"])
    return found


def _as_run(params: Parameters, layout: Layout) -> Parameters:
    """Return parameters with the sections of a dataset's records; one that is no longer valid stays as it is asked."""
    for stage in STAGES:
        if layout.run_record(stage).exists():
            kind, given = type(getattr(params, stage)), io.read_json(layout.run_record(stage))["params"]
            try:
                params = params.having(checked(kind, given, stage))
            except UserError:
                continue
    return params
