"""What names of feature sets stand for. A kind of node is a file with a Node, and an entry here.

A name of `encode.encoders` stands for what section `encoders` of the parameters says: a kind and its settings. A kind
is an encoder (pipeline/encode/registry.py) or one of FEATURES, which are made of other feature sets. A name that is a
kind itself needs no entry there, or one without `kind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.config import Section
from pipeline.config.base import checked
from pipeline.config.features import MODALITIES, variant
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.features.node import Node

Encoders = Mapping[str, Mapping[str, Any]]
"""section `encoders`: name -> `kind` and the keys of that kind"""
FEATURES: Registry[type[Node]] = Registry(
    "features",
    {
        "concat": "pipeline.features.joined:Joined",
        "whitened": "pipeline.features.whitened:Whitened",
        "mapped": "pipeline.features.mapped:Mapped",
        "masked": "pipeline.features.masked:Masked",
    },
)
"""kind -> node that is made of others"""


def kinds() -> list[str]:
    """Return all kinds that section `encoders` may name."""
    return [*ENCODERS, *FEATURES]


def home(kind: str) -> Registry[Any]:
    """Return the registry that has a kind."""
    return FEATURES if kind in FEATURES else ENCODERS


def definition(encoders: Encoders, name: str) -> Mapping[str, Any]:
    """Return what section `encoders` says of a name; `<set>-image-masked` and `<set>-text-masked` need no entry."""
    if name in encoders or name in kinds():
        return encoders.get(name, {})
    masked = next((modality for modality in MODALITIES if name.endswith(variant("", modality))), None)
    return {"kind": "masked", "of": name.removesuffix(variant("", masked)), "modality": masked} if masked else {}


def defined(encoders: Encoders, name: str) -> bool:
    """Return whether a name stands for a kind; else it may be that of an imported set."""
    return kind(encoders, name) in kinds()


def kind(encoders: Encoders, name: str) -> str:
    """Return the kind that a name stands for."""
    return str(definition(encoders, name).get("kind", name))


def owner(encoders: Encoders, name: str) -> str:
    """Return the name whose settings a name takes: its own, but for a variant of an encoder."""
    which = kind(encoders, name)
    return (ENCODERS[which].variant_of if which in ENCODERS else "") or name


def settings(encoders: Encoders, name: str) -> Section:
    """Return the settings that a name stands for.

    Raises:
        UserError: a key that its kind does not read, a value that it refuses, or settings of a variant.
    """
    which, whose = kind(encoders, name), owner(encoders, name)
    if whose != name and encoders.get(name, {}).keys() - {"kind"}:
        raise UserError(f"'encoders.{name}': it takes the settings of {whose}; give them there")
    given = {key: value for key, value in definition(encoders, whose).items() if key != "kind"}
    params = FEATURES[which].Params if which in FEATURES else ENCODERS[which].params
    return checked(params, given, f"encoders.{whose}")


def parts(encoders: Encoders, name: str) -> list[str]:
    """Return the feature sets that another is made of, in order; none for an encoder.

    An `of` of the wrong type is refused with its value when the kind is loaded.
    """
    if kind(encoders, name) not in FEATURES:
        return []
    of = definition(encoders, name).get("of", [])
    return [str(part) for part in (of if isinstance(of, list) else [of])]


def whole(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return names with all that they are made of, each once, parts first; imported sets are left out."""
    ordered: list[str] = []
    for name in names:
        of = [part for part in parts(encoders, name) if defined(encoders, part)]
        ordered += [one for one in (*whole(encoders, of), name) if one not in ordered]
    return ordered


def networks(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return those of the names that stand for encoders."""
    return [name for name in names if kind(encoders, name) in ENCODERS]
