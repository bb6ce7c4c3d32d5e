"""What feature sets that are named in parameters depend on besides the items: settings, files, packages, code."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from pipeline.config.parameters import Parameters
from pipeline.encode.origin import Pretrained, release
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS, OURS
from pipeline.features import registry
from pipeline.features.registry import FEATURES, Encoders
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


def learns(encoders: Encoders, name: str) -> bool:
    """Return whether train interactions go into a set, or into one that it is made of."""
    parts = (registry.kind(encoders, one) for one in registry.whole(encoders, [name]) if one)
    return any(which in FEATURES and FEATURES[which].relearns for which in parts)


def named(params: Parameters) -> list[str]:
    """Return the feature sets that parameters name, parts of others included, and no imported one."""
    return registry.whole(params.encoders, params[Encode].encoders)


def reads_pretrained(params: Parameters) -> bool:
    """Return whether a feature set that the parameters name reads what `pretrain` makes; loads no encoder of ours."""
    return pretrained(params.encoders, params[Encode].encoders)


def pretrained(encoders: Encoders, names: Iterable[str]) -> bool:
    """Return whether one of some feature sets, or of their parts, reads what `pretrain` makes."""
    return any(_is_pretrained(registry.kind(encoders, name)) for name in registry.whole(encoders, names))


def _is_pretrained(kind: str) -> bool:
    """Return whether a kind reads what `pretrain` makes; one of another package says so itself."""
    if kind in ENCODERS.built_in or kind not in ENCODERS:
        return kind.startswith(OURS)
    return ENCODERS[kind].pretrained
