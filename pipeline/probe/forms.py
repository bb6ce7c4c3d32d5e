"""The forms in which a feature set is judged: as it is, and processed, which is the best of three on valid.

Some sets come ready and others want processing: a large common mean decides every cosine, and full whitening hurts a
set whose directions of little variance are noise. So valid chooses one form for each set among the same three.

I items, F and W widths.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignrec.pipeline.interactions import profiles
from alignrec.pipeline.interactions.profiles import Profiles
from alignrec.pipeline.ops import whitening
from alignrec.pipeline.probe.base import Data, Refit
from alignrec.schemas import TRAIN, VALID

RAW = "raw"
POWERS = {RAW: None, "relaxed": 0.5, "whitened": 1.0}
"""form -> power of the deviation that each direction is divided by, once centred and reduced; None: as it is"""
UNCHOSEN = "whitened"  # where there is no valid
K = 20
CHOSEN_BY = f"content neighbours on valid, recall@{K}"


def transform_vectors(x: np.ndarray, form: str, width: int) -> np.ndarray:
    """Return vectors in a form: float32 [I, F] -> [I, W], W at most `width`, or as they are."""
    power = POWERS[form]
    return x if power is None else whitening.whiten_rows(x, width, power)


def valid_profiles(data: Data) -> Profiles | None:
    """Return what chooses: users' train items, and valid items to find; None where there are none."""
    user, item, split = (data.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    has, finds = ((user[split == part], item[split == part]) for part in (TRAIN, VALID))
    asked = profiles.build_profiles(has, finds, profiles.draw_users(finds[0], data.items, 0), data.items)
    return asked if len(asked.user) else None


@dataclass
class Processing:
    """Processes feature sets one after the other, and remembers which form each got."""

    valid: Profiles | None  # see `valid_profiles`
    width: int  # of a processed set, at most
    chosen: dict[str, str] = field(default_factory=dict)  # feature set -> its form
    figures: dict[str, dict[str, float]] = field(default_factory=dict)  # feature set -> form -> what it was chosen by

    def process(self, name: str, x: np.ndarray, chooses: bool = True) -> np.ndarray:
        """Return a set in the form that is best on valid, the first of POWERS where several are; else as it is."""
        if not chooses:
            self.chosen[name] = RAW
            return x
        if self.valid is None:
            self.chosen[name] = UNCHOSEN
            return transform_vectors(x, UNCHOSEN, self.width)
        measured = self.figures.setdefault(name, {})
        for form in POWERS:  # one form and the best so far are held
            vectors = transform_vectors(x, form, self.width)
            measured[form] = round(float(np.nanmean(self.valid.recalls(vectors, K))), 6)
            if measured[form] > max((v for k, v in measured.items() if k != form), default=-1.0):
                self.chosen[name], best = form, vectors
        return best

    def refit(self, name: str, refit: Refit | None) -> Refit | None:
        """Return what refits a set without some items, in the form that was chosen for it."""
        return refit and (lambda cold: transform_vectors(refit(cold), self.chosen[name], self.width))

    def facts(self) -> dict[str, Any]:
        """Return width, and of each set its form and what that was chosen by, JSON."""
        by = {"chosen_by": CHOSEN_BY} if self.valid else {}
        forms = {name: {"form": form} | self.figures.get(name, {}) for name, form in self.chosen.items()}
        return {"width": self.width, **by, "forms": forms}
