"""Cold items: are the items that a user has among cold ones found from content alone? Asked over several draws.

A draw takes a share of the items as cold: their interactions are hidden from profiles, and from a set that learns from
interactions. Cold items alone are the candidates, so nothing but content tells them apart. Draws are parts of a
partition, so that each item is cold equally often.

G users, I items, C cold items, D draws, F feature width, K cutoff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.interactions import profiles
from pipeline.interactions.profiles import FEWEST, Profiles
from pipeline.probe.base import Data, Probe, Relearned
from pipeline.seeds import seed_for

K = 20
DRAWS = 10
NEAR = 0.2
"""chance above which K is near to the number of candidates, which is said"""
RESAMPLES = 999


@dataclass(frozen=True)
class ColdItems:
    """The draws; see Task."""

    draws: Sequence[Profiles]
    """profiles without the cold items, which are the candidates"""

    @property
    def users(self) -> int:
        """G, those who have a target in a draw."""
        return len(np.unique(np.concatenate([draw.user for draw in self.draws])))

    def answer(self, features: np.ndarray, seed: int, relearned: Relearned | None = None) -> np.ndarray:
        """Return Recall@K of each user in each draw: float64 [G, D], NaN where a user has no target.

        Args:
            features: float32 [I, F].
            seed: nothing is drawn.
            relearned: for a set that learned from interactions.
        """
        return profiles.cold_recalls(self.draws, features if relearned is None else relearned, K)

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return users, draws, chance, and of each set mean, standard error, and a 95 % interval.

        The interval resamples users, and draws, which are groups of items.

        Args:
            sets: feature set -> result of `answer`.
        """
        figure = f"recall@{K}"
        chance = float(np.mean([min(1, K / len(draw.candidates)) for draw in self.draws]))
        out: dict[str, Any] = {"users": self.users, "draws": len(self.draws), "chance": {figure: round(chance, 6)}}
        if chance > NEAR:
            least = min(len(draw.candidates) for draw in self.draws)
            out["note"] = f"K is {K} of {least} candidates, so chance is {chance:.2f} and sets lie near to each other."
        for name, recalls in sets.items():
            low, high, error = interval(recalls, seed_for("cold items", "interval"))
            values = {figure: mean(recalls), f"{figure}_se": error, f"{figure}_low": low, f"{figure}_high": high}
            out[name] = {key: round(value, 6) for key, value in values.items()}
        return out


def cases(recalls: np.ndarray) -> np.ndarray:
    """Return the mean over draws of each user: [G, D] -> [G]."""
    means: np.ndarray = np.nanmean(recalls, axis=1)
    return means


def mean(recalls: np.ndarray) -> float:
    """Return the mean over users of their means over draws."""
    return float(cases(recalls).mean())


def interval(recalls: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval of `mean`, and its standard error, over users and draws resampled."""
    rng = np.random.default_rng(seed)
    known = (~np.isnan(recalls)).astype(np.float64)
    values, (users, draws) = np.nan_to_num(recalls), recalls.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):  # one is [G, D], and all of them would be some gigabytes
        weight = np.bincount(rng.integers(draws, size=draws), minlength=draws).astype(np.float64)
        times = np.bincount(rng.integers(users, size=users), minlength=users)
        asked = known @ weight
        own = np.divide(values @ weight, asked, out=np.zeros(users), where=asked > 0)
        means[i] = (own * times).sum() / max(1, times[asked > 0].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high), float(means.std())


def ask(data: Data) -> ColdItems | str:
    """Return the draws from all interactions, whatever their split; or why there are none."""
    pairs = data.interactions["user_id"].to_numpy(), data.interactions["item_id"].to_numpy()
    draws = profiles.cold_draws(pairs, pairs, data.items, DRAWS)
    return ColdItems(draws) if draws else f"fewer than {FEWEST} items are cold in a draw, or nobody has one"


def withheld(data: Data) -> dict[str, str]:
    """Return the feature sets that learned from interactions and cannot be made without those of cold items."""
    reason = "it learned from interactions with the items that are cold here, and cannot be made without them"
    return {name: reason for name, make in data.relearned.items() if make is None}


COLD_ITEMS = Probe(
    ask,
    name="cold items",
    figure=f"recall@{K}",
    question="cold items alone, ranked by mean cosine to the user's other items",
    note="A fifth of the items is cold in each of ten draws: their interactions are hidden, and they alone are ranked, "
    "by mean cosine to a user's other items. A set that learned from interactions learns again without those of the "
    "cold items. ± is the standard error over {n:,} users and the draws, both resampled.",
    withheld=withheld,
    cases=cases,
)
