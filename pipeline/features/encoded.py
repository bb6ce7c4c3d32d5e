"""Feature sets that a network makes of images and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Section
from pipeline.encode import batching
from pipeline.encode.base import Context, Encoder, Progress, Spec
from pipeline.features import earlier
from pipeline.features.node import Blank, Items, Maker, Node, table
from pipeline.features.reading import kept as reading_kept

Content = tuple[pa.Table, list[str], list[bytes | None]]
"""item_id and asin, texts and JPEGs of some items"""
LOADING = Lock()
"""one network is loaded at a time: libraries are not made for more, and one that draws weights sets torch's seed"""


@runtime_checkable
class Halves(Protocol):
    """An encoder whose vectors may have numbers of the image alone beside numbers of the text alone."""

    @property
    def halves(self) -> dict[str, int]:
        """Modality -> how many, in the order of the columns; empty where they do not stand apart."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded(Node):
    """The vectors of an encoder."""

    own: Section
    entry: Spec[Any]
    """its kind"""
    module: str
    """that holds the kind"""
    context: Context
    """what the encoder is made from"""

    def load(self) -> Encoder:
        """Load the network."""
        encoder: Encoder = self.entry.make(self.context, self.own)
        return encoder

    def rows(self, items: Items) -> Maker:
        """Return what encodes items, and tells of each batch; `encode.reuse`: but for rows that were there before."""
        read, encode, known = self._reader(self.reads, items), self._encode(items), self._earlier

        def make(start: int, stop: int) -> pa.Table:
            rows = known.rows(*read(start, stop), encode)
            items.done(earlier.count(rows, "taken_over"))
            return rows

        return make

    def maker(self, items: Items) -> Maker:
        """Return what encodes items; the network is loaded on the first call."""
        return self._shown(self.reads, items)

    def hidden(self, modality: str, items: Items) -> Maker:
        """Return what encodes items from which a modality is hidden."""
        return self._shown([one for one in self.reads if one != modality], items)

    def _shown(self, reads: Sequence[str], items: Items) -> Maker:
        read, encode = self._reader(reads, items), self._encode(items)
        return lambda start, stop: encode(*read(start, stop))

    def _reader(self, reads: Sequence[str], items: Items) -> Callable[[int, int], Content]:
        """Return what reads the items of a shard."""
        shards = io.shards(self.layout.images, "images") if "image" in reads else []

        def read(start: int, stop: int) -> Content:
            n, ids = stop - start, items.ids.slice(start, stop - start)
            texts = items.texts.slice(start, n).to_pylist() if "text" in reads else [""] * n
            with items.throughput.on("read"):
                return ids, texts, batching.read_images(shards, start, stop) if shards else [None] * n

        return read

    def _encode(self, items: Items) -> earlier.Encoding:
        """Return what makes rows of what was read; the network is loaded on the first call."""
        settings = self.params.batch_size, items.done, self.params.workers, items.throughput

        @cache
        def encoder() -> Encoder:
            with LOADING:
                return self.load()

        def encode(ids: pa.Table, texts: list[str], images: list[bytes | None]) -> pa.Table:
            made = batching.encode(encoder(), texts, images, *settings)
            rows = reading_kept(table(ids, made.vectors, made.has_image, made.has_text), made.reading)
            return rows.append_column("halved", pa.array(made.halved))

        return encode

    @cached_property
    def _earlier(self) -> earlier.Earlier:
        """The rows that may be taken over, one for the workers of all devices."""
        return earlier.Earlier(self.folder if self.params.reuse else None)

    def apart(self, modality: str, items: Items) -> Blank | None:
        """Return what makes the columns of the modality zero."""
        encoder = self.load()
        halves = encoder.halves if isinstance(encoder, Halves) else {}
        if modality not in halves:
            return None
        ends = dict(zip(halves, np.cumsum(list(halves.values())).tolist(), strict=True))
        columns = slice(ends[modality] - halves[modality], ends[modality])

        def zeroed(vectors: np.ndarray) -> np.ndarray:
            out = vectors.copy()
            out[:, columns] = 0
            return out

        return zeroed

    @property
    def reads(self) -> tuple[str, ...]:
        """The modalities that the encoder is shown."""
        return self.context.origin.reads if self.context.origin else self.entry.reads

    def width(self, items: Items) -> int:
        """Return F, without encoding an item."""
        return super().width(items) if self.listed else self.load().width

    def inputs(self) -> list[Path]:
        """Return items and images, and what `pretrain` wrote."""
        images = io.shards(self.layout.images, "images") if "image" in self.reads else []
        network = self.context.files.present() if self.entry.pretrained else []
        return [self.layout.items, *self.sources, *images, *network]

    def shared(self) -> list[Path]:
        """Return the network's files; of a kind that is fitted to the items, or for them, all files."""
        if self.entry.fit is not None or not self.entry.portable:
            return self.inputs()
        return [*self.sources, *(self.context.files.present() if self.entry.pretrained else [])]

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        """Return a hash of the items' texts, and of the files that have their images."""
        content = [items.ids["asin"], *([items.texts] if "text" in self.reads else [])]
        shards = io.shards(self.layout.images, "images") if "image" in self.reads else []
        rows = orjson.dumps([column.slice(start, stop - start).to_pylist() for column in content])
        images = [io.sha256(path) for path, *_ in batching.holding(shards, start, stop)]
        return [hashlib.sha256(rows).hexdigest(), *images]

    def facts(self) -> dict[str, Any]:
        """Return kind, settings, and whose network it is."""
        return super().facts() | self._network

    def about(self) -> dict[str, Any]:
        """Return whose network it is; nothing of ours."""
        return {"kind": self.kind} | self._network if self.context.origin else {}

    def code(self) -> list[str]:
        """Return the kind's module, and this one."""
        return [self.module, *super().code()]

    def networks(self, own: bool = False) -> list[Encoded]:
        """Return itself."""
        return [self]

    def fit(self, progress: Progress) -> None:
        """Train a kind with `fit`, unless that is done."""
        if self.entry.fit is not None and not self.context.fitted.is_file():
            self.entry.fit(self.context, self.own, progress)

    def weights(self) -> list[dict[str, str]]:
        """Return name and sha256 of the file that a kind with `fit` wrote, for metadata."""
        path = self.context.fitted
        return [] if self.entry.fit is None else [{"name": path.name, "sha256": io.sha256(path)}]

    def settled(self) -> Encoded:
        """Return it with what its kind decides for this machine."""
        decide = self.entry.settled
        return self if decide is None else replace(self, own=decide(self.context, self.own))

    @property
    def _network(self) -> dict[str, Any]:
        """What identifies somebody's network, and how it is used."""
        if (source := self.context.origin) is None:
            return {}
        which = {"model": source.model, "revision": source.revision, "library": source.library}
        return which | {"modalities": list(source.reads), "prompt": source.prompt}
