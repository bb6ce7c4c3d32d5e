"""The encoders that a study compares: arms of pre-training, the recipe, and what stands beside them."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.config.parameters import Parameters
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain
from pipeline.study.branch import Branch
from pipeline.study.params import RECIPE, REFERENCES, Study
from pipeline.study.settings import arm_params

WHOLE, RAW = "beit3", "beit3-raw"
SETS = (WHOLE, RAW, "beit3-image-masked", "beit3-text-masked")
"""feature sets of an encoder that the probes judge"""
FORMS = ("raw", "processed")
"""how probes read a feature set: as it is, and after the same processing as all others"""


class Arm(NamedTuple):
    """One encoder of an arm, or a feature set that stands beside the arms."""

    name: str
    seed: int | None
    """`pretrain.seed`; None for what no encoder of the study makes"""
    data: Layout
    """where its features and graphs lie"""
    branch: Branch
    """where its answers lie"""
    params: Parameters
    sets: tuple[str, ...]
    """feature sets that the probes judge"""
    trained: tuple[str, ...]
    """those of them that AlignRec is trained on"""

    def answer_key(self, probe: str, features: str, form: str) -> str:
        """Return the name of one tensor of `Branch.answers`."""
        return f"{probe}/{features}/{form}"


def planned(params: Parameters, layout: Layout) -> list[Arm]:
    """Return the arms, `recipe` first, and what stands beside them; nothing where there are no arms."""
    if not params[Study].arms:
        return []
    made = layout.feature_sets()
    arms = [
        _arm(params, layout, name, number)
        for name in (RECIPE, *params[Study].arms)
        for number in range(params[Study].encoder_seeds)
    ]
    return [*arms, *(_beside(layout, name, params) for name in REFERENCES if name in made)]


def _arm(params: Parameters, layout: Layout, name: str, number: int) -> Arm:
    own, trained = arm_params(params, name, number), tuple(dict.fromkeys(params[Study].arm_features))
    seed = own[Pretrain].seed
    branch = Branch(layout.root, layout.dataset, f"arms/{name}/{seed}", seed)
    if own[Pretrain] != params[Pretrain]:
        return Arm(name, seed, branch, branch, own, SETS, trained)
    made = layout.feature_sets()  # its encoder is the dataset's own
    sets = tuple(one for one in SETS if one in made)
    return Arm(name, seed, layout, branch, own, sets, tuple(one for one in trained if one in made))


def _beside(layout: Layout, name: str, params: Parameters) -> Arm:
    return Arm(name, None, layout, Branch(layout.root, layout.dataset, f"arms/{name}"), params, (name,), (name,))
