"""Forms of feature vectors: raw, and processed, the best of three on validation.

Letters: I items, F and W widths.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignrec.pipeline.interactions import profiles
from alignrec.pipeline.interactions.profiles import Profiles
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.probe.registry import Data, Refit
from alignrec.schemas import TRAIN, VALID

RAW = "raw"
# A large common mean dominates every cosine, and full whitening amplifies noise in directions of little variance, so
# validation chooses: form -> power of its sd that a direction is divided by after centring and PCA; None: unchanged
POWERS = {RAW: None, "relaxed": 0.5, "whitened": 1.0}
UNCHOSEN = "whitened"  # without validation interactions
K = 20
CHOSEN_BY = f"content neighbours on valid, recall@{K}"


def transform_vectors(x: np.ndarray, form: str, width: int) -> np.ndarray:
    """Transform float32 [I, F] to [I, W], where W is at most `width`, or F for RAW."""
    power = POWERS[form]
    return x if power is None else linalg.whiten_rows(x, width, power)


def valid_profiles(data: Data) -> Profiles | None:
    """Return train items as profiles and validation items as targets; None without targets."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    has, finds = ((user[split == part], item[split == part]) for part in (TRAIN, VALID))
    asked = profiles.build_profiles(has, finds, profiles.draw_users(finds[0], data.items, 0), data.items)
    return asked if len(asked.user) else None


@dataclass
class Processing:
    """Processes feature sets one at a time and records the chosen forms."""

    valid: Profiles | None  # see `valid_profiles`
    width: int  # maximum of a processed set
    chosen: dict[str, str] = field(default_factory=dict)  # feature set -> its form
    figures: dict[str, dict[str, float]] = field(default_factory=dict)  # feature set -> form -> valid recall@K

    def process(self, name: str, x: np.ndarray, chooses: bool = True) -> np.ndarray:
        """Return vectors in the best form on validation, the first of POWERS on ties; unchanged unless `chooses`."""
        if not chooses:
            self.chosen[name] = RAW
            return x
        if self.valid is None:
            self.chosen[name] = UNCHOSEN
            return transform_vectors(x, UNCHOSEN, self.width)
        measured = self.figures.setdefault(name, {})
        # at most two forms are in memory: the current one and the best so far
        for form in POWERS:
            vectors = transform_vectors(x, form, self.width)
            measured[form] = round(float(np.nanmean(self.valid.recalls(vectors, K))), 6)
            if measured[form] > max((v for k, v in measured.items() if k != form), default=-1.0):
                self.chosen[name], best = form, vectors
        return best

    def refit(self, name: str, refit: Refit | None) -> Refit | None:
        return refit and (lambda cold: transform_vectors(refit(cold), self.chosen[name], self.width))

    def facts(self) -> dict[str, Any]:
        by = {"chosen_by": CHOSEN_BY} if self.valid else {}
        forms = {name: {"form": form} | self.figures.get(name, {}) for name, form in self.chosen.items()}
        return {"width": self.width, **by, "forms": forms}
