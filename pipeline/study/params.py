"""Parameters of the stage `study`: the tables of the article beyond the benchmark."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.benchmark.params import AUTHORS
from pipeline.config.base import Name, Positive, Rate, Section, Share


class Mask(Section):
    """Mask modality (method.md section 5): one modality of some items is hidden, and AlignRec retrained."""

    ratios: Annotated[list[Share], Field(max_length=100)] = [0.5]
    """shares of items whose image (or text) is hidden; 0, the whole set, is always measured; empty: no training"""
    seeds: Positive = 3
    """trainings of AlignRec for each modality and ratio"""


class Wrong(Section):
    """Wrong content: some items have another item's image or text, or noise, and recommenders are retrained."""

    models: list[Name] = []
    """see pipeline/models/__init__.py; empty: no training"""
    features: list[Name] = ["beit3", "minilm-cnn"]
    """feature sets; for each, `encode` makes `<set>-wrong-image` and so on, see profiles/wrong.yaml"""
    what: list[Literal["image", "text", "noise"]] = ["image", "text", "noise"]
    """what is wrong"""
    ratios: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = [0.1, 0.5, 1.0]
    """shares of items with wrong content; the whole set is always measured"""
    seeds: Positive = 3
    """trainings of each model at each ratio"""


def spoilt(features: str, what: str) -> str:
    return f"{features}-wrong-{what}"


class Geometry(Section):
    """What each loss of AlignRec prevents: the shape of its vectors after each epoch of a training without the loss."""

    without: list[Literal["cca", "reg", "uia"]] = []
    """losses left out, one at a time, compared with the full AlignRec; empty: no training"""
    seeds: Positive = 3
    """trainings of each"""


class Joint(Section):
    """Joint compared with staged training: AlignRec and its encoder, from the initial weights of pre-training."""

    rates: list[Rate] = []
    """learning rates of the encoder, each as a share of AlignRec's: 1 is the same; empty: no training"""
    seeds: Positive = 3
    """trainings of each"""


PRESETS: dict[str, dict[str, list[int | float]]] = {"authors": {f"train.{key}": v for key, v in AUTHORS.items()}}
SECTIONS = ("train", "graph", "pretrain")  # whose keys a sweep may change
RECIPE = "recipe"  # the variant of unchanged parameters
REFERENCES = ("beit3-untrained", "beit3-official", "tfidf")  # feature sets next to the variants, if encoded


def _free(variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name in (RECIPE, *REFERENCES):
        if name in variants:
            raise ValueError(f"'{name}' is another row of the same table; choose another name")
    return variants


def _preset(sweep: Any) -> Any:
    if isinstance(sweep, str) and sweep not in PRESETS:
        raise ValueError(f"there is no preset of this name; give keys and values, or one of {', '.join(PRESETS)}")
    return PRESETS[sweep] if isinstance(sweep, str) else sweep


def _dotted(sweep: dict[str, list[int | float]]) -> dict[str, list[int | float]]:
    for key in sweep:
        section, _, rest = key.partition(".")
        if section not in SECTIONS or not rest:
            raise ValueError(f"'{key}' is no key of {', '.join(SECTIONS)}; write it as in train.lr or graph.k")
    return sweep


def part(setting: Mapping[str, int | float], section: str) -> dict[str, int | float]:
    return {key.partition(".")[2]: value for key, value in setting.items() if key.startswith(f"{section}.")}


Values = Annotated[list[int | float], Field(min_length=1)]
Space = Annotated[dict[str, Values], Field(min_length=1), BeforeValidator(_preset), AfterValidator(_dotted)]


class Study(Section):
    """What the article measures beyond models x feature sets; a part that is left empty takes no time."""

    speed: ClassVar[frozenset[str]] = frozenset({"workers"})

    mask: Mask = Mask()
    wrong: Wrong = Wrong()
    geometry: Geometry = Geometry()
    joint: Joint = Joint()
    tail: bool = True
    """whether AlignRec is tested against every other model by popularity and by history; trains nothing"""
    variants: Annotated[dict[Name, dict[str, Any]], AfterValidator(_free)] = {}
    """variant -> keys of `pretrain` that differ: the encoder is trained so, and `beit3` and `beit3-raw` of it
    are judged and recommended with"""
    encoder_seeds: Positive = 1
    """encoders of each variant: their `pretrain.seed` is that of the parameters, the next, ..."""
    sweeps: dict[Name, Space] = {}
    """sweep -> key (`train.lr`, `graph.k`, `pretrain.steps`) -> values; all combinations are tried on valid,
    or the name of a preset: `authors`; one key makes a curve, two a heat map, more a heat map a pair"""
    seeds: Positive = 5
    """trainings of AlignRec for each variant, and for each value of a sweep"""
    workers: Positive = 2
    """trainings at a time, one thread each"""

    def trainings(self, maskable: int) -> tuple[int, int, int]:
        losses, joint = self.geometry, len(self.joint.rates)
        w = self.wrong
        wrong = len(w.models) * len(w.features) * len(w.what) * len(w.ratios)
        encoders = (len(self.variants) + bool(self.variants)) * self.encoder_seeds
        swept = 2 * encoders + sum(len(self.settings(sweep)) for sweep in self.sweeps)
        count = self.seeds * swept + self.mask.seeds * maskable * 2 * len({*self.mask.ratios} - {0.0})
        count += losses.seeds * (len(losses.without) + bool(losses.without)) + w.seeds * wrong
        return count + self.joint.seeds * (joint + 2 * bool(joint)), encoders, joint * self.joint.seeds

    def settings(self, sweep: str) -> list[dict[str, int | float]]:
        space = self.sweeps[sweep]
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
