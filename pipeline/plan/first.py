"""What the first run of a new project takes on this machine: minutes of each stage that takes any."""

from collections.abc import Iterator

from pipeline.config.parameters import Parameters
from pipeline.features.registry import feature_sets
from pipeline.ops.device import gemm_rate, pick
from pipeline.plan import estimate
from pipeline.plan.command import duration
from pipeline.plan.size import Size

AFFORDABLE = 600.0
"""seconds of pre-training up to which a new project has BEiT3 unasked"""
LONG = 60.0
"""seconds from which a stage is worth a line"""


def seconds(params: Parameters, dataset: str, size: Size) -> dict[str, float]:
    """Return stage -> seconds on this machine, by its rate of products."""
    plan = estimate.Plan(params, size, feature_sets(params, dataset), gemm_rate("float32"))
    return {stage: of.seconds for stage, of in estimate.stages(plan, {}).items()}


def affordable(taken: dict[str, float]) -> bool:
    """Return whether pre-training is short here, or has a GPU."""
    return taken["pretrain"] <= AFFORDABLE or pick().type == "cuda"


def lines(taken: dict[str, float]) -> Iterator[str]:
    """Yield the stages that take long, and the sum of all."""
    long = [f"{stage} {duration(s)}" for stage, s in taken.items() if s >= LONG]
    total = f"dvc repro will take about {duration(sum(taken.values()))} on this machine"
    yield f"{total}: {', '.join(long)}" if long else total
