"""Third-party encoders before they are fetched: their sizes, and whether the Hub has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from alignrec.pipeline.encoders import hub
from alignrec.pipeline.encoders.hub import Pretrained
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import kind_of, settings_of
from alignrec.pipeline.io.errors import Absent, UserError, one_line
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources.download import WAIT_SECONDS, Answer, Question, ask_in_background

# a size in the name of a model, such as 0.6B or 300m
SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]+)?)([bm])(?![A-Za-z0-9])", re.I)
UNITS = {"b": 1e9, "m": 1e6}
# sizes of a tower in words, such as siglip2-base, and its parameters without embeddings
SHAPE_IN_NAME = re.compile(
    r"(?:^|[-_])(?:(tiny|small|base|large|so400m)|vit[-_]?([blh]))(?![a-z0-9])", re.I
)
TOWERS = {
    "tiny": 5.5e6,
    "small": 22e6,
    "base": 86e6,
    "b": 86e6,
    "large": 304e6,
    "l": 304e6,
    "so400m": 400e6,
    "h": 632e6,
}
PATCH_IN_NAME = re.compile(r"(?:patch|vit[-_][blh][-_])([1-9][0-9]?)(?![0-9])", re.I)
IN_IMAGE_TOWER = re.compile(r"(^|[._])(vision|visual|image)")  # names of tensors
EMBEDDING = re.compile(r"embed|wte")  # of tokens: a look-up without products
TWO_TOWERS = re.compile(r"clip|siglip|blip|-vl", re.I)  # names of models
INPUT_SIDE = 224  # pixels of an image
PATCHES = 197  # of an image in patches of 16, and CLS
TEXT_TOKENS = 512  # per pass, where the kind has no key for it


class Model(NamedTuple):
    """A third-party encoder of the parameters."""

    key: str  # of the parameter that names it
    kind: str
    params: Pretrained

    @property
    def wanted(self) -> list[str]:
        return [hub.WANTED[self.kind]]


class NetworkSize(NamedTuple):
    """Parameters of a network that take part in products, by tower."""

    image: float
    text: float
    patches: int = PATCHES
    stored: float = 0.0  # all parameters, with embeddings

    def operations(self, pieces: int) -> float:
        """Return the floating-point operations of an item."""
        return 2 * (self.text * pieces + self.image * self.patches)


def list_models(params: Parameters) -> Iterator[Model]:
    """Yield the encoders to run that load a folder or a repository of the Hub."""
    for name in params[Encode].encoders:
        kind = kind_of(params.encoders, name)
        if kind not in hub.WANTED:
            continue
        settings = settings_of(params.encoders, name)
        assert isinstance(settings, Pretrained)
        yield Model(f"encoders.{name}.model", kind, hub.with_owner(kind, settings))


def list_questions(params: Parameters, wait: float = WAIT_SECONDS) -> list[Question]:
    """Return what to ask the Hub: the models that are not on this machine."""
    absent = [model for model in list_models(params) if hub.find_cached(model.params) is None]
    # half of the time remains for resolving names
    return [
        Question(model.key, model.params.model, partial(_ask, model, wait / 2)) for model in absent
    ]


def _ask(model: Model, wait: float) -> Answer:
    key = model.key.removesuffix(".model")
    try:
        size, parameters = hub.ask_hub(key, model.params, model.wanted, wait)
    except UserError as e:
        fault = one_line(e).removeprefix(f"'{model.key}': ")
        fault = fault.removeprefix(f"{model.params.model}: ")
        return Answer(model.key, model.params.model, None, fault, absent=isinstance(e, Absent))
    return Answer(model.key, model.params.model, size, parameters=parameters)


def refuse_absent_models(params: Parameters) -> None:
    """Raise UserError if the Hub says that it has no such model; an unreachable one is no error."""
    for answer in ask_in_background(list_questions(params), WAIT_SECONDS)():
        if answer.absent:
            raise UserError(f"'{answer.key}': {answer.address}: {answer.fault}")


def find_size(model: Model, on_hub: float | None = None) -> NetworkSize | None:
    """Return the size of a model by its weights, else by the parameters that the Hub lists, else by
    its name; None if it is unknown.
    """
    folder = hub.find_cached(model.params)
    if folder is not None:
        return _read_size(model, folder)

    name = model.params.model.rpartition("/")[2]
    has_images = model.kind in ("timm", "open_clip") or bool(TWO_TOWERS.search(name))
    has_texts = model.kind != "timm"
    towers = has_images + has_texts

    total = on_hub or _size_in_name(name)
    if total is None:
        shape = SHAPE_IN_NAME.search(name)
        if shape is None:
            return None
        total = towers * TOWERS[(shape[1] or shape[2]).lower()]

    patch = PATCH_IN_NAME.search(name)
    patches = (INPUT_SIDE // int(patch[1])) ** 2 + 1 if patch else PATCHES
    per_tower = total / towers
    return NetworkSize(per_tower * has_images, per_tower * has_texts, patches, total)


def _size_in_name(name: str) -> float | None:
    found = SIZE_IN_NAME.search(name)
    return float(found[1]) * UNITS[found[2].lower()] if found else None


def _read_size(model: Model, folder: Path) -> NetworkSize:
    from safetensors import safe_open

    image = text = stored = 0.0
    where = f"'{model.key}'"
    config = hub.read_model_json(where, folder / "config.json")
    vision = config.get("vision_config", config)
    of_images = model.kind == "timm" or ("patch_size" in config and "vocab_size" not in config)
    for path in sorted(folder.rglob(hub.WEIGHTS)):
        with hub.reraise_as_user_error(model.key), safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                shape = tensors.get_slice(name).get_shape()
                count = math.prod(shape)
                stored += count
                if of_images or IN_IMAGE_TOWER.search(name):
                    image += count
                elif not (len(shape) == 2 and EMBEDDING.search(name)):
                    text += count
    return NetworkSize(image, text, _count_patches(vision), stored)


def _count_patches(config: object) -> int:
    if not isinstance(config, dict):
        return PATCHES
    side, patch = config.get("image_size"), config.get("patch_size")
    if not isinstance(side, int) or not isinstance(patch, int) or not 0 < patch <= side:
        return PATCHES
    return (side // patch) ** 2 + 1


def read_tokens(model: Model, pieces: int) -> int:
    """Return the tokens that a model reads of a text of `pieces` tokens."""
    most = getattr(model.params, "max_tokens", TEXT_TOKENS) * getattr(model.params, "chunks", 1)
    return min(pieces, most)
