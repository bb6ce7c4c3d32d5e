"""The best linear combination of all other feature sets, chosen on valid.

A candidate reduces some sets to one width, as `linear` does. With `mapped` it may map that to the factors of train
interactions, and keep or drop the content. search.py tries candidates.

Letters: I items, n of them, F and W widths.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import schemas
from pipeline import io
from pipeline.config.base import Name, Positive, Section
from pipeline.encode.base import Progress
from pipeline.encode.throughput import Throughput
from pipeline.features import gathered
from pipeline.features.gathered import Gathered
from pipeline.features.node import Items, provenance
from pipeline.items.texts import Texts
from pipeline.ops import joining

if TYPE_CHECKING:
    from pipeline.features import mapped, search


class ChosenParams(Section):
    """Settings of kind `chosen`."""

    of: list[Name] = []
    """feature sets that `encode.encoders` names, or imported ones; none: every encoder, also those trained here"""
    width: Positive = 128
    """directions kept at most, and factors of train interactions"""
    mapped: bool = False
    """also try candidates mapped to train interactions, as kind `mapped`; such a set leaks if another split is used"""
    seconds: Positive = 30
    """budget, 1e9 operations each, so that every machine tries the same candidates"""


class Chosen(Gathered):
    """The best candidate on valid."""

    Params = ChosenParams
    own: ChosenParams
    relearns = True

    def prepare(self, progress: Progress) -> None:
        if self.of and not self.layout.tried(self.name).is_file():
            from pipeline.features import search  # loads SciPy

            tried = search.search(self, self.own.width, self.own.seconds, self.own.mapped, progress)
            io.write_table(tried, self.layout.tried(self.name), schemas.TRIED)

    def inputs(self) -> list[Path]:
        return [*super().inputs(), self.layout.interactions]

    def fitted(self, items: Items) -> search.Recipe:
        from pipeline.features import search  # loads SciPy

        winner = self.winner
        of = [node for node in self.of if node.name in winner.of]
        places = [i for i, node in enumerate(self.of) if node.name in winner.of]
        blocks = [block._replace(part=places[block.part]) for block in gathered.blocks(of, items, winner.image)]
        content = joining.fit(self.parts, blocks, self.own.width, winner.power)
        return search.fit_recipe(self.parts, content, winner.map, self.own.width, self._targets(np.zeros(0, np.int64)))

    def about(self) -> dict[str, Any]:
        if not self.layout.tried(self.name).is_file():
            return super().about()
        parts = [provenance(node) for node in self.of if node.name in self.winner.of]
        return {"kind": self.kind, "parts": parts} | ({} if self.winner.map == "none" else {"map": self.winner.map})

    @property
    def learned(self) -> bool:
        return self.winner.map != "none" or any(node.learned for node in self.of if node.name in self.winner.of)

    def relearned(self, cold: np.ndarray) -> np.ndarray:
        from pipeline.features import search  # loads SciPy

        again = search.fit_recipe(self.parts, self._whole.content, self.winner.map, self.own.width, self._targets(cold))
        return np.concatenate(list(map(again, self.parts())))

    @cached_property
    def winner(self) -> search.Candidate:
        from pipeline.features import search  # loads SciPy

        rows = io.read_table(self.layout.tried(self.name), schemas.TRIED).to_pylist()
        (won,) = [row for row in rows if row["chosen"]]
        return search.Candidate(tuple(won["of"]), won["power"], won["image"], won["map"])

    @cached_property
    def _whole(self) -> search.Recipe:
        texts = Texts(self.layout.items)
        return self.fitted(Items(io.read_table(self.layout.item_ids, schemas.ITEM_IDS), texts, Throughput()))

    def _targets(self, cold: np.ndarray) -> mapped.Targets | None:
        from pipeline.features import mapped

        return mapped.targets(self, self.own.width, cold) if self.winner.map != "none" else None
