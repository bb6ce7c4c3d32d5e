"""Linear CF: the gain of features over interactions.

It is the test recall of L3AE minus that of EASE, both in closed form. Letters: U users, I items, F
feature width, N users of a part, n test users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from alignrec.pipeline.dataset import split
from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.evaluation.probe.registry import Data, Probe, Refit
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.cutoff import bounded_cutoff

MAX_MATRIX_GIB = 1.5  # of the I x I matrix: 20,000 items
# validation chooses the ridge of EASE, then how L3AE divides it between |B|^2 and |B - S|^2; share
# 0 is EASE itself
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # a user's row weighs 1
SHARES = (0.3, 0.7, 1.0)  # shares of the ridge on |B - S|^2, S the content model
CONTENT_RIDGES = (1.0, 10.0, 100.0)  # ridges of the content model, whose rows have unit length
SCORES_PER_BLOCK = 1 << 23  # in memory at a time
USERS_AT_ONCE = 128  # whose scores fit the cache
MAX_SHARED_SCORES = 1 << 25  # of EASE, in memory for all feature sets
Judged = Literal["valid", "test"]


class UserBlock(NamedTuple):
    """A block of b users, their N train items and their T targets."""

    history: sp.csr_array  # float32 [b, I]
    # int64 [N], ascending: user of each train item, 0 .. b-1; and the item
    seen: tuple[np.ndarray, np.ndarray]
    targets: tuple[np.ndarray, np.ndarray]  # targets in the same form, [T]

    def recalls(
        self,
        by_users: np.ndarray,
        scale: np.ndarray,
        by_features: np.ndarray | None = None,
        distil: float = 0,
    ) -> np.ndarray:
        """Return Recall@20 [b], train masked, ties by lowest item.

        Scores are by_users diag(scale) + distil by_features, [b, I]; the diagonal affects only
        items that are masked.
        """
        n_users, n_items = by_users.shape
        k = bounded_cutoff(n_items)
        seen_user, seen_item = self.seen
        user, target = self.targets
        is_hit = np.empty(len(user), bool)
        for first in range(0, n_users, USERS_AT_ONCE):
            last = first + USERS_AT_ONCE
            scores = by_users[first:last] * scale
            if by_features is not None:
                scores += by_features[first:last] * np.float32(distil)
            masked = slice(*np.searchsorted(seen_user, [first, last]))
            scores[seen_user[masked] - first, seen_item[masked]] = -np.inf

            pairs = slice(*np.searchsorted(user, [first, last]))
            rank = rank_of_items(scores, user[pairs] - first, target[pairs], k)
            is_hit[pairs] = rank < k
        return np.bincount(user, is_hit, n_users) / np.bincount(user, minlength=n_users)


def rank_of_items(scores: np.ndarray, row: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Return ranks from 0 of items in rows of scores, [n]; exact below K, ties by lowest item."""
    score = scores[row, item]
    rank = np.count_nonzero(scores[row] > score[:, None], axis=1)
    near = np.flatnonzero(rank < k)
    is_tied = scores[row[near]] == score[near, None]
    is_lower = np.arange(scores.shape[1]) < item[near, None]
    rank[near] += np.count_nonzero(is_tied & is_lower, axis=1)
    return rank


class ContentFactors(NamedTuple):
    """Factors of the content model S = W V^T, off the diagonal, and Y = P W, float32 [I, F]."""

    w: np.ndarray
    v: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class LinearCF:
    """Linear CF as a probe's task: answers are gains in recall over EASE."""

    split: Split
    shares: tuple[float, ...] = SHARES
    content_ridges: tuple[float, ...] = CONTENT_RIDGES

    @cached_property
    def seen(self) -> sp.csr_array:
        """Train interactions X, float32 [U, I]."""
        return adjacency.interaction_matrix(self.split)

    @cached_property
    def user_blocks(self) -> dict[Judged, list[UserBlock]]:
        return {"valid": self._blocks_of("valid"), "test": self._blocks_of("test")}

    def _blocks_of(self, part: Judged) -> list[UserBlock]:
        blocks = []
        everyone = users_with_targets(self.split, part)
        targets: Pairs = getattr(self.split, part)
        step = max(1, SCORES_PER_BLOCK // self.split.n_items)
        for start in range(0, len(everyone), step):
            users = everyone[start : start + step]
            of_users = np.flatnonzero(np.isin(targets.users, users))
            order = np.argsort(targets.users[of_users], kind="stable")
            of_users = of_users[order]
            row = np.searchsorted(users, targets.users[of_users])
            history = self.seen[users]
            blocks.append(UserBlock(history, history.nonzero(), (row, targets.items[of_users])))
        return blocks

    @cached_property
    def ease(self) -> tuple[float, float, np.ndarray]:
        """The highest mean valid recall, its l2, and (X^T X + l2)^-1, float32 [I, I].

        On ties, the first l2.
        """
        from alignrec.pipeline.models import ease

        best = -1.0, 0.0, np.empty(0)
        for ridge in RIDGES:
            inverse = ease.invert_ridge(ease.gram_matrix(self.seen), ridge, "linear_cf")
            recall = float(self._ease_recalls("valid", inverse).mean())
            if recall > best[0]:
                best = recall, ridge, inverse
        return best

    def _ease_recalls(self, part: Judged, inverse: np.ndarray) -> np.ndarray:
        scale = -1 / inverse.diagonal()
        recalls = [
            block.recalls(block.history @ inverse, scale) for block in self.user_blocks[part]
        ]
        return np.concatenate(recalls)

    @cached_property
    def base(self) -> np.ndarray:
        """Test recall of EASE, [n]."""
        return self._ease_recalls("test", self.ease[2])

    @cached_property
    def _shared_products(self) -> dict[Judged, list[np.ndarray]]:
        """Products h P of all blocks, shared by all feature sets.

        Empty if they would take too much memory.
        """
        blocks_of = self.user_blocks
        n_users = 0
        for blocks in blocks_of.values():
            n_users += sum(block.history.shape[0] for block in blocks)
        if n_users * self.split.n_items > MAX_SHARED_SCORES:
            return {}

        _, _, inverse = self.ease
        return {
            part: [block.history @ inverse for block in blocks]
            for part, blocks in blocks_of.items()
        }

    def answer(self, features: np.ndarray, refit: Refit | None = None) -> np.ndarray:
        """Return test recall of L3AE minus that of EASE, [n], for features float32 [I, F]."""
        from alignrec.pipeline.models import ease

        units, _ = unit_rows(features)
        gram = ease.content_gram(units)
        ease_recall, _, inverse = self.ease
        best = ease_recall, 0.0, 0.0
        chosen: tuple[ContentFactors, float] | None = None
        for content_ridge in self.content_ridges:
            w, v = ease.content_factors(units, content_ridge, gram)
            factors = ContentFactors(w, v, inverse @ w)
            recalls_of_shares = self._l3ae_recalls("valid", factors, self.shares)
            for share, recalls in zip(self.shares, recalls_of_shares, strict=True):
                # on ties, the setting closest to EASE
                score = float(recalls.mean()), -share, -content_ridge
                if score > best:
                    best = score
                    chosen = factors, share
        if chosen is None:
            return np.zeros(len(self.base))

        factors, share = chosen
        (recalls,) = self._l3ae_recalls("test", factors, [share])
        gain: np.ndarray = recalls - self.base
        return gain

    def _l3ae_recalls(
        self, part: Judged, factors: ContentFactors, shares: Sequence[float]
    ) -> list[np.ndarray]:
        """Return recalls [N] at each share."""
        # off the diagonal L3AE's matrix is P diag(c) + Y V^T (ease.py)
        w, v, y = factors
        _, ridge, inverse = self.ease
        p = inverse.diagonal()
        content_diagonal = -(w * v).sum(1)
        drawn_diagonal = (y * v).sum(1)
        settings = []
        for share in shares:
            distil = share * ridge
            drawn = distil * (p * content_diagonal + drawn_diagonal)
            settings.append((distil, distil * content_diagonal - (1 + drawn) / p))

        recalls: list[list[np.ndarray]] = [[] for _ in shares]
        shared = self._shared_products.get(part)
        for number, block in enumerate(self.user_blocks[part]):
            by_users = shared[number] if shared else block.history @ inverse
            by_features = (block.history @ y) @ v.T
            for of_share, (distil, scale) in zip(recalls, settings, strict=True):
                of_share.append(block.recalls(by_users, scale, by_features, distil))
        return [np.concatenate(of_share) for of_share in recalls]

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """See `Task.summary`; EASE takes the place of chance."""
        users = len(self.base)
        base = float(self.base.mean())
        recall = f"recall@{bounded_cutoff(self.split.n_items)}"
        summary: dict[str, Any] = {
            "users": users,
            "chance": {recall: round(base, 6), "gain": 0.0},
        }
        for name, gain in sets.items():
            mean = float(gain.mean())
            error = float(gain.std() / np.sqrt(users))
            summary[name] = {
                recall: round(base + mean, 6),
                "gain": round(mean, 6),
                "gain_se": round(error, 6),
            }
        return summary


def users_with_targets(parts: Split, part: Judged) -> np.ndarray:
    targets: Pairs = getattr(parts, part)
    return np.intersect1d(targets.users, parts.train.users)


def build_task(data: Data) -> LinearCF | str:
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed"

    matrix_gib = data.items**2 * 4 / 2**30
    if matrix_gib > MAX_MATRIX_GIB:
        return (
            f"the closed form takes {matrix_gib:,.1f} GiB for {data.items:,} items, "
            f"more than {MAX_MATRIX_GIB:g}"
        )

    n_users = int(data.interactions["user_id"].to_numpy().max(initial=-1)) + 1
    parts = split.load_split(data.interactions, n_users, data.items)
    if not (len(users_with_targets(parts, "valid")) and len(users_with_targets(parts, "test"))):
        return "no user has train and test items, or none train and valid ones"

    task = LinearCF(parts)
    _ = task.base, task._shared_products  # before threads ask for them at once
    return task


LINEAR_CF = Probe(
    build_task,
    name="linear CF",
    figure="gain",
    question="what features add to interactions: test Recall@20 of L3AE minus that of EASE",
    note="L3AE is drawn to a linear model of features; valid chooses how far, and may choose EASE, "
    "the row of chance. ± is the standard error over {n:,} users.",
)
