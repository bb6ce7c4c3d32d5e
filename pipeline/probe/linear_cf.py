"""Linear CF: the gain of features over interactions, as test recall of L3AE minus EASE, both in closed form.

Letters: U users, I items, F feature width, N users of a part, n test users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from alignrec.pipeline.dataset import split
from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.evaluation.cutoff import bounded_cutoff
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.probe.registry import Data, Probe, Refit

GIB = 1.5  # upper bound on the I x I matrix: 20,000 items
# validation chooses the ridge of EASE, then how L3AE divides it between |B|^2 and |B - S|^2; share
# 0 is EASE itself
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # a user's row weighs 1
SHARES = (0.3, 0.7, 1.0)  # shares of the ridge on |B - S|^2, S the content model
CONTENT_RIDGES = (1.0, 10.0, 100.0)  # ridges of the content model, whose rows have unit length
BLOCK = 1 << 23  # scores in memory at a time
ROWS = 128  # users at a time, whose scores fit the cache
HELD = 1 << 25  # maximum scores of EASE kept for all feature sets
Judged = Literal["valid", "test"]


class UserBlock(NamedTuple):
    """A block of b users, their N train items and their T targets."""

    history: sp.csr_array  # float32 [b, I]
    seen: tuple[
        np.ndarray, np.ndarray
    ]  # int64 [N], ascending: user of each train item, 0 .. b-1; and the item
    targets: tuple[np.ndarray, np.ndarray]  # targets in the same form, [T]

    def recalls(
        self,
        by_users: np.ndarray,
        scale: np.ndarray,
        by_features: np.ndarray | None = None,
        distil: float = 0,
    ) -> np.ndarray:
        """Return Recall@20 [b], train masked, ties by lowest item.

        Scores are by_users diag(scale) + distil by_features, [b, I]; the diagonal affects only items that are masked.
        """
        n, k, hit = (
            len(by_users),
            bounded_cutoff(by_users.shape[1]),
            np.empty(len(self.targets[0]), bool),
        )
        for first in range(0, n, ROWS):
            scores = by_users[first : first + ROWS] * scale
            if by_features is not None:
                scores += by_features[first : first + ROWS] * np.float32(distil)
            seen, pairs = (
                slice(*np.searchsorted(row, [first, first + ROWS]))
                for row, _ in (self.seen, self.targets)
            )
            scores[self.seen[0][seen] - first, self.seen[1][seen]] = -np.inf
            row, target = self.targets[0][pairs] - first, self.targets[1][pairs]
            own = scores[row, target]
            rank = np.count_nonzero(scores[row] > own[:, None], axis=1)
            near = np.flatnonzero(rank < k)
            tied = scores[row[near]] == own[near, None]
            rank[near] += np.count_nonzero(
                tied & (np.arange(scores.shape[1]) < target[near, None]), axis=1
            )
            hit[pairs] = rank < k
        return np.bincount(self.targets[0], hit, n) / np.bincount(self.targets[0], minlength=n)


@dataclass(frozen=True)
class LinearCF:
    """Linear CF as a probe's task: answers are gains in recall over EASE."""

    split: Split

    @cached_property
    def seen(self) -> sp.csr_array:
        """Train interactions X, float32 [U, I]."""
        return adjacency.interaction_matrix(self.split)

    @cached_property
    def user_blocks(self) -> dict[Judged, list[UserBlock]]:
        blocks: dict[Judged, list[UserBlock]] = {"valid": [], "test": []}
        for part, found in blocks.items():
            everyone, step = (
                users_with_targets(self.split, part),
                max(1, BLOCK // self.split.n_items),
            )
            targets: Pairs = getattr(self.split, part)
            for users in (everyone[at : at + step] for at in range(0, len(everyone), step)):
                mine = np.flatnonzero(np.isin(targets.users, users))
                mine = mine[np.argsort(targets.users[mine], kind="stable")]
                pairs = np.searchsorted(users, targets.users[mine]), targets.items[mine]
                found.append(UserBlock(self.seen[users], self.seen[users].nonzero(), pairs))
        return blocks

    @cached_property
    def ease(self) -> tuple[float, float, np.ndarray]:
        """The highest mean valid recall, its l2 (the first on ties), and (X^T X + l2)^-1, float32
        [I, I].
        """
        from alignrec.pipeline.models import ease

        best = -1.0, 0.0, np.empty(0)
        for ridge in RIDGES:
            inverse = ease.invert_ridge(ease.gram_matrix(self.seen), ridge, "linear_cf")
            found = float(self._ease_recalls("valid", inverse).mean())
            if found > best[0]:
                best = found, ridge, inverse
        return best

    def _ease_recalls(self, part: Judged, inverse: np.ndarray) -> np.ndarray:
        scale = -1 / inverse.diagonal()
        return np.concatenate(
            [one.recalls(one.history @ inverse, scale) for one in self.user_blocks[part]]
        )

    @cached_property
    def base(self) -> np.ndarray:
        """Test recall of EASE, [n]."""
        return self._ease_recalls("test", self.ease[2])

    @cached_property
    def _kept_products(self) -> dict[Judged, list[np.ndarray]]:
        """Products h P of all blocks, shared by all feature sets.

        Empty if they would take too much memory.
        """
        users = sum(one.history.shape[0] for blocks in self.user_blocks.values() for one in blocks)
        if users * self.split.n_items > HELD:
            return {}
        return {
            part: [one.history @ self.ease[2] for one in blocks]
            for part, blocks in self.user_blocks.items()
        }

    def answer(self, features: np.ndarray, refit: Refit | None = None) -> np.ndarray:
        """Return test recall of L3AE minus that of EASE, [n], for features float32 [I, F]."""
        from alignrec.pipeline.models import ease

        units = unit_rows(features)[0]
        gram, best = ease.content_gram(units), (self.ease[0], 0.0, 0.0)
        chosen: tuple[np.ndarray, tuple[np.ndarray, np.ndarray], float] | None = None
        for content_ridge in CONTENT_RIDGES:
            w, v = ease.content_factors(units, content_ridge, gram)
            factors = self.ease[2] @ w, v
            recalls = self._l3ae("valid", w, factors, SHARES)
            for share, one in zip(SHARES, recalls, strict=True):
                found = (
                    float(one.mean()),
                    -share,
                    -content_ridge,
                )  # on ties, the setting closest to EASE
                if found > best:
                    best, chosen = found, (w, factors, share)
        if chosen is None:
            return np.zeros(len(self.base))
        w, factors, share = chosen
        gain: np.ndarray = self._l3ae("test", w, factors, [share])[0] - self.base
        return gain

    def _l3ae(
        self,
        part: Judged,
        w: np.ndarray,
        factors: tuple[np.ndarray, np.ndarray],
        shares: Sequence[float],
    ) -> list[np.ndarray]:
        """Return recalls [N] at each share.

        Off the diagonal L3AE's matrix is P diag(c) + Y V^T (ease.py).
        """
        (y, v), (_, ridge, inverse) = factors, self.ease
        own, p, drawn = -(w * v).sum(1), inverse.diagonal(), (y * v).sum(1)
        distil = [share * ridge for share in shares]
        scales = [d * own - (1 + d * (p * own + drawn)) / p for d in distil]
        found: list[list[np.ndarray]] = [[] for _ in shares]
        for number, one in enumerate(self.user_blocks[part]):
            kept = self._kept_products.get(part)
            by_users = kept[number] if kept else one.history @ inverse
            by_features = (one.history @ y) @ v.T
            for recalls, scale, d in zip(found, scales, distil, strict=True):
                recalls.append(one.recalls(by_users, scale, by_features, d))
        return [np.concatenate(parts) for parts in found]

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """See `Task.summary`; EASE takes the place of chance."""
        n, base = len(self.base), float(self.base.mean())
        name = f"recall@{bounded_cutoff(self.split.n_items)}"
        out: dict[str, Any] = {"users": n, "chance": {name: round(base, 6), "gain": 0.0}}
        for features, gain in sets.items():
            mean, error = float(gain.mean()), float(gain.std() / np.sqrt(n))
            out[features] = {
                name: round(base + mean, 6),
                "gain": round(mean, 6),
                "gain_se": round(error, 6),
            }
        return out


def users_with_targets(parts: Split, part: Judged) -> np.ndarray:
    targets: Pairs = getattr(parts, part)
    return np.intersect1d(targets.users, parts.train.users)


def build_task(data: Data) -> LinearCF | str:
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed"
    if (needed := data.items**2 * 4 / 2**30) > GIB:
        return (
            f"the closed form takes {needed:,.1f} GiB for {data.items:,} items, more than {GIB:g}"
        )
    user = data.interactions["user_id"].to_numpy()
    parts = split.load_split(data.interactions, int(user.max(initial=-1)) + 1, data.items)
    if not (len(users_with_targets(parts, "valid")) and len(users_with_targets(parts, "test"))):
        return "no user has train and test items, or none train and valid ones"
    task = LinearCF(parts)
    _ = task.base, task._kept_products  # before threads ask for them at once
    return task


LINEAR_CF = Probe(
    build_task,
    name="linear CF",
    figure="gain",
    question="what features add to interactions: test Recall@20 of L3AE minus that of EASE",
    note="L3AE is drawn to a linear model of features; valid chooses how far, and may choose EASE, the row of chance. "
    "± is the standard error over {n:,} users.",
)
