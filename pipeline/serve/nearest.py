"""Items of a release that are nearest to a text, an image or both, by its own encoders. I items, F width."""

import threading
from typing import Any

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.encode.network import Loaded
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.images.decode import normalise
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.release import encoded
from alignrec.pipeline.release.encoder import Carried
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.release.verify import refuse_damaged
from alignrec.pipeline.report import content

CHARACTERS, BYTES, PIXELS = 2000, 10_000_000, 40_000_000
"""the longest text, largest file and largest image that are taken"""
NEAREST = 24  # items of an answer


class Refused(Exception):
    """A query that cannot be answered."""


class Nearest:
    """Answers queries, one at a time, so that a network takes memory once."""

    def __init__(self, release: Release) -> None:
        self._release, self.encoders = release, Carried(release.folder).names
        if not self.encoders:
            raise UserError(
                f"{release.folder}: no encoder in this release, so nothing can be asked; publish one with it"
            )
        self._titles, self._paths = content.titles(release.items), content.paths(release.items)
        self._loaded: dict[str, tuple[Loaded, np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> tuple[Loaded, np.ndarray, np.ndarray]:
        """Return an encoder, the unit vectors of the items, float32 [I, F], and whether they have a direction."""
        if name not in self._loaded:
            release = self._release
            needed = [f for f in release.manifest.files if f.feature_set == name or name in f.used_by]
            refuse_damaged(release.folder, needed)  # it was verified when the server began, which may be long ago
            vectors = io.matrix(release.features(name)["vector"])
            self._loaded[name] = (Carried(release.folder).load(name), *unit_rows(vectors))
        return self._loaded[name]

    def ask(self, name: str, text: str, image: bytes) -> list[dict[str, Any]]:
        """Return item, title, category and cosine of the items nearest to untrusted text and image; raises Refused."""
        if name not in self.encoders:
            raise Refused(f"no encoder of that name; there are {', '.join(self.encoders)}")
        if len(text) > CHARACTERS or len(image) > BYTES:
            raise Refused(f"too much: {CHARACTERS:,} characters and {BYTES // 1_000_000} MB are taken")
        text = text.strip().encode(errors="replace").decode()
        with self._lock:
            loaded, units, directed = self.load(name)
            reads = loaded.facts.reads
            if not (text and "text" in reads) and not (image and "image" in reads):
                raise Refused(f"{name} reads {' and '.join(reads)}: give one of these")
            stored = None
            if image:
                decoded = normalise(image, loaded.facts.image_size, loaded.facts.image_quality, PIXELS)
                if (stored := decoded.image) is None:
                    why = f"{decoded.status.replace('_', ' ')}; {decoded.reason}"
                    raise Refused(f"this image cannot be used: {why}")
            vector, has_direction = unit_rows(encoded.vectors(loaded, [text], [stored]).vectors)
        if not has_direction[0]:
            raise Refused(f"{name} finds nothing to go by in this; try other words, or another encoder")
        cosines = np.where(directed, units @ vector[0], -2.0)
        order = [int(i) for i in np.argsort(-cosines, kind="stable")[:NEAREST] if directed[i]]
        return [
            {"item": i, "title": self._titles[i], "category": self._paths[i], "cosine": round(float(cosines[i]), 4)}
            for i in order
        ]
