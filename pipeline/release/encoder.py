"""Encoders in a release: encoders/<feature set>/ encodes new items into the same vector space."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.params import BEIT3_SETS
from alignrec.pipeline.encoders.hub import LOCAL, Origin, Pretrained, with_version
from alignrec.pipeline.encoders.registry import Encoder, Spec
from alignrec.pipeline.features.folder import (
    ENCODER_FILE,
    MAX_SET_BYTES,
    PARTS,
    Facts,
    parts_beside,
)
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.loading import (
    Loaded,
    load_encoders,
    read_released_facts,
)
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.runtime.layout import EncoderFiles

if TYPE_CHECKING:
    from alignrec.pipeline.features.batching import Encoded

# shared weights are in the folder of one set, third-party weights are only named
ENCODERS_FOLDER = "encoders"
OWN_DEPTH = 2  # of the folder of a set's encoder in a release; those of carried parts are deeper
RELEASE_LIBRARY = "alignrec"
MOST_AT_A_TIME = 256  # upper bound on the release's batch size, which is untrusted
IMAGES_PER_BLOCK = 1024


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
        released = self.manifest.sets_with("features")
        return [name for name in list_encoders(self.manifest) if name in released]

    def facts(self, name: str) -> Facts:
        """Read encoder.json, which is untrusted; UserError if it is missing or invalid."""
        if name not in list_encoders(self.manifest):
            remedy = "it has none; publish it with this alignrec"
            if self.names:
                remedy = f"it has {', '.join(self.names)}"
            raise UserError(f"{self.release}: no encoder '{name}' in this release; {remedy}")

        return read_released_facts(self.folder(name), name)

    def folder(self, name: str) -> Path:
        return self.release / ENCODERS_FOLDER / name

    def load(self, name: str) -> Loaded:
        """Load one encoder of a verified release; UserError if its width is not the set's."""
        return self.load_all([name])[name]

    def load_all(self, names: Sequence[str]) -> dict[str, Loaded]:
        loaded = load_encoders(self, names)
        for name, (_, encoder) in loaded.items():
            widths = self.manifest.widths_of(name)
            width = widths[0] if widths else encoder.width
            if width != encoder.width:
                raise UserError(
                    f"{self.folder(name) / ENCODER_FILE}: gives {encoder.width} numbers, "
                    f"and the feature set has {width}; do not trust it"
                )
        return loaded


def list_encoders(manifest: Manifest) -> list[str]:
    return [home.name for home in _list_homes(manifest) if len(home.parts) == OWN_DEPTH]


def _list_homes(manifest: Manifest) -> list[PurePosixPath]:
    """Return the folders of encoders, and of the parts that they carry."""
    paths = [PurePosixPath(file.path) for file in manifest.files]
    homes = [path.parent for path in paths if path.name == ENCODER_FILE]
    return sorted(
        home
        for home in homes
        if home.parts[:1] == (ENCODERS_FOLDER,) and len(home.parts) >= OWN_DEPTH
    )


def find_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield faults of the encoders.

    Checks schemas, network shapes (if torch is installed), non-finite values, widths and vector
    spaces.
    """
    widths: dict[Path, set[int]] = {}
    for inner in _list_homes(manifest):
        name = inner.name
        path = inner / ENCODER_FILE
        home = folder / inner
        shards: list[Path] = []
        if len(inner.parts) == OWN_DEPTH:
            shards = manifest.paths_of(folder, "features", name)
        try:
            facts = Facts.read(folder / path, MAX_SET_BYTES)
            possible = _encoder_widths(home, facts, widths)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")
            continue

        width = io.width(shards[0].parent) if shards else None
        if possible and width not in {None, *possible}:
            listed = " or ".join(map(str, sorted(possible)))
            yield f"{path}: its network gives {listed} numbers, and the feature set has {width}"
        if difference := _space_difference(home, facts, shards):
            yield (
                f"{path}: encodes into another space than {name}: {difference}; "
                "do not use them together"
            )


def _encoder_widths(home: Path, facts: Facts, networks: dict[Path, set[int]]) -> set[int]:
    """Return the possible output widths, empty if unknown; `networks` caches them by weights."""
    if facts.parts:
        try:
            from alignrec.pipeline.encoders import chain
        except ModuleNotFoundError:  # the check needs SciPy
            return set()
        return {chain.read(home).width}

    if facts.weights is None:
        return set()
    if facts.network not in BEIT3_SETS:
        for path in sorted(home.glob("*.safetensors")):
            arrays.refuse_infinite(path)
        return set()
    weights = home.parent / facts.weights
    if weights not in networks:
        networks[weights] = stored.check_files(EncoderFiles(weights))
    return networks[weights]


def _space_difference(home: Path, facts: Facts, shards: Sequence[Path]) -> str:
    """Return how the encoder's fingerprint differs from that of the set or weights, if it does."""
    encoded = io.common_fingerprint((path, io.record(path)) for path in shards)
    stated = io.fingerprint_of({io.FINGERPRINT: facts.fingerprint})
    stored_here = facts.space()
    if facts.parts:
        from alignrec.pipeline.encoders import chain

        stored_here |= chain.digests(home, facts.parts)
    elif facts.weights is not None:
        stored_here["weights"] = _digest_weights(home.parent / facts.weights, facts)

    pairs = [(encoded, stated), (stated, stored_here), (encoded, stored_here)]
    differences = (io.first_difference(a, b) for a, b in pairs)
    return next(filter(None, differences), "")


def _digest_weights(home: Path, facts: Facts) -> str:
    if facts.network in BEIT3_SETS:
        return io.digest(EncoderFiles(home).present())
    files = [path for path in home.glob("*") if path.is_file() and path.name != ENCODER_FILE]
    return io.digest(sorted(files))


def text_sha256(text: str | None) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text and text.strip() else ""


def image_sha256(image: bytes | None) -> str:
    return hashlib.sha256(image).hexdigest() if image is not None else ""


def hash_images(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of stored images and append `input_image_sha256`, of what encoders read."""
    blocks = []
    for block in io.read_slices(path, schemas.IMAGES, [*columns, "image"], IMAGES_PER_BLOCK):
        hashes = [image_sha256(image.as_py()) for image in block["image"]]
        block = block.drop_columns(["image"])
        block = block.append_column("input_image_sha256", pa.array(hashes, pa.string()))
        blocks.append(block)
    return pa.concat_tables(blocks)


def encode_items(
    loaded: Loaded,
    texts: Sequence[str],
    images: Sequence[bytes | None],
    done: Callable[[int], object] = int,
) -> np.ndarray:
    """Encode B items by the modalities of the set, float32 [B, F].

    A text may be empty, an image None.
    """
    return encode_content(loaded, texts, images, done).vectors


def encode_content(
    loaded: Loaded,
    texts: Sequence[str],
    images: Sequence[bytes | None],
    done: Callable[[int], object] = int,
) -> Encoded:
    """Encode items like `encode_items`, and tell which were encoded from what."""
    from alignrec.pipeline.features import batching  # loads torch

    facts = loaded.facts
    if "text" not in facts.reads:
        texts = [""] * len(texts)
    if "image" not in facts.reads:
        images = [None] * len(images)
    batch_size = min(facts.batch_size, MOST_AT_A_TIME)
    workers = os.cpu_count() or 1
    return batching.encode_items(loaded.encoder, texts, images, batch_size, done, workers)


class ReleasedParams(Pretrained):
    """Parameters of encoder kind `released`; `model` is a release folder."""

    encoder: Annotated[str, Field(min_length=1)]  # feature set of the release


def find_origin(where: str, params: ReleasedParams) -> Origin:
    if params.folder is None:
        raise UserError(f"'{where}.model': no release folder '{params.model}'")
    encoders = ReleasedEncoders(params.folder)
    facts = encoders.facts(params.encoder)
    manifest = encoders.manifest
    stated = Path(params.folder) / manifests.MANIFEST_FILE
    kept = _list_kept(encoders, facts)
    origin = Origin(
        params.folder,
        f"{manifest.dataset} {manifest.version}: {params.encoder}",
        f"{LOCAL}{io.sha256(stated)}",
        with_version(RELEASE_LIBRARY),
        fingerprint=facts.fingerprint,
        kept=kept,
        read=[stated, *kept.values()],
    )
    origin = origin.restrict_to(where, params, facts.reads)
    if len(origin.reads) < len(facts.reads):
        return replace(origin, fingerprint=None, kept={})
    return origin


def _list_kept(encoders: ReleasedEncoders, facts: Facts) -> dict[str, Path]:
    """Return place -> file of an encoder with its parts, as a set's `encoder/` has them.

    UserError if one of them is not as the manifest lists it.
    """
    if not facts.portable:
        return {}

    places = {part: f"{PARTS}/{part}/" for part in _list_needed(encoders, facts)}
    places[facts.encoder] = ""
    kept = {}
    for file in encoders.manifest.files:
        top, name, *inner = [*PurePosixPath(file.path).parts, ""]
        place = "/".join(inner[:-1])
        is_shared = name == facts.weights and name != facts.encoder and place != ENCODER_FILE
        if top != ENCODERS_FOLDER or (name not in places and not is_shared):
            continue
        path = encoders.release / file.path
        if path.is_symlink() or not path.is_file() or io.sha256(path) != file.sha256:
            raise UserError(f"{path}: not as its manifest lists it; fetch the release again")
        kept[places.get(name, "") + place] = path
    return kept


def _list_needed(encoders: ReleasedEncoders, facts: Facts) -> list[str]:
    """Return the encoders of a release that are parts of a chain, and what they need themselves."""
    needed: list[str] = []
    chains = [facts]
    while chains:
        outer = chains.pop()
        beside = parts_beside(outer, encoders.folder(outer.encoder))
        if outer is not facts and outer.weights is not None:
            beside = [*beside, outer.weights]
        for name in beside:
            if name != facts.encoder and name not in needed:
                needed.append(name)
                chains.append(encoders.facts(name))
    return needed


def _load_released(origin: Origin, params: ReleasedParams) -> Encoder:
    return ReleasedEncoders(origin.folder).load(params.encoder).encoder


RELEASED = Spec(_load_released, ReleasedParams, origin=find_origin, library=RELEASE_LIBRARY)
