"""A feature set as a node: its parts, what its rows depend on, and how they are made.

A kind is a file with a subclass of Node, and an entry in registry.py. Letters: n items, F width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.config.base import Section
from pipeline.encode.params import Encode
from pipeline.layout import Layout

if TYPE_CHECKING:  # which load torch
    from pipeline.items.texts import Texts

Maker = Callable[[int, int], pa.Table]  # first and last + 1 item of a shard -> their rows, schema features(F)
ROUNDING = ("precision", "library")  # keys of facts that change vectors by rounding only


@dataclass(frozen=True)
class Items:
    """Input of row factories."""

    ids: pa.Table  # item_id and asin of all items
    texts: Texts | pa.ChunkedArray  # strings, of all items
    done: Callable[[int], object] = int  # networks call it with the number of items of each batch
    elsewhere: Callable[[Any], Maker] | None = None  # encodes a Look of encoded.py on a cluster; None: encode here


@dataclass(frozen=True, eq=False, kw_only=True)
class Node(ABC):
    """A feature set of one dataset."""

    name: str
    kind: str
    own: Section | None = None  # its settings, an instance of `Params`; None if section `encoders` does not define it
    layout: Layout
    params: Encode
    of: tuple[Node, ...] = ()  # its parts, in order
    listed: bool = True  # whether `encode` writes it; otherwise derived sets compute its rows
    sources: tuple[Path, ...] = ()  # files of a kind in another package

    Params: ClassVar[type[Section]]  # settings, `encoders.<name>`; parts are under `of`, a name or a list
    stored: ClassVar[bool] = False  # reads its parts as `encode` wrote them

    @abstractmethod
    def rows(self, items: Items) -> Maker:
        """Return the row factory, which loads what it needs on the first call; UserError for unsuitable parts."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities that it or any part was made from; empty if unknown."""
        return tuple(dict.fromkeys(modality for node in self.of for modality in node.reads)) if self.own else ()

    def inputs(self) -> list[Path]:
        """Return the files that its rows depend on, each once."""
        files = (path for node in self.of for path in (node.shards if node.listed else node.inputs()))
        return list(dict.fromkeys([*files, *self.sources]))

    def about(self) -> dict[str, Any]:
        """Return the provenance of third-party models for a release; empty if there are none."""
        return {"kind": self.kind, "parts": [provenance(node) for node in self.of]} if self.own else {}

    def shared(self) -> list[Path]:
        """Return the inputs that every row depends on: if one changes, all rows are made again."""
        return self.inputs()

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        """Return content hashes of what the rows of one shard depend on besides `shared`, as JSON; None for nothing."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the settings that its rows depend on, for their metadata; no paths of folders."""
        kind = {"kind": self.kind} if self.kind != self.name else {}
        parts = {"parts": {node.name: node.facts() for node in self.of}} if self.of else {}
        return kind | self.own.model_dump() | parts if self.own else {}

    def space(self) -> dict[str, Any]:
        """Return what decides the space of its vectors, except files that are made here."""
        own = {key: value for key, value in self.facts().items() if key not in ROUNDING}
        parts = {"parts": {node.name: node.space() for node in self.of}} if self.of else {}
        return {"kind": self.kind} | own | parts

    def width(self, items: Items) -> int:
        """Return F; of a set that is not written from the row of one item."""
        if self.listed:
            return width(self.shards[0])
        return int(self.rows(replace(items, done=int, elsewhere=None))(0, 1)["vector"].type.list_size)

    @property
    def folder(self) -> Path:
        """Where `encode` writes it."""
        return self.layout.features(self.name)

    @property
    def shards(self) -> list[Path]:
        """Its Parquet files."""
        return io.shards(self.folder, "features")

    def read(self, items: Items) -> Maker:
        """Return the row factory for derived sets: it reads the shards if `encode` writes them."""
        return self._read if self.listed else self.rows(items)

    def _read(self, start: int, stop: int) -> pa.Table:
        number, first = divmod(start, self.params.shard_rows)
        return shard(io.shard(self.folder, "features", number)).slice(first, stop - start)


def provenance(node: Node) -> dict[str, Any]:
    """Return name, kind and third-party models of a part."""
    return {"name": node.name, "kind": node.kind} | node.about()


def shard(path: Path) -> pa.Table:
    return io.read_table(path, schemas.features(width(path)))


def width(path: Path) -> int:
    return int(pq.read_schema(path).field("vector").type.list_size)


def table(ids: pa.Table, vectors: np.ndarray, has_image: Any, has_text: Any) -> pa.Table:
    """Return rows of schema features(F): item_id and asin, float32 [n, F], bool [n] flags, null if unknown."""
    columns = {"item_id": ids["item_id"], "asin": ids["asin"], "has_image": has_image, "has_text": has_text}
    return pa.table(columns | {"vector": io.vectors(vectors)})


def changed(rows: pa.Table, column: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(column), column, values)
