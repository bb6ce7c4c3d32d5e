"""What can be refused of the names of feature sets without loading a network."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.base import known, nearest
from pipeline.config.features import MODALITIES, variant
from pipeline.encode.registry import CLIP, ENCODERS, OURS
from pipeline.errors import UserError
from pipeline.features.registry import FEATURES, Encoders, kind, kinds, networks, parts, settings, whole


def check_teacher(encoders: Encoders, name: str, where: str = "pretrain") -> None:
    """Refuse a teacher of pre-training that has no feature map, or settings that its kind refuses; loads the kind.

    Raises:
        UserError: one line, which names the key.
    """
    settings(encoders, name)
    if not (networks(encoders, [name]) and ENCODERS[kind(encoders, name)].feature_map):
        having = ", ".join(kind for kind in ENCODERS if ENCODERS[kind].feature_map)
        raise UserError(f"'{where}.teacher': {name} gives no feature map, only whole vectors; kinds that do: {having}")


def check_names(encoders: Encoders, listed: Sequence[str], imported: Sequence[str] = ()) -> None:
    """Refuse unknown kinds and names, circles, and what is made of a set that is not written.

    Args:
        encoders: the section.
        listed: `encode.encoders`.
        imported: feature sets that come with a dataset.

    Raises:
        UserError: one line, which names the key.
    """
    for name, given in encoders.items():
        if "kind" not in given and name not in kinds():
            raise UserError(f"'encoders.{name}.kind' is required{nearest(name, kinds())}")
        known([kind(encoders, name)], kinds(), f"encoders.{name}.kind")
        if name in kinds() and kind(encoders, name) != name:
            raise UserError(f"'encoders.{name}.kind': '{name}' is a kind itself; choose another name")
    names = _names(encoders)
    _check_masked(names, listed)
    if twice := next((name for i, name in enumerate(listed) if name in listed[:i]), None):
        raise UserError(f"'encode.encoders': '{twice}' stands there twice; list it once")
    for name in encoders:
        _check_parts(encoders, name, [])
        _check_made(encoders, name, names, [*listed, *imported])


def check_teachers(encoders: Encoders, teacher: str, distill_from: Sequence[str], where: str = "pretrain") -> None:
    """Refuse teachers of pre-training that there are not, or that it makes itself.

    Args:
        encoders: the section.
        teacher: `pretrain.teacher`.
        distill_from: `pretrain.distill_from`.
        where: path of the section that names them.

    Raises:
        UserError: one line, which names the key.
    """
    names = _names(encoders)
    known([teacher], names, f"{where}.teacher")
    known(distill_from, names, f"{where}.distill_from")
    for name in whole(encoders, distill_from):
        if kind(encoders, name).startswith(OURS):
            raise UserError(f"'{where}.distill_from': '{name}' is what is trained; name an encoder that exists before")
        if kind(encoders, name).removesuffix("-untrained") == CLIP:
            raise UserError(f"'{where}.distill_from': '{name}' is trained after pre-training; name another encoder")
        if _stored(encoders, name):
            raise UserError(f"'{where}.distill_from': '{name}' is made after pre-training; name what it is of")


def _check_masked(names: Sequence[str], listed: Sequence[str]) -> None:
    """Refuse unknown names of `encode.encoders`, and masked sets of what is not listed there."""
    masked = {variant(name, modality): name for name in names for modality in MODALITIES}
    known(listed, [*names, *masked], "encode.encoders")
    for name in listed:
        if name not in names and masked[name] not in listed:
            raise UserError(f"'encode.encoders': '{name}' is made of '{masked[name]}'; list it there too")


def _check_parts(encoders: Encoders, name: str, outer: list[str]) -> None:
    """Refuse what is made of itself; `outer` are those around it."""
    if name in outer:
        raise UserError(f"'encoders.{name}.of': it is a part of itself, by {' -> '.join([*outer, name])}")
    for part in parts(encoders, name):
        _check_parts(encoders, part, [*outer, name])


def _check_made(encoders: Encoders, name: str, names: list[str], made: list[str]) -> None:
    """Refuse parts that there are not, or that `encode` does not write where its kind reads what has been written."""
    of, where, stored = parts(encoders, name), f"encoders.{name}.of", _stored(encoders, name)
    for part in of if stored else []:
        if part in names and part not in made:
            raise UserError(f"'{where}': '{part}' is not under encode.encoders; list it there too")
    known(of, made if stored else names, where)


def _names(encoders: Encoders) -> list[str]:
    """Return the names that the section gives, and those of kinds."""
    return [*encoders, *(name for name in kinds() if name not in encoders)]


def _stored(encoders: Encoders, name: str) -> bool:
    """Return whether a name is made of sets that must have been written."""
    which = kind(encoders, name)
    return which in FEATURES and FEATURES[which].stored
