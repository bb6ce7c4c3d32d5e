"""What a release fitted, for use in place of a new fit: maps of combined sets, and codebooks.

A release is untrusted: it is verified before anything of it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.hub import LOCAL
from alignrec.pipeline.features.codebooks import ReleasedCodes, read_codebooks
from alignrec.pipeline.features.folder import Facts, FeatureSet
from alignrec.pipeline.features.kinds.base import ReleasedMap
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import Block, JoinedMap, Whitening
from alignrec.pipeline.linalg.rotation import rotate
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.read import Release, codebooks_path
from alignrec.pipeline.release.rotated import ROTATION, ROTATION_FILE, read_rotation

MAX_SUFFIX = 1 << 30  # of a release: further items are numbered after it
NOT_FITTED = "leave `fitted` out, which fits another space"


def read_map(folder: Path, name: str, parts: Sequence[FeatureSet]) -> ReleasedMap:
    """Read the map of a combined set of a release, and check that its parts are those given.

    Where the release rotates the set or a part, the map includes the rotation. UserError if the
    release is damaged, lacks the set, or fitted its map to other parts or spaces.
    """
    manifest = Release(folder).verify().manifest
    encoders = ReleasedEncoders(folder)
    facts = encoders.facts(name)
    _refuse_other_parts(folder, facts, parts)

    turns = [_read_turn(encoders, part) for part in parts]
    rotation = read_rotation(encoders.folder(name), facts)
    widths = []
    for part, turn in zip(parts, turns, strict=True):
        widths.append(part.width if turn is None else len(turn))
    fit = chain.read(encoders.folder(name), widths)
    _refuse_other_widths(folder, fit, parts, widths)

    files = [encoders.folder(name) / file for file in (chain.MAPS, chain.CHAIN_FILE)]
    if rotation is not None:
        files.append(encoders.folder(name) / ROTATION_FILE)
    fit = _turn_parts_back(folder, fit, parts, turns)
    if rotation is not None:
        fit = _rotate_last(fit, rotation)
    return ReleasedMap(
        facts=facts,
        fit=fit,
        files=files,
        is_rotated=rotation is not None or any(turn is not None for turn in turns),
        model={
            "model": f"{manifest.dataset} {manifest.version}: {name}",
            "revision": f"{LOCAL}{io.sha256(folder / manifests.MANIFEST_FILE)}",
        },
    )


def read_codes(folder: Path, feature_sets: Sequence[FeatureSet]) -> dict[str, ReleasedCodes]:
    """Read the semantic IDs of feature sets in a release, with the codebooks that made them.

    UserError if the release is damaged or lacks them, or if a set is of another space there.
    """
    release = Release(folder).verify()
    return {of.name: _read_codes_of(release, of) for of in feature_sets}


def _read_codes_of(release: Release, features: FeatureSet) -> ReleasedCodes:
    folder = release.folder
    name = features.name
    table = release.semantic_ids(name)
    path = folder / codebooks_path(name)
    if codebooks_path(name) not in {file.path for file in release.manifest.files}:
        raise UserError(
            f"{folder}: no codebooks of {name}, which earlier versions did not publish; "
            "publish it again, or leave `codebooks` out"
        )

    shards = release.manifest.paths_of(folder, "features", name)
    older = io.common_fingerprint((shard, io.record(shard)) for shard in shards)
    if difference := _space_difference(older, features.facts.fingerprint):
        raise UserError(
            f"{folder}: {name} is in another space there ({difference}); keep it by `fitted` or "
            "kind released, or leave `codebooks` out, and `publish.align` turns the vectors"
        )

    levels = table.schema.field("codes").type.list_size
    largest = pc.max(table["suffix"]).as_py() or 0
    if largest > MAX_SUFFIX:
        raise UserError(f"{folder}: a suffix of {largest:,} in {name}; do not trust it")
    return ReleasedCodes(read_codebooks(path, levels, features.width), table)


def _space_difference(older: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> str:
    if older.get(ROTATION) != fingerprint.get(ROTATION):
        return "its rotation"
    return io.first_difference(older, fingerprint)


def _refuse_other_parts(folder: Path, facts: Facts, parts: Sequence[FeatureSet]) -> None:
    names = [part.name for part in parts]
    if facts.parts != names:
        joined = ", ".join(facts.parts) or "no other sets"
        raise UserError(
            f"{folder}: {facts.encoder} is made of {joined} there, and of {', '.join(names)} here; "
            f"list those under `of`, or {NOT_FITTED}"
        )

    spaces = facts.fingerprint.get("parts")
    for part in parts:
        space = spaces.get(part.name) if isinstance(spaces, dict) else None
        if not isinstance(space, dict):
            raise UserError(
                f"{folder}: does not say which space of {part.name} its {facts.encoder} was fitted "
                f"to; {NOT_FITTED}"
            )
        if difference := io.first_difference(space, part.facts.fingerprint):
            raise UserError(
                f"{folder}: {part.name} is in another space there ({difference}); declare it under "
                f"encoders, {part.name}: {{kind: released, model: {folder}, encoder: {part.name}}}"
            )


def _read_turn(encoders: ReleasedEncoders, part: FeatureSet) -> np.ndarray | None:
    """Return the rotation that the release applies to a part, float32 [G, F], None without one.

    Maps were fitted to parts that were not rotated.
    """
    digest = part.facts.fingerprint.get(ROTATION)
    if digest is None:
        return None
    facts = encoders.facts(part.name)
    if facts.fingerprint.get(ROTATION) != digest:
        raise UserError(
            f"{encoders.release}: {part.name} is rotated otherwise than there; "
            "take its encoder of this release, too"
        )
    return read_rotation(encoders.folder(part.name), facts)


def _refuse_other_widths(
    folder: Path, fit: JoinedMap, parts: Sequence[FeatureSet], widths: Sequence[int]
) -> None:
    for number, (part, width) in enumerate(zip(parts, widths, strict=True)):
        blocks = [block.columns for block in fit.blocks if block.part == number]
        if blocks and not np.any(blocks, axis=0)[-1]:
            there = int(np.flatnonzero(np.any(blocks, axis=0))[-1]) + 1
            raise UserError(
                f"{folder}: {part.name} has {there} columns there, and {width} here; {NOT_FITTED}"
            )


def _turn_parts_back(
    folder: Path,
    fit: JoinedMap,
    parts: Sequence[FeatureSet],
    turns: Sequence[np.ndarray | None],
) -> JoinedMap:
    """Return the map for rotated parts: it undoes the rotations first."""
    blocks: list[Block] = []
    maps: list[Whitening | None] = []
    for block, fitted in zip(fit.blocks, fit.maps, strict=True):
        turn = turns[block.part]
        if turn is not None:
            if not block.columns.all():
                raise UserError(
                    f"{folder}: {parts[block.part].name} is rotated there, and joined by modality; "
                    f"{NOT_FITTED}"
                )
            fitted = _compose_back(turn, fitted)
            block = block._replace(columns=np.ones(turn.shape[1], bool))
        blocks.append(block)
        maps.append(fitted)

    return replace(fit, blocks=blocks, maps=maps)


def _compose_back(turn: np.ndarray, fitted: Whitening | None) -> Whitening:
    """Return the map of x @ turn that equals `fitted` of x; the rows of turn are orthonormal."""
    if fitted is None:
        return Whitening(np.zeros(turn.shape[1], np.float32), np.ascontiguousarray(turn.T))
    mean = rotate(fitted.mean[None], turn)[0]
    return Whitening(mean, rotate(np.ascontiguousarray(turn.T), fitted.map))


def _rotate_last(fit: JoinedMap, rotation: np.ndarray) -> JoinedMap:
    """Return the map whose vectors are rotated."""
    if fit.last is None:
        return replace(fit, last=Whitening(np.zeros(len(rotation), np.float32), rotation))
    return replace(fit, last=Whitening(fit.last.mean, rotate(fit.last.map, rotation)))
