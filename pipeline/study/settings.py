"""The parameters of each encoder and setting that the study compares."""

from collections.abc import Mapping

from pipeline.benchmark.settings import with_settings
from pipeline.config.base import checked
from pipeline.config.parameters import Parameters
from pipeline.graph.params import Graph
from pipeline.models import RELEASED
from pipeline.pretrain.params import Pretrain
from pipeline.study.params import Study, part


def variant_params(params: Parameters, name: str, number: int = 0) -> Parameters:
    """Return the parameters of the encoder `number`, which is added to its seed, of a variant or of `recipe`.

    UserError if the variant has an unknown key of `pretrain`, or a value that it refuses.
    """
    given = params[Pretrain].model_dump(exclude_unset=True) | params[Study].variants.get(name, {})
    section = checked(Pretrain, given, f"study.variants.{name}")
    if number:
        section = section.model_copy(update={"seed": section.seed + number})
    return params.having(section)


def sweep_params(params: Parameters, setting: Mapping[str, int | float], where: str) -> Parameters:
    """Return the parameters at one setting of a sweep, dotted key -> value; UserError names the path `where`.

    Keys of `train` are checked where AlignRec's settings are made.
    """
    sections = (
        checked(kind, params[kind].model_dump(exclude_unset=True) | part(setting, name), f"{where}.{name}")
        for name, kind in (("graph", Graph), ("pretrain", Pretrain))
    )
    return with_settings(params.having(*sections), RELEASED, part(setting, "train"))
