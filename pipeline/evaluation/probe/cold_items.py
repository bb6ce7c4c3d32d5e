"""Cold items: recall of a user's items among cold ones, ranked by content, over several draws.

Letters: G users, D draws, K cutoff.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.probe.registry import Data, Probe
from alignrec.pipeline.evaluation.statistics import mean_over_draws, resample_means
from alignrec.pipeline.features import profiles
from alignrec.pipeline.features.profiles import MIN_COLD_ITEMS, Profiles
from alignrec.pipeline.models.cutoff import chance_note
from alignrec.pipeline.runtime.seeds import seed_for

K = 20
FIGURE = f"recall@{K}"
DRAWS = 10
RESAMPLES = 999
INTERVAL = (0.025, 0.975)  # quantiles of the resampled means


@dataclass(frozen=True)
class ColdItems:
    """The probe's task: interactions of cold items are hidden, and only these are candidates."""

    draws: Sequence[Profiles]  # profiles exclude the cold items, which are the candidates

    def answer(self, features: np.ndarray) -> np.ndarray:
        """Return Recall@K by user and draw: float64 [G, D], NaN where a user has no target."""
        return profiles.cold_recalls(self.draws, features, K)

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        users = np.unique(np.concatenate([draw.user for draw in self.draws]))
        candidates = [len(draw.candidates) for draw in self.draws]
        chance = float(np.mean([min(1, K / count) for count in candidates]))
        summary: dict[str, Any] = {
            "users": len(users),
            "draws": len(self.draws),
            "chance": {FIGURE: round(chance, 6)},
        }
        if note := chance_note(min(candidates), K):
            summary["note"] = note
        if not sets:
            return summary

        # all sets share the resamples of users and draws
        recalls = np.stack(list(sets.values()), axis=2)
        seed = seed_for("cold items", "interval")
        resampled = resample_means(recalls, RESAMPLES, seed)
        for position, name in enumerate(sets):
            means = resampled[:, position]
            low, high = np.quantile(means, INTERVAL)
            values = {
                FIGURE: mean_over_draws(sets[name][:, :, None])[0],
                f"{FIGURE}_se": means.std(),
                f"{FIGURE}_low": low,
                f"{FIGURE}_high": high,
            }
            summary[name] = {key: round(float(value), 6) for key, value in values.items()}
        return summary


def draw_cold_items(data: Data) -> ColdItems | str:
    pairs = data.interactions["user_id"].to_numpy(), data.interactions["item_id"].to_numpy()
    draws = profiles.draw_cold_profiles(pairs, pairs, data.items, DRAWS)
    if not draws:
        return f"fewer than {MIN_COLD_ITEMS} items are cold in a draw, or no user has one"
    return ColdItems(draws)


COLD_ITEMS = Probe(
    draw_cold_items,
    name="cold items",
    figure=FIGURE,
    question="only cold items, ranked by mean cosine to the user's other items",
    note="A fifth of the items is cold in each of ten draws: their interactions are hidden. "
    "± is the standard error over {n:,} users and the draws, both resampled.",
    drawn=True,
)
