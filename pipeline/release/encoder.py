"""Encoders in a release: encoders/<feature set>/ has the files to encode new items into the same vector space."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.params import BEIT3_SETS
from alignrec.pipeline.encoders.hub import LOCAL, Origin, Pretrained, with_version
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.features.folder import MAX_SET_BYTES, Facts
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.loading import Loaded, load_encoder, load_encoders
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.runtime.layout import EncoderFiles

# encoder.json is the set's set.json; shared weights are in the folder of one set, third-party weights are only named
FOLDER, NAME, LIBRARY = "encoders", "encoder.json", "alignrec"
MOST_AT_A_TIME = 256  # upper bound on the release's batch size, which is untrusted
BLOCK = 1024  # images read at a time


@dataclass(frozen=True)
class ReleasedEncoders:
    """Encoders of a release; implements `Shelf` of pipeline/release/loading.py."""

    release: Path
    trusted: ClassVar[bool] = False

    @cached_property
    def manifest(self) -> Manifest:
        return manifests.load(self.release)

    @property
    def names(self) -> list[str]:
        return [
            name
            for name in list_encoders(self.manifest)
            if name in self.manifest.sets_with("features")
        ]

    def facts(self, name: str) -> Facts:
        """Read encoder.json, which is untrusted; UserError if it is missing or invalid."""
        if name not in list_encoders(self.manifest):
            known = (
                f"it has {', '.join(self.names)}"
                if self.names
                else "it has none; publish it with this alignrec"
            )
            raise UserError(f"{self.release}: no encoder '{name}' in this release; {known}")
        read = Facts.read(path := self.folder(name) / NAME, MAX_SET_BYTES)
        if read.encoder != name:
            raise UserError(
                f"{path}: of '{one_line(read.encoder, 64)}', not of '{name}'; fetch the release again"
            )
        return read

    def folder(self, name: str) -> Path:
        return self.release / FOLDER / name

    def load(self, name: str) -> Loaded:
        """Load one encoder of a verified release; UserError if its width differs from the feature set's."""
        return self.load_all([name])[name]

    def load_all(self, names: Sequence[str]) -> dict[str, Loaded]:
        loaded = (
            load_encoders(self, names)
            if len(names) > 1
            else {name: load_encoder(self, name) for name in names}
        )
        for name, one in loaded.items():
            shards = self.manifest.paths_of(self.release, "features", name)
            if shards and (width := io.width(shards[0].parent)) != one.encoder.width:
                where = f"{self.folder(name) / NAME}: gives {one.encoder.width} numbers"
                raise UserError(f"{where}, and the feature set has {width}; do not trust it")
        return loaded


def list_encoders(manifest: Manifest) -> list[str]:
    return sorted(
        f.path.split("/")[1] for f in manifest.files if fnmatchcase(f.path, f"{FOLDER}/*/{NAME}")
    )


def find_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield faults of the encoders: schemas, network shapes (if torch is installed), non-finite values, widths."""
    widths: dict[str, set[int]] = {}
    for name in list_encoders(manifest):
        own, shards = folder / FOLDER / name, manifest.paths_of(folder, "features", name)
        try:
            read = Facts.read(own / NAME, MAX_SET_BYTES)
            made = _encoder_widths(own, read, widths)
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


def _encoder_widths(own: Path, read: Facts, networks: dict[str, set[int]]) -> set[int]:
    """Return the possible output widths, empty if unknown; `networks` caches them by weights folder."""
    if read.parts:
        try:
            from alignrec.pipeline.encoders import chain
        except ModuleNotFoundError:  # the check needs SciPy
            return set()
        return {chain.read(own).width}
    if read.weights is None:
        return set()
    if read.network not in BEIT3_SETS:
        for weights in sorted(own.glob("*.safetensors")):
            arrays.refuse_infinite(weights)
        return set()
    if read.weights not in networks:
        networks[read.weights] = stored.check_files(EncoderFiles(own.parent / read.weights))
    return networks[read.weights]


def _space_difference(own: Path, read: Facts, shards: Sequence[Path]) -> str:
    """Return how the encoder's fingerprint differs from that of the feature set or weights; empty if it does not."""
    made, present = io.common_fingerprint((path, io.record(path)) for path in shards), read.space()
    if read.parts:
        from alignrec.pipeline.encoders import chain

        present |= chain.digests(own, read.parts)
    elif read.weights is not None:
        home = own.parent / read.weights
        fitted = sorted(path for path in home.glob("*") if path.is_file() and path.name != NAME)
        present |= {
            "weights": io.digest(
                EncoderFiles(home).present() if read.network in BEIT3_SETS else fitted
            )
        }
    stated = io.fingerprint_of({io.FINGERPRINT: read.fingerprint})
    # earlier versions recorded neither the modalities read nor the weights in the folder
    pairs = [
        (made, stated),
        *([(stated, present), (made, present)] if "reads" in stated | made else []),
    ]
    differing = (io.first_difference(a, b) for a, b in pairs)
    return next(filter(None, differing), "")


def text_sha256(text: str | None) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text and text.strip() else ""


def image_sha256(image: bytes | None) -> str:
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def hash_images(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of stored images and append `input_image_sha256`, the hash of the bytes that encoders read."""
    parts = []
    for part in io.read_slices(path, schemas.IMAGES, [*columns, "image"], BLOCK):
        hashes = pa.array([image_sha256(image.as_py()) for image in part["image"]], pa.string())
        parts.append(part.drop_columns(["image"]).append_column("input_image_sha256", hashes))
    return pa.concat_tables(parts)


def encode_items(
    loaded: Loaded,
    texts: Sequence[str],
    images: Sequence[bytes | None],
    done: Callable[[int], object] = int,
) -> np.ndarray:
    """Encode B items by the modalities of the set; a text may be empty, an image None. Returns float32 [B, F]."""
    from alignrec.pipeline.features import batching  # loads torch

    reads = loaded.facts.reads
    written = texts if "text" in reads else [""] * len(texts)
    shown = images if "image" in reads else [None] * len(images)
    size = min(loaded.facts.batch_size, MOST_AT_A_TIME)
    encoded = batching.encode_items(loaded.encoder, written, shown, size, done, os.cpu_count() or 1)
    if encoded.halved.any():
        print(f"warning: {batching.HALVED}", file=sys.stderr)
    return encoded.vectors


class ReleasedParams(Pretrained):
    """Parameters of encoder kind `released`; `model` is a release folder."""

    encoder: Annotated[str, Field(min_length=1)]  # feature set of the release


def find_origin(where: str, params: ReleasedParams) -> Origin:
    if params.folder is None:
        raise UserError(f"'{where}.model': no release folder '{params.model}'")
    shelf = ReleasedEncoders(params.folder)
    facts, manifest = shelf.facts(params.encoder), shelf.manifest
    name = f"{manifest.dataset} {manifest.version}: {params.encoder}"
    revision = f"{LOCAL}{io.sha256(Path(params.folder) / manifests.NAME)}"
    found = Origin(
        params.folder, name, revision, with_version(LIBRARY), fingerprint=facts.fingerprint
    )
    own = found.restrict_to(where, params, facts.reads)
    return own if len(own.reads) == len(facts.reads) else replace(own, fingerprint=None)


RELEASED = Spec(
    lambda source, params: ReleasedEncoders(source.folder).load(params.encoder).encoder,
    ReleasedParams, origin=find_origin, library=LIBRARY,
)  # fmt: skip
