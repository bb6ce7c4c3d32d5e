"""What feature sets that are named in parameters depend on besides the items: settings, files, packages, code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from pipeline.encode.origin import Pretrained, release
from pipeline.encode.registry import ENCODERS
from pipeline.features import registry
from pipeline.features.registry import Encoders
from pipeline.registry import Registry


def settings(encoders: Encoders, names: Iterable[str]) -> dict[str, Any]:
    """Return name -> kind and settings, JSON."""
    return {n: [registry.kind(encoders, n), registry.settings(encoders, n).model_dump(mode="json")] for n in names}


def files(encoders: Encoders, names: Iterable[str]) -> list[Path]:
    """Return the files of somebody's networks that are folders here."""
    kinds = {name: ENCODERS[registry.kind(encoders, name)] for name in registry.networks(encoders, names)}
    foreign = (registry.settings(encoders, name) for name, spec in kinds.items() if spec.origin)
    return [path for own in foreign for path in cast(Pretrained, own).files()]


def libraries(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return the packages that load encoders or bring their weights, with releases; the encoder tells of absence."""
    specs = [ENCODERS[registry.kind(encoders, name)] for name in registry.networks(encoders, names)]
    return [release(package) for package in sorted({p for s in specs for p in (s.library, *s.packages)} - {""})]


def kinds(encoders: Encoders, names: Iterable[str]) -> list[tuple[Registry[Any], str]]:
    """Return the kinds that names stand for, each once, with the registry that has it."""
    return [(registry.home(kind), kind) for kind in dict.fromkeys(registry.kind(encoders, name) for name in names)]
