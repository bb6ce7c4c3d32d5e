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
    """Return the parameters of one encoder of a variant of pre-training.

    Args:
        name: of `study.variants`, or `recipe`, which is these parameters.
        number: of the encoder, from 0, by which the seed moves on.

    Raises:
        UserError: the variant has a key that `pretrain` has not, or a value that it refuses.
    """
    given = params[Pretrain].model_dump(exclude_unset=True) | params[Study].variants.get(name, {})
    section = checked(Pretrain, given, f"study.variants.{name}")
    if number:
        section = section.model_copy(update={"seed": section.seed + number})
    return params.having(section)


def sweep_params(params: Parameters, setting: Mapping[str, int | float], where: str) -> Parameters:
    """Return the parameters at one setting of a sweep; whether AlignRec accepts it, its settings say.

    Args:
        setting: dotted key -> value.
        where: path of the sweep.

    Raises:
        UserError: `graph` or `pretrain` has no such key, or refuses the value.
    """
    sections = []
    for name, kind in (("graph", Graph), ("pretrain", Pretrain)):
        given = params[kind].model_dump(exclude_unset=True) | part(setting, name)
        sections.append(checked(kind, given, f"{where}.{name}"))
    return with_settings(params.having(*sections), RELEASED, part(setting, "train"))
