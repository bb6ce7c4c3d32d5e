"""Processed forms: validation chooses one of three per set, and the choice is reported."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alignrec import schemas
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.probe import questions
from alignrec.pipeline.probe.behaviour import content_neighbours
from alignrec.pipeline.probe.judge import VALID_K, Processing, paired_verdicts
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
    processing = Processing(DATA, 8)
    chosen = processing.process("x", x)
    by_hand = {"raw": x, "relaxed": linalg.whiten_rows(x, 8, 0.5), "whitened": linalg.whiten_rows(x, 8)}
    figures = {form: questions.hit_rates(v, asked, [VALID_K]).mean() for form, v in by_hand.items()}
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
        processing = Processing(replace(DATA, interactions=interactions), 8)
        processing.process("x", x)
        chosen.append(processing.facts())
    assert chosen[0] == chosen[1]


# --- verdicts: a feature set must win raw and processed, and both figures are reported


KS = [10, 20]
USERS = 400


def answers(rates: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Return paired hits [USERS, 2] at a rate per set: users hit at one rate are hit at every higher one."""
    rank = np.random.default_rng(0).permutation(USERS) / USERS
    return {"item_cf": {name: np.stack([rank < rate, rank < rate], axis=1) * 1.0 for name, rate in rates.items()}}


def judged(raw: dict[str, float], processed: dict[str, float]) -> list[dict[str, Any]]:
    return paired_verdicts(answers(raw), answers(processed), [("a", name) for name in raw if name != "a"], KS, seed=0)


@pytest.mark.parametrize(
    ("raw", "processed", "expected"),
    [
        ((0.6, 0.3), (0.5, 0.3), "better"),
        ((0.3, 0.6), (0.3, 0.5), "worse"),
        ((0.6, 0.3), (0.3, 0.3), "undecided"),
        ((0.3, 0.3), (0.6, 0.3), "undecided"),
        ((0.6, 0.3), (0.3, 0.6), "undecided"),
    ],
)
def test_better_is_raw_and_processed(raw: tuple[float, float], processed: tuple[float, float], expected: str) -> None:
    rows = judged(dict(zip("ab", raw, strict=True)), dict(zip("ab", processed, strict=True)))
    assert [(r["measure"], r["a"], r["b"], r["verdict"]) for r in rows] == [
        ("hit@10", "a", "b", expected),
        ("hit@20", "a", "b", expected),
    ]
    assert rows[0]["raw"]["difference"] == pytest.approx(raw[0] - raw[1])
    assert rows[0]["processed"]["difference"] == pytest.approx(processed[0] - processed[1])


def test_all_tests_are_corrected_together() -> None:
    few = judged({"a": 0.3, "b": 0.287}, {"a": 0.3, "b": 0.287})
    many = judged({"a": 0.3} | {f"b{i}": 0.287 for i in range(9)}, {"a": 0.3} | {f"b{i}": 0.287 for i in range(9)})
    assert many[0]["raw"]["p_holm"] > few[0]["raw"]["p_holm"]
