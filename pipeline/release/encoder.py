"""Encoders in a release: encoders/<feature set>/ has what it takes to encode new items into the same space.

It is the set.json, here encoder.json, and the encoder/ of the feature set (pipeline/encode/folder.py). Network,
tokenizer and whitening may be in the folder of the set that shares them; third-party weights are named by package and
version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.encode.folder import LARGEST, Facts
from alignrec.pipeline.encode.network import Loaded, load_all
from alignrec.pipeline.encode.network import load as load_encoder
from alignrec.pipeline.encode.params import TRAINED
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.harness.layout import EncoderFiles
from alignrec.pipeline.io import fingerprint
from alignrec.pipeline.ops import arrays
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import Manifest

FOLDER, NAME = "encoders", "encoder.json"
MOST_AT_A_TIME = 256
"""items per forward pass, whatever a release says: its memory is the reader's"""


@dataclass(frozen=True)
class Carried:
    """The encoders of a release, a shelf of pipeline/encode/load.py."""

    release: Path
    trusted: ClassVar[bool] = False

    @cached_property
    def manifest(self) -> Manifest:
        return manifests.load(self.release)

    @property
    def names(self) -> list[str]:
        """The feature sets of the release whose encoder it carries, sorted."""
        return [name for name in carried(self.manifest) if name in self.manifest.sets("features")]

    def facts(self, name: str) -> Facts:
        """Read encoder.json, not trusted; UserError if there is none, or it is damaged."""
        if name not in carried(self.manifest):
            known = f"it has {', '.join(self.names)}" if self.names else "it has none; publish it with this alignrec"
            raise UserError(f"{self.release}: no encoder '{name}' in this release; {known}")
        read = Facts.read(path := self.folder(name) / NAME, LARGEST)
        if read.encoder != name:
            raise UserError(f"{path}: of '{one_line(read.encoder, 64)}', not of '{name}'; fetch the release again")
        return read

    def folder(self, name: str) -> Path:
        return self.release / FOLDER / name

    def load(self, name: str) -> Loaded:
        """Load the encoder of a verified release; UserError also if it gives another width than its feature set has."""
        return self.load_all([name])[name]

    def load_all(self, names: Sequence[str]) -> dict[str, Loaded]:
        loaded = load_all(self, names) if len(names) > 1 else {name: load_encoder(self, name) for name in names}
        for name, one in loaded.items():
            shards = self.manifest.paths(self.release, "features", name)
            if shards and (width := io.width(shards[0].parent)) != one.encoder.width:
                where = f"{self.folder(name) / NAME}: gives {one.encoder.width} numbers"
                raise UserError(f"{where}, and the feature set has {width}; do not trust it")
        return loaded


def carried(manifest: Manifest) -> list[str]:
    return sorted(f.path.split("/")[1] for f in manifest.files if fnmatchcase(f.path, f"{FOLDER}/*/{NAME}"))


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the faults of a release's encoders, one line each.

    encoder.json keeps its schema; a network has the shape of its config.json, which is compared where torch is
    installed; maps fit each other, all are finite, and one of them has the width of the feature set.
    """
    widths: dict[str, set[int]] = {}
    for name in carried(manifest):
        own, shards = folder / FOLDER / name, manifest.paths(folder, "features", name)
        try:
            read = Facts.read(own / NAME, LARGEST)
            made = _widths(own, read, widths)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")
            continue
        width = io.width(shards[0].parent) if shards else None
        if made and width not in {None, *made}:
            of = " or ".join(map(str, sorted(made)))
            yield f"{FOLDER}/{name}/{NAME}: its network gives {of} numbers, and the feature set has {width}"
        if other := _space_difference(own, read, shards):
            other = f"encodes into another space than {name}: {other}; do not use them together"
            yield f"{FOLDER}/{name}/{NAME}: {other}"


def _widths(own: Path, read: Facts, networks: dict[str, set[int]]) -> set[int]:
    """Return the widths that an encoder may give, none where only packages know; `networks` caches them by folder."""
    if read.parts:
        try:
            from alignrec.pipeline.encode import chain
        except ModuleNotFoundError:  # SciPy is not installed, so nothing is checked
            return set()
        return {chain.read(own).width}
    if read.weights is None:
        return set()
    if read.network not in TRAINED:
        for weights in sorted(own.glob("*.safetensors")):
            arrays.refuse_infinite(weights)
        return set()
    if read.weights not in networks:
        networks[read.weights] = stored.check(EncoderFiles(own.parent / read.weights))
    return networks[read.weights]


def _space_difference(own: Path, read: Facts, shards: Sequence[Path]) -> str:
    """Return how an encoder's space differs from that of its feature set; empty if nothing says so."""
    made, present = fingerprint.one((path, io.record(path)) for path in shards), {}
    if read.weights is not None and read.network in TRAINED:
        present = {"weights": io.digest(EncoderFiles(own.parent / read.weights).present())}
    stated = fingerprint.of({fingerprint.KEY: read.fingerprint})
    return fingerprint.difference(made, stated) or fingerprint.difference(stated, present)
