"""Feature sets that a network makes of images and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import orjson
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Section
from pipeline.encode import batching
from pipeline.encode.base import Context, Encoder, Progress, Spec
from pipeline.encode.origin import release
from pipeline.features import earlier
from pipeline.features.earlier import texts_and_images
from pipeline.features.node import Blank, Items, Maker, Node, table
from pipeline.features.reading import kept as reading_kept

if TYPE_CHECKING:
    from pipeline.encode.throughput import Throughput
    from pipeline.items.texts import Texts

Encoding = Callable[[pa.Table], pa.Table]
"""item_id and asin of some items, and of `text` and `image` what is read -> their rows"""
LOADING = Lock()
"""one network is loaded at a time: libraries are not made for more, and one that draws weights sets torch's seed"""


@runtime_checkable
class Halves(Protocol):
    """An encoder whose vectors may have numbers of the image alone beside numbers of the text alone."""

    @property
    def halves(self) -> dict[str, int]:
        """Modality -> how many, in the order of the columns; empty where they do not stand apart."""
        ...


class Look(NamedTuple):
    """A network, and what it is shown of items."""

    network: Encoded
    reads: tuple[str, ...]  # modalities
    known: earlier.Earlier | None = None
    """the rows that need not be made again; None: rows have no hash of their content"""

    def reader(self, ids: pa.Table, texts: Texts | pa.ChunkedArray) -> Maker:
        """Return what reads, of the items of a shard, what `encoding` takes.

        Args:
            ids: item_id and asin of all items.
            texts: of all items.
        """
        shards = io.shards(self.network.layout.images, "images") if "image" in self.reads else []

        def read(start: int, stop: int) -> pa.Table:
            content = ids.slice(start, stop - start).select(["item_id", "asin"])
            if "text" in self.reads:
                content = content.append_column("text", texts.slice(start, stop - start))
            if shards:
                content = content.append_column("image", batching.image_column(shards, start, stop))
            return content if self.known is None else self.known.found(content)

        return read

    def encoding(
        self, load: Callable[[], Encoder], throughput: Throughput, done: Callable[[int], object] = int
    ) -> Encoding:
        """Return what makes rows of what was read; the network is loaded on the first call."""
        own, load = self.network.params, cache(load)

        def encode(content: pa.Table) -> pa.Table:
            texts, images = texts_and_images(content)
            made = batching.encode(load(), texts, images, own.batch_size, done, own.workers, throughput)
            rows = reading_kept(table(content, made.vectors, made.has_image, made.has_text), made.reading)
            return rows.append_column("halved", pa.array(made.halved))

        return encode if self.known is None else partial(earlier.completed, encode)


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded(Node):
    """The vectors of an encoder."""

    own: Section
    entry: Spec[Any]  # its kind
    module: str  # that holds the kind
    context: Context  # what the encoder is made from

    def load(self) -> Encoder:
        """Load the network."""
        encoder: Encoder = self.entry.make(self.context, self.own)
        return encoder

    def _loaded(self) -> Encoder:
        with LOADING:
            return self.load()

    def rows(self, items: Items) -> Maker:
        """Return what encodes items, and tells of each batch; `encode.reuse`: but for rows that were there before."""
        encode = self._shown(items, Look(self, self.reads, self._earlier))

        def make(start: int, stop: int) -> pa.Table:
            rows = encode(start, stop)
            items.done(earlier.count(rows, "taken_over"))
            return rows

        return make

    def maker(self, items: Items) -> Maker:
        """Return what encodes items; the network is loaded on the first call."""
        return self._shown(items, Look(self, self.reads))

    def hidden(self, modality: str, items: Items) -> Maker:
        return self._shown(items, Look(self, tuple(one for one in self.reads if one != modality)))

    def _shown(self, items: Items, look: Look) -> Maker:
        if items.elsewhere is not None:
            return items.elsewhere(look)
        read, encode = look.reader(items.ids, items.texts), look.encoding(self._loaded, items.throughput, items.done)

        def make(start: int, stop: int) -> pa.Table:
            with items.throughput.on("read"):
                content = read(start, stop)
            return encode(content)

        return make

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

    def space(self) -> dict[str, Any]:
        """Return that of the released set whose encoder it is, or its own with the packages that bring its weights."""
        released = self.context.origin.fingerprint if self.context.origin else None
        own = dict(released) if released else super().space()
        return own | {name: release(name) for name in self.entry.packages}

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the space, with how the images are stored that it reads."""
        shards = sorted(self.layout.images.glob("images-*.parquet")) if "image" in self.reads else []
        images = io.record(shards[0]).get("params", {}) if shards else {}
        return super().fingerprint() | {f"image_{key}": images[key] for key in ("size", "quality") if key in images}

    def about(self) -> dict[str, Any]:
        """Return whose network it is; nothing of ours."""
        return {"kind": self.kind} | self._network if self.context.origin else {}

    def code(self) -> list[str]:
        """Return the kind's module, and this one."""
        return [self.module, *super().code()]

    def fit(self, progress: Progress) -> None:
        """Train a kind with `fit`, unless that is done."""
        if self.entry.fit is not None and not self.context.fitted.is_file():
            self.entry.fit(self.context, self.own, progress)

    def weights(self) -> list[dict[str, str]]:
        """Return name and sha256 of the file that a kind with `fit` wrote, for metadata."""
        path = self.context.fitted
        return [] if self.entry.fit is None else [{"name": path.name, "sha256": io.sha256(path)}]

    def decided(self) -> Section:
        """Return its settings with what its kind decides for this machine."""
        assert self.entry.settled
        own: Section = self.entry.settled(self.context, self.own)
        return own

    @property
    def _network(self) -> dict[str, Any]:
        """What identifies somebody's network, and how it is used."""
        if (source := self.context.origin) is None:
            return {}
        which = {"model": source.model, "revision": source.revision, "library": source.library}
        return which | {"modalities": list(source.reads), "prompt": source.prompt}


def networks(node: Node, own: bool = False) -> list[Encoded]:
    """Return the encoders that a node is made of by any number of steps; `own`: not those of nodes that are written."""
    if isinstance(node, Encoded):
        return [node]
    return [one for part in node.of if not (own and part.listed) for one in networks(part, own)]


def settled(node: Node, decide: Callable[[Encoded], Section]) -> Node:
    """Return a node whose settings leave nothing to the machine; `decide` is asked where an encoder's kind decides."""
    if isinstance(node, Encoded):
        return node if node.entry.settled is None else replace(node, own=decide(node))
    return replace(node, of=tuple(settled(part, decide) for part in node.of))
