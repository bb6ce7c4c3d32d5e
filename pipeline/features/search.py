"""Search for the candidate of kind `chosen` that scores highest on valid; test is not read.

Candidates closest to `linear` come first, until the budget of operations is spent. The score is the geometric mean of
two Recalls of content neighbours: among all items, and among cold items, over draws that hide the cold items'
interactions from profiles and maps.

Letters: I items, G users, F and W widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.encode.base import Progress
from pipeline.encode.throughput import Throughput
from pipeline.errors import UserError
from pipeline.features import gathered
from pipeline.features.gathered import Gathered
from pipeline.features.mapped import Targets, fit_map, targets
from pipeline.features.node import Items
from pipeline.features.registry import OURS
from pipeline.interactions import profiles
from pipeline.items.texts import Texts
from pipeline.ops import joining, whitening
from pipeline.ops.joining import Block, Fit, Parts
from pipeline.ops.rows import unit_rows
from pipeline.ops.whitening import Whitening
from schemas import TRAIN, VALID

Mapping = Literal["none", "alone", "beside"]
HALF = np.float32(0.5)  # length of the mapped vector; the content has 1
RIDGE = 1.0  # penalty of the map, the default of `mapped`


class Candidate(NamedTuple):
    """Settings of a combination."""

    of: tuple[str, ...]  # feature sets
    power: float  # see LinearParams
    image: float  # see LinearParams
    map: Mapping  # to train interactions: none, in place of the content, or concatenated with it
    reduced: bool = True  # see LinearParams


@dataclass(frozen=True)
class Recipe:
    """A candidate, fitted to a catalogue."""

    content: Fit
    ridge: Whitening | None  # from content to factors
    last: Whitening | None  # of both, concatenated

    @property
    def width(self) -> int:
        own = self.last or self.ridge
        return int(own.map.shape[1]) if own else self.content.width

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [n, W] of the parts' vectors, float32 [n, F] each."""
        content = self.content(parts)
        if self.ridge is None:
            return content
        factors = whitening.applied(self.ridge, content)
        return factors if self.last is None else whitening.applied(self.last, _both(content, factors))


def fit_recipe(parts: Parts, content: Fit, how: Mapping, width: int, targets: Targets | None) -> Recipe:
    if targets is None:
        return Recipe(content, None, None)
    ridge = fit_map(lambda: map(content, parts()), targets, RIDGE)
    if how == "alone":
        return Recipe(content, ridge, None)
    both = lambda: (_both(x, whitening.applied(ridge, x)) for x in map(content, parts()))  # noqa: E731
    return Recipe(content, ridge, whitening.fit_pca(both, width, 0))


def _both(content: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return np.hstack([unit_rows(content)[0], unit_rows(factors)[0] * HALF])


POWERS = (0.5, 1.0, 0.25, 0.75)
IMAGES = (joining.IMAGE, 0.3, 1.0, 0.1)
MAPS: tuple[Mapping, ...] = ("none", "beside", "alone")  # with `mapped`
DRAWS = 5  # draws of cold items: each is cold once
K = 20
SECOND = 1e9  # operations


def candidates(
    hand: Sequence[str], trained: Sequence[str], images: bool, maps: Sequence[Mapping] = ("none",)
) -> list[Candidate]:
    every, single = [tuple(hand), (*hand, *trained)], [(name,) for name in (*trained, *hand)]
    of = list(dict.fromkeys(some for some in (*every, *single) if some))
    choices = (of, POWERS, IMAGES if images else IMAGES[:1], maps)
    steps = sorted(product(*map(enumerate, choices)), key=lambda step: sum(number for number, _ in step))
    return [Candidate(*(value for _, value in step)) for step in steps]  # type: ignore[arg-type]


def search(node: Gathered, width: int, seconds: int, mapped: bool, progress: Progress) -> pa.Table:
    """Return the tried candidates, schema TRIED; a killed search resumes. UserError if valid is empty."""
    trial = Trial(node, width, MAPS if mapped else MAPS[:1])
    kept = node.folder / ".tried.json"
    done: list[list[float]] = io.read_json(kept) if kept.is_file() else []
    within = trial.affordable(seconds)
    with progress(total=len(within), unit="candidate", initial=len(done)) as bar:
        for candidate in within[len(done) :]:
            done.append([round(figure, 6) for figure in trial.figures(candidate)])
            io.write_json(kept, done)
            bar.update(1)
    kept.unlink(missing_ok=True)
    return _table(within, done)


def score(node: Gathered, width: int, ways: Sequence[Candidate]) -> list[float]:
    try:
        trial = Trial(node, width, MAPS[:1])
    except UserError:
        return []
    return [round(float(np.sqrt(warm * cold)), 6) for warm, cold in map(trial.figures, ways)]


class Trial:
    """Data that candidates share."""

    def __init__(self, node: Gathered, width: int, maps: Sequence[Mapping]) -> None:
        self.maps = maps
        layout = node.layout
        self.node, self.width = node, width
        self.ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
        self.items = Items(self.ids, Texts(layout.items), Throughput())
        rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
        user, item, split = (rows[c].to_numpy() for c in ("user_id", "item_id", "split"))
        has, finds = ((user[split == part], item[split == part]) for part in (TRAIN, VALID))
        self.warm = profiles.profiles(has, finds, profiles.asked(finds[0], len(self.ids), 0), len(self.ids))
        if not len(self.warm.user):
            raise UserError(f"'encoders.{node.name}': {layout.dataset} has no valid interactions to choose by")
        self.cold = profiles.cold_draws(has, finds, len(self.ids), DRAWS)
        self.blocks = gathered.blocks(node.of, self.items, 1.0)
        gathered.refuse_nothing(self.blocks, node)
        others = {(part, columns.tobytes()) for part, columns, _ in gathered.blocks(node.of, self.items, 0.0)}
        self.is_image = [(part, columns.tobytes()) not in others for part, columns, _ in self.blocks]
        self.reduced = [self._reduced(block) for block in self.blocks]
        hidden = [np.zeros(0, np.int64), *(draw.candidates for draw in self.cold)]
        self.targets = cache(lambda draw: targets(node, width, hidden[draw]))

    def affordable(self, seconds: float) -> list[Candidate]:
        parts = [self.node.of[i] for i in sorted({block.part for block in self.blocks})]
        trained = [node.name for node in parts if node.kind == OURS]
        hand = [node.name for node in parts if node.kind != OURS]
        out: list[Candidate] = []
        spent = 0.0
        for candidate in candidates(hand, trained, any(self.is_image), self.maps):
            spent += self.operations(candidate)
            if out and spent > seconds * SECOND:
                break
            out.append(candidate)
        return out

    def operations(self, candidate: Candidate) -> float:
        n, w, draws = len(self.ids), self.width, len(self.cold)
        f = sum(x.shape[1] for x in self._parts(candidate)[0])
        fits = 1 if candidate.map == "none" else 1 + draws
        asked = self.warm.has.shape[0] * n * w * 2 * (1 + (draws > 0))
        return float(2 * n * f * (f + w) + fits * 8 * n * w * w + asked)

    def figures(self, candidate: Candidate) -> tuple[float, float]:
        warm = float(np.nanmean(self.warm.recalls(self.vectors(candidate, 0), K)))
        if not self.cold:
            return warm, warm
        draws = {tuple(draw.candidates.tolist()): i for i, draw in enumerate(self.cold, start=1)}
        vectors = lambda cold: self.vectors(candidate, draws[tuple(cold.tolist())])  # noqa: E731
        given = self.vectors(candidate, 0) if candidate.map == "none" else vectors
        return warm, float(np.nanmean(profiles.cold_recalls(self.cold, given, K), axis=1).mean())

    def vectors(self, candidate: Candidate, draw: int) -> np.ndarray:
        """Return a candidate's vectors, float32 [I, W]; its map without the cold items of a draw, from 1; 0: of all."""
        parts, blocks = self._parts(candidate)
        goal = None if candidate.map == "none" else self.targets(draw)
        content = joining.fit(lambda: [parts], blocks, self.width, candidate.power, candidate.reduced)
        return fit_recipe(lambda: [parts], content, candidate.map, self.width, goal)(parts)

    def _reduced(self, block: Block) -> np.ndarray:
        """Return the principal directions of a block, float32 [I, W], to which any power can be given."""
        x = np.concatenate([parts[block.part][:, block.columns] for parts in self.node.parts()])
        return whitening.processed(x, self.width, 0)

    def _parts(self, candidate: Candidate) -> tuple[list[np.ndarray], list[Block]]:
        parts: list[np.ndarray] = []
        blocks: list[Block] = []
        for block, image, x in zip(self.blocks, self.is_image, self.reduced, strict=True):
            if self.node.of[block.part].name in candidate.of:
                weight = candidate.image if image else 1.0
                blocks.append(Block(len(parts), np.ones(x.shape[1], bool), weight))
                parts.append(x)
        return parts, blocks


def _table(tried: Sequence[Candidate], figures: Sequence[Sequence[float]]) -> pa.Table:
    scores = [float(np.sqrt(warm * cold)) for warm, cold in figures]
    best = int(np.argmax(scores))
    rows = [
        {"number": i, **one._asdict(), "warm": warm, "cold": cold, "score": round(score, 6), "chosen": i == best}
        for i, (one, (warm, cold), score) in enumerate(zip(tried, figures, scores, strict=True))
    ]
    return pa.Table.from_pylist(rows, schemas.TRIED)
