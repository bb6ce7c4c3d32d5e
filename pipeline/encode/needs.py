"""What encoders that are named in parameters depend on besides the items: settings, files, packages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.config.parameters import Parameters
from pipeline.encode import registry
from pipeline.encode.origin import Pretrained, release
from pipeline.encode.params import Encode
from pipeline.encode.registry import Encoders


def settings(encoders: Encoders, names: Iterable[str]) -> dict[str, Any]:
    """Return name -> kind and settings, JSON."""
    return {n: [registry.kind(encoders, n), registry.settings(encoders, n).model_dump(mode="json")] for n in names}


def pretrained(encoders: Encoders, names: Iterable[str]) -> list[Pretrained]:
    """Return the settings of those encoders that load somebody's network."""
    own = (registry.settings(encoders, name) for name in names)
    return [one for one in own if isinstance(one, Pretrained)]


def libraries(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return the packages that load encoders or bring their weights, with releases; the encoder tells of absence."""
    specs = [registry.spec(encoders, name) for name in names]
    return [release(package) for package in sorted({p for s in specs for p in (s.library, *s.packages)} - {""})]


def encoded(params: Parameters) -> list[str]:
    """Return the encoders that parameters name, parts of others included."""
    return registry.whole(params.encoders, params[Encode].encoders)


def reads_pretrained(params: Parameters) -> bool:
    """Return whether a feature set that the parameters name reads what `pretrain` makes; loads no encoder of ours."""
    kinds = [registry.kind(params.encoders, name) for name in encoded(params)]
    return any(kind.startswith(registry.OURS) or _foreign(kind) for kind in kinds)


def _foreign(kind: str) -> bool:
    """Return whether a kind of another package reads what `pretrain` makes."""
    built_in = kind in registry.ENCODERS.built_in
    return not built_in and registry.ENCODERS[kind].pretrained
