"""Feature sets that linear algebra makes of others: Joined, Whitened, and Linear, the baseline that trains no network.

Linear reduces all blocks of columns to one vector by PCA, with a weight for those of images only (ops/joining.py).
Validation chooses among WAYS; nothing is fitted to interactions.

Letters: n items, F and W widths.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, reduce
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

import schemas
from pipeline import io
from pipeline.config.base import Name, Positive, Section
from pipeline.errors import UserError
from pipeline.features import quality
from pipeline.features.masked import Blank, Separable, blank, without
from pipeline.features.node import Items, Maker, Node, shard, table
from pipeline.items.texts import Texts
from pipeline.ops import joining, whitening
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Block, Fit
from pipeline.ops.linalg import unit_rows

Map = Callable[[Sequence[np.ndarray]], np.ndarray]  # the parts' vectors, float32 [n, F] each -> float32 [n, W]
DRAWS = 5  # of cold items: each item is cold in one
K = 20


class JoinedParams(Section):
    """Settings of kind `concat`."""

    of: Annotated[list[Name], Field(min_length=2)]
    """encoders, in order; those that `encode.encoders` names too are encoded once"""


class Joined(Separable):
    """Parts of length 1 each; an image or a text counts as used if any part used it."""

    Params = JoinedParams

    def rows(self, items: Items) -> Maker:
        return _concatenated([node.read(items) for node in self.of])

    def shared(self) -> list[Path]:
        unlisted = (path for node in self.of if not node.listed for path in node.shared())
        return list(dict.fromkeys([*self.sources, *unlisted]))

    def own_inputs(self, items: Items, start: int, stop: int) -> Any:
        number = start // self.params.shard_rows
        return [
            io.sha256(io.shard(node.folder, "features", number)) if node.listed else node.own_inputs(items, start, stop)
            for node in self.of
        ]

    def hidden(self, modality: str, items: Items) -> Maker:
        return _concatenated([without(node, modality, items) for node in self.of])

    def apart(self, modality: str, items: Items) -> Blank | None:
        """Blank each part, which has length 1 again if something of it is left."""
        blanks = [one for node in self.of if (one := blank(node, modality, items))]
        if len(blanks) < len(self.of):
            return None
        ends = np.cumsum([node.width(items) for node in self.of])[:-1]
        rescaled = [len(node.reads) > 1 for node in self.of]

        def each(vectors: np.ndarray) -> np.ndarray:
            parts = [one(x) for one, x in zip(blanks, np.split(vectors, ends, axis=1), strict=True)]
            return np.hstack([unit_rows(x)[0] if again else x for x, again in zip(parts, rescaled, strict=True)])

        return each


def _concatenated(makers: list[Maker]) -> Maker:
    def make(start: int, stop: int) -> pa.Table:
        parts = [maker(start, stop) for maker in makers]
        vectors = np.hstack([unit_rows(io.matrix(part["vector"]))[0] for part in parts])
        flags = [np.logical_or.reduce([part[name].to_numpy() for part in parts]) for name in ("has_image", "has_text")]
        return table(parts[0], vectors, *flags)

    return make


class Gathered(Separable):
    """A map of all parts, fitted to all items."""

    stored = True

    @abstractmethod
    def fitted(self, items: Items) -> Map:
        """Return the map from the parts' vectors."""

    def parts(self) -> Iterator[list[np.ndarray]]:
        """Yield the parts' vectors, float32 [n, F] each, a shard at a time."""
        for paths in zip(*(node.shards for node in self.of), strict=True):
            yield [io.matrix(shard(path)["vector"]) for path in paths]

    def rows(self, items: Items) -> Maker:
        """UserError if there is no part."""
        if not self.of:
            raise UserError(
                f"'encoders.{self.name}': no encoder to build on; list one under encode.encoders, such as tfidf, or "
                "leave it out"
            )
        return self._mapped([node.read(items) for node in self.of], items)

    def hidden(self, modality: str, items: Items) -> Maker:
        return self._mapped([without(node, modality, items) for node in self.of], items)

    def _mapped(self, makers: list[Maker], items: Items) -> Maker:
        fitted = cache(lambda: self.fitted(items))

        def make(start: int, stop: int) -> pa.Table:
            rows = [maker(start, stop) for maker in makers]
            vectors = fitted()([io.matrix(part["vector"]) for part in rows])
            # a modality was used if any part used it; null if no part is known to have, and one is unknown
            flags = (reduce(pc.or_kleene, [part[flag] for part in rows]) for flag in ("has_image", "has_text"))
            return table(rows[0], vectors, *flags)

        return make


class Derived(Section):
    """Settings of the kinds that map one feature set."""

    of: Name
    """a feature set that `encode.encoders` names, or an imported one"""


class WhitenedParams(Derived):
    """Settings of kind `whitened`."""

    width: Positive = 128
    """directions kept at most, those of most variance"""


class Whitened(Gathered):
    """A feature set, centred, reduced by PCA and whitened: the processing that makes sets comparable."""

    Params = WhitenedParams
    own: WhitenedParams

    def fitted(self, items: Items) -> Map:
        own = whitening.fit_pca(lambda: (x for (x,) in self.parts()), self.own.width)
        return lambda parts: whitening.applied(own, parts[0])


class Way(NamedTuple):
    """What validation chooses."""

    power: float  # of the standard deviation that each direction of a part is divided by
    image: float  # weight of image-only columns, compared with 1 for all others
    reduced: bool  # whether PCA reduces all parts together to one width


WAYS = [Way(*way) for way in product((POWER, 0.3), (IMAGE, 0.3, 1.0), (True, False))]


class LinearParams(Section):
    """Settings of kind `linear`."""

    of: list[Name] = []
    """feature sets that `encode.encoders` names, or imported ones; none: every encoder but those trained here"""
    width: Positive = WIDTH
    """directions kept at most, of each part and of all together"""


class Linear(Gathered):
    """All parts reduced to one width."""

    Params = LinearParams
    own: LinearParams

    def choose(self) -> None:
        """Score all ways on validation, unless that is done."""
        if self.of and self.layout.interactions.is_file() and not self._scores.is_file():
            io.write_json(self._scores, self._scored())

    def inputs(self) -> list[Path]:
        return [*super().inputs(), *([self.layout.interactions] if self.layout.interactions.is_file() else [])]

    def fitted(self, items: Items) -> Fit:
        way = self.way
        return joining.fit(self.parts, self._blocks(items, way.image), self.own.width, way.power, way.reduced)

    @cached_property
    def way(self) -> Way:
        """The best way on validation; the first one without validation."""
        scores = io.read_json(self._scores) if self._scores.is_file() else []
        return WAYS[int(np.argmax(scores)) if scores else 0]

    @property
    def _scores(self) -> Path:
        return self.folder / "tried.json"

    def _blocks(self, items: Items, image: float) -> list[Block]:
        """Return the columns of the parts that distinguish items; UserError if there is none."""
        kept = [quality.distinguishes(part.shards) for part in self.of]
        if not any(kept):
            names = ", ".join(part.name for part in self.of)
            raise UserError(f"'encoders.{self.name}': none of {names} distinguishes items; leave it out")
        return [block for block in blocks(self.of, items, image) if kept[block.part]]

    def _scored(self) -> list[float]:
        """Return the score of each way: geometric mean of content neighbours' Recall among all, and among cold items.

        Without validation there is none.
        """
        from pipeline.interactions import profiles  # loads SciPy

        ids = io.read_table(self.layout.item_ids, schemas.ITEM_IDS)
        rows = io.read_table(self.layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
        user, item, split = (rows[column].to_numpy() for column in ("user_id", "item_id", "split"))
        has, finds = ((user[split == part], item[split == part]) for part in (schemas.TRAIN, schemas.VALID))
        warm = profiles.profiles(has, finds, profiles.asked(finds[0], len(ids), 0), len(ids))
        if not len(warm.user):
            return []
        cold = profiles.cold_draws(has, finds, len(ids), DRAWS)
        whole = self._blocks(Items(ids, Texts(self.layout.items)), IMAGE)
        columns = (np.concatenate([parts[b.part][:, b.columns] for parts in self.parts()]) for b in whole)
        reduced = [whitening.processed(x, self.own.width, 0) for x in columns]  # directions, to be given any power
        scores = []
        for way in WAYS:
            weights = [way.image if block.weight == IMAGE else block.weight for block in whole]
            own = [Block(i, np.ones(x.shape[1], bool), weights[i]) for i, x in enumerate(reduced)]
            vectors = joining.fit(lambda: [reduced], own, self.own.width, way.power, way.reduced)(reduced)
            of_all = float(np.nanmean(warm.recalls(vectors, K)))
            of_cold = np.nanmean(profiles.cold_recalls(cold, vectors, K), axis=1).mean() if cold else of_all
            scores.append(round(float(np.sqrt(of_all * of_cold)), 6))
        return scores


def blocks(nodes: Sequence[Node], items: Items, image: float) -> list[Block]:
    """Return the blocks of some sets; `image` is the weight of a block of images only."""
    found = []
    for part, node in enumerate(nodes):
        every = np.ones(node.width(items), bool)
        zeroed = blank(node, "image", items) if "image" in node.reads else None
        text = every if zeroed is None else zeroed(np.ones((1, len(every)), np.float32))[0] != 0
        found += [Block(part, columns, weight) for columns, weight in ((text, 1.0), (~text, image)) if columns.any()]
    return found
