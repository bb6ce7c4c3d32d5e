"""Feature sets that a network encodes from images and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from pipeline import io
from pipeline.config.base import Section
from pipeline.encode import batching
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.encode.origin import release
from pipeline.features import earlier
from pipeline.features.earlier import texts_and_images
from pipeline.features.masked import Blank, Separable
from pipeline.features.node import Items, Maker, Node, table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.encode.chunks import Reading
    from pipeline.items.texts import Texts

Encoding = Callable[[pa.Table], pa.Table]  # item_id, asin, and `text` and `image` if they are read -> rows


class Look(NamedTuple):
    """A network and its inputs."""

    network: Encoded
    reads: tuple[str, ...]  # modalities
    known: earlier.Earlier | None = None  # rows to reuse; None: rows get no hash of their content

    def reader(self, ids: pa.Table, texts: Texts | pa.ChunkedArray) -> Maker:
        """Return a function that reads the inputs of a shard; `ids` and `texts` are of all items."""
        shards = self.network.images(self.reads)

        def read(start: int, stop: int) -> pa.Table:
            content = ids.slice(start, stop - start).select(["item_id", "asin"])
            if "text" in self.reads:
                content = content.append_column("text", texts.slice(start, stop - start))
            if shards:
                content = content.append_column("image", batching.image_column(shards, start, stop))
            return content if self.known is None else self.known.found(content)

        return read

    def encoding(self, load: Callable[[], Encoder], done: Callable[[int], object] = int) -> Encoding:
        """Return a function that encodes inputs and reports progress; it loads the network on the first call."""
        own, load = self.network.params, cache(load)

        def encode(content: pa.Table) -> pa.Table:
            texts, images = texts_and_images(content)
            made = batching.encode(load(), texts, images, own.batch_size, done, own.workers)
            rows = append_reading(table(content, made.vectors, made.has_image, made.has_text), made.reading)
            return rows.append_column("halved", pa.array(made.halved))

        return encode if self.known is None else partial(earlier.complete, encode)


def append_reading(rows: pa.Table, reading: Reading | None) -> pa.Table:
    """Append columns of the tokens of each text that were encoded, and of all; null for items without text."""
    texts = rows["has_text"].to_numpy()
    for name, numbers in reading._asdict().items() if reading else ():
        of_all = np.zeros(len(rows), np.int64)
        of_all[texts] = numbers
        rows = rows.append_column(name, pa.array(of_all, mask=~texts))
    return rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded(Separable):
    """The vectors of an encoder."""

    own: Section
    entry: Spec[Any]
    module: str  # of the kind
    context: Context

    def load(self) -> Encoder:
        encoder: Encoder = self.entry.make(self.context, self.own)
        return encoder

    def rows(self, items: Items) -> Maker:
        """Return the row factory, with a hash of each item's content; with `encode.reuse`, known rows are reused."""
        encode = self._encode(items, Look(self, self.reads, self._earlier))

        def make(start: int, stop: int) -> pa.Table:
            rows = encode(start, stop)
            items.done(earlier.count(rows, "taken_over"))
            return rows

        return make

    def hidden(self, modality: str, items: Items) -> Maker:
        return self._encode(items, Look(self, tuple(one for one in self.reads if one != modality)))

    def _encode(self, items: Items, look: Look) -> Maker:
        if items.elsewhere is not None:
            return items.elsewhere(look)
        read, encode = look.reader(items.ids, items.texts), look.encoding(self.load, items.done)
        return lambda start, stop: encode(read(start, stop))

    @cached_property
    def _earlier(self) -> earlier.Earlier:
        return earlier.Earlier(self.folder if self.params.reuse else None)

    def apart(self, modality: str, items: Items) -> Blank | None:
        halves: dict[str, int] = getattr(self.load(), "halves", {})  # modality -> columns, in order, if separate
        if modality not in halves:
            return None
        kept = np.repeat([name != modality for name in halves], list(halves.values()))
        return lambda vectors: np.where(kept, vectors, np.float32(0))

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities that the encoder gets."""
        return self.context.origin.reads if self.context.origin else self.entry.reads

    def width(self, items: Items) -> int:
        return super().width(items) if self.listed else self.load().width

    def images(self, reads: tuple[str, ...]) -> list[Path]:
        return io.shards(self.layout.images, "images") if "image" in reads else []

    def inputs(self) -> list[Path]:
        return [self.layout.items, *self.sources, *self.images(self.reads), *self._weights()]

    def shared(self) -> list[Path]:
        """Return the network's files; all inputs of a kind that is fitted to the items."""
        return [*self.sources, *self._weights()] if self.entry.portable else self.inputs()

    def _weights(self) -> list[Path]:
        return self.context.files.present() if self.entry.pretrained else []

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        content = [items.ids["asin"], *([items.texts] if "text" in self.reads else [])]
        rows = orjson.dumps([column.slice(start, stop - start).to_pylist() for column in content])
        images = [io.sha256(path) for path, *_ in batching.holding(self.images(self.reads), start, stop)]
        return [hashlib.sha256(rows).hexdigest(), *images]

    def facts(self) -> dict[str, Any]:
        return super().facts() | self._network

    def space(self) -> dict[str, Any]:
        """Return the space of the released set whose encoder it is, or its own, with packages that bring weights."""
        released = self.context.origin.fingerprint if self.context.origin else None
        own = dict(released) if released else super().space()
        return own | {name: release(name) for name in self.entry.packages}

    def about(self) -> dict[str, Any]:
        return {"kind": self.kind} | self._network if self.context.origin else {}

    @property
    def _network(self) -> dict[str, Any]:
        if (source := self.context.origin) is None:
            return {}
        which = {"model": source.model, "revision": source.revision, "library": source.library}
        return which | {"modalities": list(source.reads), "prompt": source.prompt}


def with_progress(node: Node, items: Items) -> Maker:
    """Return the row factory of a set that reports progress: networks do by batch, other kinds by shard."""
    if isinstance(node, Encoded):
        return node.rows(items)
    make = node.rows(replace(items, done=int))

    def counted(start: int, stop: int) -> pa.Table:
        rows = make(start, stop)
        items.done(stop - start)
        return rows

    return counted


def networks(node: Node) -> list[Encoded]:
    """Return the encoders that a node derives from."""
    return [node] if isinstance(node, Encoded) else [one for part in node.of for one in networks(part)]
