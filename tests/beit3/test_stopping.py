"""Pre-training with a patience ends when the held-out losses no longer fall."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shop.pretraining import network, run, shop, task

from alignrec.pipeline.beit3 import losses
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.stopping import describe_ending, learning_rate, list_at_chance, plan_ending
from alignrec.pipeline.beit3.training import fit
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout

# --- the rule


def _history(mim: list[float | None], mlm: list[float | None]) -> list[dict[str, Any]]:
    pairs = zip(mim, mlm, strict=True)
    return [{"step": 10 * n, "mim_held_out_loss": a, "mlm_held_out_loss": b} for n, (a, b) in enumerate(pairs, start=1)]


FLAT = [5.0, 5.0, 4.99, 4.98, 5.1]  # all within half a percent of the first


@pytest.mark.parametrize(
    ("mim", "mlm", "patience", "stall"),
    [
        (FLAT, FLAT, 2, 30),
        (FLAT, FLAT, 4, 50),
        (FLAT, [5.0, 4.0, 3.0, 2.0, 1.0], 2, None),  # one of the two suffices to go on
        ([5.0, 4.0, 3.0, 2.0, 1.0], [*FLAT[:4], 9.0], 2, None),
        ([5.0, 4.98, 4.96, 4.94, 4.92], FLAT, 2, None),  # slow falls add up
        ([None] * 5, FLAT, 2, 30),  # a catalogue without images
        ([None] * 5, [None] * 5, 1, None),  # nothing was held out
        (FLAT, FLAT, 0, None),
    ],
)
def test_it_stalls_when_neither_loss_falls(
    mim: list[float | None], mlm: list[float | None], patience: int, stall: int | None
) -> None:
    ending = plan_ending(_history(mim, mlm), 200, patience)
    assert ending.stalled == (stall is not None)
    assert ending.last == (200 if stall is None else stall + math.ceil(stall / 4))
    if stall is not None:
        assert ending.falling_from == stall


def test_the_budget_is_never_exceeded_and_a_stall_is_not_undone() -> None:
    history = _history([5.0] * 30, [5.0] * 30)
    for steps in range(301):
        ending = plan_ending(history, steps, 3)
        assert ending.last <= steps
        assert ending.falling_from <= 0.8 * steps or not ending.stalled
    stalled = plan_ending(history[:4], 200, 3)
    assert stalled == plan_ending([*history[:4], *_history([5.0] * 4 + [1.0], [1.0] * 5)[4:]], 200, 3)
    assert stalled.falling_from == 40


def test_the_rate_rises_stays_and_falls_and_without_patience_is_a_cosine() -> None:
    ending = plan_ending(_history(FLAT, FLAT), 100, 4)
    rates = [learning_rate(step, ending, 1.0) for step in range(ending.last)]
    assert (ending.rising, ending.falling_from, ending.last) == (10, 50, 63)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert set(rates[10:51]) == {1.0}
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 0.02

    whole = plan_ending(_history(FLAT, FLAT), 50, 0)
    expected = [0.5 * (1 + math.cos(math.pi * step / 45)) for step in range(45)]
    np.testing.assert_allclose([learning_rate(5 + step, whole, 1.0) for step in range(45)], expected)


def test_the_record_says_why_it_ended() -> None:
    history = _history(FLAT, FLAT)
    stalled = describe_ending(history, Pretrain(steps=100, patience=4))
    assert stalled.startswith("neither held-out loss fell in 4 measurements up to step 50")
    assert "the budget pretrain.steps, 50," in describe_ending(history, Pretrain(steps=50, patience=4))
    assert describe_ending(history, Pretrain(steps=50)) == "after pretrain.steps, 50"


# --- chance


def test_accuracy_has_to_exceed_chance_by_two_standard_errors() -> None:
    figures = {"mim_accuracy": 0.05, "mim_chance": 0.03, "mim_margin_se": 0.011}
    assert list_at_chance(figures) == ["MIM"]
    assert list_at_chance(figures | {"mim_margin_se": 0.009}) == []
    assert list_at_chance(figures | {"mim_margin_se": None}) == ["MIM"]
    unmeasured = {"mlm_accuracy": None, "mlm_chance": None, "mlm_margin_se": None}
    assert list_at_chance(figures | unmeasured) == ["MIM"]
    assert list_at_chance({}) == []


def test_the_standard_error_counts_items_not_targets() -> None:
    rng = np.random.default_rng(0)
    margin = rng.choice([-1.0, 0.0, 1.0], 60)
    single = losses.clustered_error(torch.from_numpy(margin), torch.arange(60))
    assert single == pytest.approx(margin.std(ddof=1) / math.sqrt(60), abs=1e-6)

    repeated = torch.from_numpy(np.repeat(margin, 32))  # the same targets, drawn again
    assert losses.clustered_error(repeated, torch.arange(60).repeat_interleave(32)) == pytest.approx(single, abs=1e-6)
    assert losses.clustered_error(repeated, torch.zeros(60 * 32, dtype=torch.int64)) is None


# --- held-out items


def test_more_items_are_held_out_if_they_decide_and_no_other_key_changes_which() -> None:
    few, more = task(48), task(48, patience=2)
    assert len(few.held_out) == 10
    assert (few.held_out == more.held_out).all()  # a tenth is fewer than what is held out already

    small = {"share_held_out": 0.0}
    none, tenth = (type(few)(**{**vars(made), **small}) for made in (task(48), task(48, patience=2)))
    assert (len(none.held_out), len(tenth.held_out)) == (0, 5)
    assert not set(tenth.held_out) & set(tenth.train)
    assert set(tenth.held_out) <= set(few.held_out)  # one order by the seed


# --- training


def test_it_goes_on_while_a_loss_falls(tmp_path: Path) -> None:
    learning = task(24, steps=60, patience=2, lr=0.01)
    history, _ = fit(network(), learning, Checkpoint(tmp_path / "checkpoint.safetensors", 100), lambda _: None)
    assert history[-1]["step"] > 38
    assert history[2]["mim_held_out_loss"] < 0.9 * history[0]["mim_held_out_loss"]


def test_the_record_has_the_curve_why_it_ended_and_what_is_at_chance(tmp_path: Path) -> None:
    shop(tmp_path, n=96, steps=60, patience=1, lr=1e-9)
    notes = run(tmp_path)
    curve = json.loads(Layout(tmp_path, "toy").history("pretrain").read_text())
    assert notes["stopped"].startswith("neither held-out loss fell in 1 measurement")
    assert notes["step"] == curve[-1]["step"] < 60
    assert notes["at_chance"] == ["MIM", "MLM"]
    assert notes["held_out"]["items"] == 9
    assert notes["held_out"]["step"] == [entry["step"] for entry in curve]
    for key in ("mim_held_out_loss", "mlm_held_out_loss"):
        assert notes["held_out"][key] == [entry[key] for entry in curve]
