"""Cold items: recall of a user's items among cold ones, ranked by content, over several random draws of cold items.

Letters: G users, D draws, K cutoff.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec.pipeline.dataset import profiles
from alignrec.pipeline.dataset.profiles import MIN_COLD_ITEMS, Profiles
from alignrec.pipeline.evaluation.cutoff import chance_note
from alignrec.pipeline.evaluation.statistics import mean_over_draws, resample_means
from alignrec.pipeline.probe.registry import Data, Probe, Refit
from alignrec.pipeline.runtime.seeds import seed_for

K = 20
DRAWS = 10
RESAMPLES = 999


@dataclass(frozen=True)
class ColdItems:
    """The probe's task: interactions of cold items are hidden, and only cold items are candidates."""

    draws: Sequence[Profiles]  # profiles exclude the cold items, which are the candidates

    def answer(self, features: np.ndarray, refit: Refit | None = None) -> np.ndarray:
        """Return Recall@K of each user in each draw: float64 [G, D], NaN where a user has no
        target.
        """
        return profiles.cold_recalls(self.draws, features if refit is None else refit, K)

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        figure, users = (
            f"recall@{K}",
            len(np.unique(np.concatenate([draw.user for draw in self.draws]))),
        )
        chance = float(np.mean([min(1, K / len(draw.candidates)) for draw in self.draws]))
        out: dict[str, Any] = {
            "users": users,
            "draws": len(self.draws),
            "chance": {figure: round(chance, 6)},
        }
        if note := chance_note(min(len(draw.candidates) for draw in self.draws), K):
            out["note"] = note
        if not sets:
            return out
        # all sets share the resamples of users and draws
        resampled = resample_means(
            np.stack(list(sets.values()), axis=2), RESAMPLES, seed_for("cold items", "interval")
        )
        for (name, recalls), means in zip(sets.items(), resampled.T, strict=True):
            low, high = np.quantile(means, [0.025, 0.975])
            of = {figure: mean_over_draws(recalls[:, :, None])[0], f"{figure}_se": means.std()}
            values = of | {f"{figure}_low": low, f"{figure}_high": high}
            out[name] = {key: round(float(value), 6) for key, value in values.items()}
        return out


def draw_cold_items(data: Data) -> ColdItems | str:
    pairs = data.interactions["user_id"].to_numpy(), data.interactions["item_id"].to_numpy()
    draws = profiles.draw_cold_profiles(pairs, pairs, data.items, DRAWS)
    return (
        ColdItems(draws)
        if draws
        else f"fewer than {MIN_COLD_ITEMS} items are cold in a draw, or no user has one"
    )


COLD_ITEMS = Probe(
    draw_cold_items,
    name="cold items",
    figure=f"recall@{K}",
    question="only cold items, ranked by mean cosine to the user's other items",
    note="A fifth of the items is cold in each of ten draws: their interactions are hidden, also from a set that "
    "learned from interactions. ± is the standard error over {n:,} users and the draws, both resampled.",
    drawn=True,
)
