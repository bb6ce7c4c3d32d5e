"""A feature set is a node: what it is made of, what its rows depend on, and how they are made.

A kind is a file with a subclass of Node, and an entry in registry.py. It gives `maker`. The rest has a default, which
tells of the nodes that it is made of. Letters: n items, F width.
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
from pipeline.errors import UserError
from pipeline.layout import Layout

if TYPE_CHECKING:  # which load torch
    from pipeline.encode.base import Progress
    from pipeline.encode.throughput import Throughput
    from pipeline.items.texts import Texts

Maker = Callable[[int, int], pa.Table]  # the first and the last + 1 item, a shard -> their rows, schema features(F)
Blank = Callable[[np.ndarray], np.ndarray]  # float32 [n, F] -> the same without a modality
ROUNDING = ("precision", "library")  # keys of facts that change vectors by rounding alone


@dataclass(frozen=True)
class Items:
    """What rows are made for."""

    ids: pa.Table  # item_id and asin of all items
    texts: Texts | pa.ChunkedArray  # strings, of all items
    throughput: Throughput  # counts operations and seconds
    done: Callable[[int], object] = int  # called with numbers of items that are made
    elsewhere: Callable[[Any], Maker] | None = None
    """Look of encoded.py -> the maker of rows that a network on another machine encodes; None: it runs here"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Node(ABC):
    """A feature set of one dataset."""

    name: str
    kind: str
    own: Section | None = None
    """its settings, an instance of `Params`; None where section `encoders` does not define it"""
    layout: Layout
    params: Encode
    of: tuple[Node, ...] = ()  # the nodes that it is made of, in order
    listed: bool = True  # whether `encode` writes it; else those that are made of it make its rows for themselves
    sources: tuple[Path, ...] = ()  # files of a kind in another package

    Params: ClassVar[type[Section]]
    """the closed class of its settings, `encoders.<name>`; what it is made of stands under `of`, a name or a list"""
    relearns: ClassVar[bool] = False
    """whether it learns from train interactions, and can be made without those of some items"""
    stored: ClassVar[bool] = False  # whether what it is made of must be a feature set that `encode` writes

    @abstractmethod
    def maker(self, items: Items) -> Maker:
        """Return what makes its rows, loaded on the first call; UserError if it cannot be made of its parts."""

    def rows(self, items: Items) -> Maker:
        """Do as `maker`, and tell `items.done` of every row that is made."""
        make = self.maker(replace(items, done=int))

        def counted(start: int, stop: int) -> pa.Table:
            rows = make(start, stop)
            items.done(stop - start)
            return rows

        return counted

    def made(self, items: Items) -> Maker:
        """Return the maker of its rows for those that are made of it: they are read where `encode` writes them."""
        return self._read if self.listed else self.maker(items)

    def without(self, modality: str, items: Items) -> Maker:
        """Return the maker of its rows as if no item had a modality: of its own rows where that can be."""
        if modality not in self.reads:
            return self.made(items)
        blank = self.blank(modality, items) if self.listed else None
        return blanked(self.made(items), blank, modality) if blank else self.hidden(modality, items)

    def hidden(self, modality: str, items: Items) -> Maker:
        """Do as `without` where its rows are not written, or its numbers of the modality do not stand apart."""
        if (blank := self.blank(modality, items)) is None:
            raise UserError(f"'encoders.{self.name}': no {modality} can be taken out of a set of kind {self.kind}")
        return blanked(self.made(items), blank, modality)

    def blank(self, modality: str, items: Items) -> Blank | None:
        """Return what takes a modality out of its vectors; None if its numbers do not stand apart."""
        if modality not in self.reads:
            return lambda vectors: vectors
        return np.zeros_like if self.reads == (modality,) else self.apart(modality, items)

    def apart(self, modality: str, items: Items) -> Blank | None:
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """The modalities that went into it, into any node that it is made of; none where they are unknown."""
        return tuple(dict.fromkeys(modality for node in self.of for modality in node.reads)) if self.own else ()

    def width(self, items: Items) -> int:
        """Return F."""
        if self.listed:
            return width(self.shards[0])
        return int(self.maker(replace(items, elsewhere=None))(0, 1)["vector"].type.list_size)

    @property
    def folder(self) -> Path:
        """Where `encode` writes it."""
        return self.layout.features(self.name)

    @property
    def shards(self) -> list[Path]:
        """Its Parquet files."""
        return io.shards(self.folder, "features")

    def files(self) -> list[Path]:
        """Return the files that those depend on which are made of it: its own, if it is written."""
        return self.shards if self.listed else self.inputs()

    def inputs(self) -> list[Path]:
        """Return the files that its rows depend on, each once."""
        return list(dict.fromkeys([*(path for node in self.of for path in node.files()), *self.sources]))

    def shared(self) -> list[Path]:
        """Return those of `inputs` that each of its rows depends on: if one changes, all rows are made again."""
        return self.inputs()

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        """Return what the rows of a shard depend on beside `shared`, JSON: hashes of content; None for nothing."""
        return None

    def code(self) -> list[str]:
        """Return the modules whose code its rows depend on, each once."""
        return list(dict.fromkeys([type(self).__module__, *(module for node in self.of for module in node.code())]))

    def facts(self) -> dict[str, Any]:
        """Return what else its rows depend on, which their metadata records; the path of a folder is no part of it."""
        kind = {"kind": self.kind} if self.kind != self.name else {}
        parts = {"parts": {node.name: node.facts() for node in self.of}} if self.of else {}
        return kind | self.own.model_dump() | parts if self.own else {}

    def space(self) -> dict[str, Any]:
        """Return what decides the space that its vectors lie in, but for files that are made here."""
        own = {key: value for key, value in self.facts().items() if key not in ROUNDING}
        parts = {"parts": {node.name: node.space() for node in self.of}} if self.of else {}
        return {"kind": self.kind} | own | parts

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the space, see pipeline/io/fingerprint.py; what it is made of has been made."""
        return self.space() | ({"weights": io.digest(files)} if (files := self.shared()) else {})

    def about(self) -> dict[str, Any]:
        """Return what a release tells of whose networks made it, its width aside; empty where that is nobody's."""
        parts = [{"name": node.name, "kind": node.kind} | node.about() for node in self.of]
        return {"kind": self.kind, "parts": parts} if self.own else {}

    @property
    def learned(self) -> bool:
        """Whether train interactions went into it, or into a node that it is made of."""
        return any(node.learned for node in self.of)

    def relearned(self, cold: np.ndarray) -> np.ndarray:
        """Return its vectors, made without the interactions of items `cold`, int [C]: float32 [I, F].

        A kind that `relearns` has it, where no node that it is made of learned.
        """
        raise NotImplementedError(self.kind)

    def prepare(self, progress: Progress) -> None:  # noqa: B027 - most kinds have nothing to prepare
        """Do once what its rows need besides trained networks, unless that is done."""

    def _read(self, start: int, stop: int) -> pa.Table:
        number, first = divmod(start, self.params.shard_rows)
        return shard(io.shard(self.folder, "features", number)).slice(first, stop - start)


def shard(path: Path) -> pa.Table:
    return io.read_table(path, schemas.features(width(path)))


def width(path: Path) -> int:
    """Return F of one file of a feature set."""
    return int(pq.read_schema(path).field("vector").type.list_size)


def table(ids: pa.Table, vectors: np.ndarray, has_image: Any, has_text: Any) -> pa.Table:
    """Return rows of schema features(F): item_id and asin, float32 [n, F], bool [n] flags, null where unknown."""
    columns = {"item_id": ids["item_id"], "asin": ids["asin"], "has_image": has_image, "has_text": has_text}
    return pa.table(columns | {"vector": io.vectors(vectors)})


def changed(rows: pa.Table, column: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(column), column, values)


def blanked(maker: Maker, blank: Blank, modality: str) -> Maker:
    """Return the maker of rows from which a modality is taken out, which is flagged as not used."""

    def make(start: int, stop: int) -> pa.Table:
        rows = maker(start, stop)
        rows = changed(rows, f"has_{modality}", pa.array(np.zeros(len(rows), bool)))
        return changed(rows, "vector", io.vectors(blank(io.matrix(rows["vector"]))))

    return make
