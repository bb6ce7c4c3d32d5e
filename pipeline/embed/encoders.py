"""Encoders by name: of a release, of section `encoders` of the parameters, or a kind."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.config.base import nearest
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.features import registry
from pipeline.features.registry import FEATURES, Encoders
from pipeline.images.params import Images
from pipeline.release import encoder as released

INLINE = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*):(?P<model>.+)")
"""a kind that loads a third-party network, and the model"""


class Chosen(NamedTuple):
    """An encoder, for the stage `encode`."""

    name: str  # of its feature set
    sections: Encoders  # section `encoders`
    encode: Encode
    images: Images


def of_release(release: Path, name: str, encode: Encode) -> Chosen:
    facts = released.facts(release, name)
    released.refuse_absent(release, facts.packages)
    sections = {name: {"kind": "released", "model": str(release), "encoder": name}}
    size = min(facts.batch_size, released.MOST_AT_A_TIME)
    own = encode.model_copy(update={"encoders": [name], "controls": [], "batch_size": size})
    return Chosen(name, sections, own, Images(size=facts.image_size, quality=facts.image_quality))


def of_parameters(name: str, sections: Encoders, encode: Encode, images: Images) -> Chosen:
    """Return an encoder of section `encoders`, a kind, or `kind:model`; UserError if it needs more than a table."""
    if (found := INLINE.fullmatch(name)) and (spec := ENCODERS.get(found["kind"])) and spec.origin:
        sections, name = {**sections, "inline": {"kind": found["kind"], "model": found["model"]}}, "inline"
    names = [*sections, *registry.kinds()]
    if not registry.defined(sections, name):
        raise UserError(f"no encoder '{name}'{nearest(name, names)}")
    whole = registry.whole(sections, [name])
    _refuse_unfit(sections, whole)
    kinds = [registry.kind(sections, one) for one in whole]
    stored = any(kind in FEATURES and FEATURES[kind].stored for kind in kinds)  # made of sets that are written first
    listed = [one for one in whole if one == name or stored]
    return Chosen(name, sections, encode.model_copy(update={"encoders": listed, "controls": []}), images)


def _refuse_unfit(sections: Encoders, names: Iterable[str]) -> None:
    for name in names:
        kind = registry.kind(sections, name)
        if kind == registry.MAPPED:
            raise UserError(f"'{name}' learns from interactions, which a table lacks; make it in a project")
        if kind in ENCODERS and ENCODERS[kind].pretrained:
            raise UserError(f"'{name}' is trained by `pretrain`; name a release that carries it with --release")
        if kind in FEATURES and not registry.parts(sections, name):
            raise UserError(f"'encoders.{name}.of' is required for a table; name the encoders that it is made of")
