"""What encoders that are named in parameters depend on besides the items: settings, files, packages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.encode import registry
from pipeline.encode.origin import Pretrained, release
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
