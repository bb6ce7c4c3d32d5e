"""Linear CF: the gain of features over interactions, as test recall of L3AE minus EASE, both in closed form.

Letters: U users, I items, F feature width, N users of a part, n test users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from alignrec.pipeline.errors import UserError
from alignrec.pipeline.evaluation.cutoff import bounded_cutoff
from alignrec.pipeline.interactions import split
from alignrec.pipeline.interactions.split import Pairs, Split, contains_keys, pair_keys
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.probe.registry import Data, Probe, Refit

GIB = 1.5  # upper bound on the I x I matrix: 20,000 items
# validation chooses the ridge of EASE, then how L3AE divides it between |B|^2 and |B - S|^2; share 0 is EASE itself
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # in users
SHARES = (0.3, 0.7, 1.0)  # of the ridge, towards the content model S
CONTENT_RIDGES = (1.0, 10.0, 100.0)  # of the content model, whose rows have unit length
BLOCK = 1 << 23  # scores in memory at a time
Judged = Literal["valid", "test"]


@dataclass(frozen=True)
class Linear:
    """The probe's task."""

    split: Split

    @cached_property
    def seen(self) -> sp.csr_array:
        """X, float32 [U, I]."""
        from alignrec.pipeline.models import adjacency

        return adjacency.interaction_matrix(self.split)

    @cached_property
    def ease(self) -> tuple[float, float, np.ndarray]:
        """The highest mean valid recall, its l2 (the first on ties), and (X^T X + l2)^-1, float32 [I, I]."""
        from alignrec.pipeline.models import closed

        best = -1.0, 0.0, np.empty(0)
        for ridge in RIDGES:
            inverse = closed.invert_ridge(closed.gram_matrix(self.seen), ridge, "linear_cf")
            found = float(self._recalls("valid", inverse, [-1 / inverse.diagonal()])[0].mean())
            if found > best[0]:
                best = found, ridge, inverse
        return best

    @cached_property
    def base(self) -> np.ndarray:
        """Test recall of EASE, [n]."""
        inverse = self.ease[2]
        return self._recalls("test", inverse, [-1 / inverse.diagonal()])[0]

    def answer(self, features: np.ndarray, refit: Refit | None = None) -> np.ndarray:
        """Return test recall of L3AE minus that of EASE, [n], for features float32 [I, F]."""
        units = unit_rows(features)[0]
        found = {(0.0, 0.0): self.ease[0]}
        for content_ridge in CONTENT_RIDGES:
            recalls = self._l3ae("valid", units, content_ridge, SHARES)
            found |= {(share, content_ridge): float(one.mean()) for share, one in zip(SHARES, recalls, strict=True)}
        # on ties, the setting nearest to EASE
        share, content_ridge = max(sorted(found), key=found.__getitem__)
        if not share:
            return np.zeros(len(self.base))
        gain: np.ndarray = self._l3ae("test", units, content_ridge, [share])[0] - self.base
        return gain

    def _l3ae(self, part: Judged, units: np.ndarray, content_ridge: float, shares: Sequence[float]) -> list[np.ndarray]:
        """Return recalls [N] at each share; off the diagonal L3AE's matrix is P diag(c) + Y V^T (ease.py)."""
        from alignrec.pipeline.models import closed

        _, ridge, inverse = self.ease
        w, v = closed.content_factors(units, content_ridge)
        y, own, p = closed.multiply_symmetric(inverse, w), -(w * v).sum(1), inverse.diagonal()
        drawn = (y * v).sum(1)
        distil = [share * ridge for share in shares]
        scales = [d * own - (1 + d * (p * own + drawn)) / p for d in distil]
        return self._recalls(part, inverse, scales, (y, v), distil)

    def _recalls(
        self, part: Judged, inverse: np.ndarray, scales: Sequence[np.ndarray],
        factors: tuple[np.ndarray, np.ndarray] | None = None, distil: Sequence[float] = (),
    ) -> list[np.ndarray]:  # fmt: skip
        """Return Recall@20 [N], train masked, for each scale: scores are h P diag(scale) + distil h Y V^T."""
        import torch

        from alignrec.pipeline.evaluation.metrics import recall
        from alignrec.pipeline.ops.scores import select_top_k

        targets: Pairs = getattr(self.split, part)
        k, found = bounded_cutoff(self.split.n_items), list[list[np.ndarray]]([] for _ in scales)
        counts = np.bincount(targets.users, minlength=self.split.n_users)
        everyone = users_with_targets(self.split, part)
        step = max(1, BLOCK // self.split.n_items)
        for users in (everyone[at : at + step] for at in range(0, len(everyone), step)):
            history = self.seen[users]
            # the diagonal affects only items of the history, which are masked
            by_users = history @ inverse
            by_features = None if factors is None else (history @ factors[0]) @ factors[1].T
            for number, scale in enumerate(scales):
                scores = by_users * scale
                if by_features is not None:
                    scores += by_features * np.float32(distil[number])
                scores[history.nonzero()] = -np.inf
                top = select_top_k(torch.from_numpy(scores.astype(np.float32, copy=False)), k)[1].numpy()
                pairs = users[:, None].astype(np.int64) * self.split.n_items + top
                hits = contains_keys(pair_keys(targets, self.split.n_items), pairs)
                found[number].append(recall(hits, counts[users], k))
        return [np.concatenate(parts) for parts in found]

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Do as `Task.summary`, with EASE as chance."""
        n, base = len(self.base), float(self.base.mean())
        name = f"recall@{bounded_cutoff(self.split.n_items)}"
        out: dict[str, Any] = {"users": n, "chance": {name: round(base, 6), "gain": 0.0}}
        for features, gain in sets.items():
            mean, error = float(gain.mean()), float(gain.std() / np.sqrt(n))
            out[features] = {name: round(base + mean, 6), "gain": round(mean, 6), "gain_se": round(error, 6)}
        return out


def users_with_targets(parts: Split, part: Judged) -> np.ndarray:
    targets: Pairs = getattr(parts, part)
    return np.intersect1d(targets.users, parts.train.users)


def build_task(data: Data) -> Linear | str:
    try:
        from alignrec.pipeline.models import closed
    except ImportError:
        return "torch is not installed"
    user = data.interactions["user_id"].to_numpy()
    parts = split.load_split(data.interactions, int(user.max(initial=-1)) + 1, data.items)
    if not (len(users_with_targets(parts, "valid")) and len(users_with_targets(parts, "test"))):
        return "no user has train and test items, or none train and valid ones"
    try:
        closed.check_memory(data.items, GIB, "linear CF")
    except UserError:
        return f"the closed form takes {data.items**2 * 4 / 2**30:,.1f} GiB for {data.items:,} items, more than {GIB:g}"
    return Linear(parts)


LINEAR_CF = Probe(
    build_task,
    name="linear CF",
    figure="gain",
    question="what features add to interactions: test Recall@20 of L3AE minus that of EASE",
    note="L3AE is drawn to a linear model of features; valid chooses how far, and may choose EASE, the row of chance. "
    "± is the standard error over {n:,} users.",
)
