"""Items of a release that are nearest to a text, an image or both, by its own encoders. I items, F width."""

import threading
from typing import NamedTuple

import numpy as np

from pipeline import io
from pipeline.errors import UserError
from pipeline.images.decode import normalise
from pipeline.ops.rows import unit_rows
from pipeline.release import encoded, encoder
from pipeline.release.encoder import Loaded
from pipeline.release.read import Release
from pipeline.release.verify import refuse_damaged
from pipeline.report import content

CHARACTERS, BYTES, PIXELS = 2000, 10_000_000, 40_000_000
"""the longest text, largest file and largest image that are taken"""
NEAREST = 24  # items of an answer


class Found(NamedTuple):
    """One item of an answer."""

    item: int  # its row in the release
    title: str
    category: str
    cosine: float


class Refused(Exception):
    """A query that cannot be answered."""


class Nearest:
    """Answers queries, one at a time, so that a network takes memory once."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self.encoders = [name for name in encoder.names(release.folder) if name in release.feature_sets]
        if not self.encoders:
            raise UserError(
                f"{release.folder}: no encoder in this release, so nothing can be asked; publish one with it"
            )
        self._titles, self._paths = content.titles(release.items), content.paths(release.items)
        self._loaded: dict[str, tuple[Loaded, np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        with self._lock:
            self._ready(name)

    def ask(self, name: str, text: str, image: bytes) -> list[Found]:
        """Return the nearest items, nearest first; text and image (untrusted bytes) may be empty. Raises Refused."""
        if name not in self.encoders:
            raise Refused(f"no encoder of that name; there are {', '.join(self.encoders)}")
        if len(text) > CHARACTERS or len(image) > BYTES:
            raise Refused(f"too much: {CHARACTERS:,} characters and {BYTES // 1_000_000} MB are taken")
        with self._lock:
            loaded, units, directed = self._ready(name)
            reads = loaded.facts.reads
            if not (text.strip() and "text" in reads) and not (image and "image" in reads):
                raise Refused(f"{name} reads {' and '.join(reads)}: give one of these")
            vector, has_direction = unit_rows(self._vector(loaded, text.strip(), image))
        if not has_direction[0]:
            raise Refused(f"{name} finds nothing to go by in this; try other words, or another encoder")
        cosines = np.where(directed, units @ vector[0], -2.0)
        order = np.lexsort((np.arange(len(cosines)), -cosines))[:NEAREST]
        return [
            Found(int(i), self._titles[i], self._paths[i], round(float(cosines[i]), 4)) for i in order if directed[i]
        ]

    def _ready(self, name: str) -> tuple[Loaded, np.ndarray, np.ndarray]:
        if name not in self._loaded:
            release = self._release
            needed = [f for f in release.manifest.files if f.feature_set == name or name in f.used_by]
            refuse_damaged(release.folder, needed)  # it was verified when the server began, which may be long ago
            vectors = io.matrix(self._release.features(name)["vector"])  # [I, F]
            self._loaded[name] = (encoder.load(self._release.folder, name), *unit_rows(vectors))
        return self._loaded[name]

    def _vector(self, loaded: Loaded, text: str, image: bytes) -> np.ndarray:
        stored = None
        if image:
            decoded = normalise(image, loaded.facts.image_size, loaded.facts.image_quality, PIXELS)
            if decoded.image is None:
                raise Refused(f"this image cannot be used: {decoded.status.replace('_', ' ')}; {decoded.reason}")
            stored = decoded.image
        text = text.encode(errors="replace").decode()
        return encoded.vectors(loaded, [text], [stored]).vectors
