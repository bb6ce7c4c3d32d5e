"""Processed forms: validation chooses one of three per set, and the choice is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignrec import schemas
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.probe import forms, questions
from alignrec.pipeline.probe.behaviour import content_neighbours
from alignrec.pipeline.probe.forms import Processing
from alignrec.pipeline.probe.registry import Data
from tests.probe.test_questions import toy_interactions

RNG = np.random.default_rng(3)
ITEMS = 50
DATA = Data(toy_interactions(5, timed=False), ITEMS)


def tastes(scale: float, noise: float) -> np.ndarray:
    """Ten informative columns, a dominant common direction and one of noise; float32 [I, 12]."""
    x = RNG.normal(size=(ITEMS, 12))
    x[:, 0] += scale
    x[:, 1] *= noise
    return x.astype(np.float32)


@pytest.mark.parametrize("x", [tastes(0, 1), tastes(30, 1), tastes(3, 9)], ids=["plain", "common", "noisy"])
def test_the_best_on_valid_is_chosen(x: np.ndarray) -> None:
    user, item, split = (DATA.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    asked = content_neighbours(user, item, np.array([0, 2, 1])[split], ITEMS)  # valid in the place of test
    processing = Processing(forms.valid_profiles(DATA), 8)
    chosen = processing.process("x", x)
    by_hand = {"raw": x, "relaxed": linalg.whiten_rows(x, 8, 0.5), "whitened": linalg.whiten_rows(x, 8)}
    figures = {form: questions.hit_rates(v, asked, [forms.K]).mean() for form, v in by_hand.items()}
    best = max(figures, key=lambda form: figures[form])
    assert processing.chosen == {"x": best}
    np.testing.assert_array_equal(chosen, by_hand[best])
    facts = processing.facts()["forms"]["x"]
    assert facts == {"form": best} | {form: pytest.approx(figure, abs=1e-6) for form, figure in figures.items()}


def test_test_rows_choose_nothing() -> None:
    split = DATA.interactions["split"].to_numpy()
    without = DATA.interactions.filter(split != schemas.TEST)
    x = tastes(3, 5)
    chosen = []
    for interactions in (DATA.interactions, without):
        processing = Processing(forms.valid_profiles(replace(DATA, interactions=interactions)), 8)
        processing.process("x", x)
        chosen.append(processing.facts())
    assert chosen[0] == chosen[1]
