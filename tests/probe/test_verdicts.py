"""Verdicts: a feature set is better only where it is so raw and processed; processed figures stand beside raw ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.ops import whitening
from pipeline.probe import asking
from pipeline.probe.base import Data
from pipeline.probe.verdicts import verdicts
from pipeline.report import probes as facts

KS = [10, 20]
USERS = 400


def answers(rates: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Return hits of feature sets by their rates, [USERS, 2], paired: who is hit at a rate is hit at a higher one."""
    rank = np.random.default_rng(0).permutation(USERS) / USERS
    return {"item_cf": {name: np.stack([rank < rate, rank < rate], axis=1) * 1.0 for name, rate in rates.items()}}


def judged(raw: dict[str, float], processed: dict[str, float]) -> list[dict[str, Any]]:
    return verdicts(answers(raw), answers(processed), [("a", name) for name in raw if name != "a"], KS, seed=0)


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
def test_a_set_is_better_only_raw_and_processed(
    raw: tuple[float, float], processed: tuple[float, float], expected: str
) -> None:
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


def test_tasks_other_cutoffs_and_sets_that_were_not_asked() -> None:
    right = np.arange(USERS) % 2 == 0
    raw = {"linear_cf": {"a": right, "c": ~right}}
    (row,) = verdicts(raw, raw, [("a", "b"), ("a", "c")], [5], 0)
    assert (row["measure"], row["b"], row["verdict"]) == ("gain", "c", "undecided")
    hits = {"item_cf": {name: np.ones((9, 1)) for name in "ab"}}
    assert [r["measure"] for r in verdicts(hits, hits, [("a", "b")], [5], 0)] == ["hit@5"]
    assert verdicts(hits, hits, [], [5], 0) == []


def test_the_table_of_a_probe_marks_what_its_verdicts_say_of_other_sets() -> None:
    rows = judged({"a": 0.6, "b": 0.3, "c": 0.3, "d": 0.9}, {"a": 0.6, "b": 0.3, "c": 0.6, "d": 0.9})
    sets = {name: {"hit@10": value, "hit@20": value} for name, value in zip("abcd", (0.6, 0.3, 0.5, 0.9), strict=True)}
    (table,) = facts.tables(
        {"item_cf": {"items": 9, "chance": {"hit@10": 0.0, "hit@20": 0.0}, **sets}, "verdicts": rows}
    )
    assert [row[:2] for row in table.rows] == [
        ["d", "0.9000 ▲"], ["a", "0.6000"], ["c", "0.5000 ="], ["b", "0.3000 ▼"], ["chance", "0.0000"]
    ]  # fmt: skip
    assert (table.marks[2, 1], table.marks[3, 2]) == ("level", "worse")
    assert table.note.endswith("Against a, raw and processed: ▲ better, ▼ worse, = no significant difference.")


def test_processed_figures_stand_below_raw_ones() -> None:
    rng = np.random.default_rng(0)
    data = Data(interactions(rng), 40)
    asked = asking.ask(data)
    # a large common offset hides what tells items apart, until it is taken away
    hidden = np.concatenate([np.full((40, 1), 30), np.eye(40)[np.arange(40) // 2 * 2]], axis=1).astype(np.float32)
    hidden += rng.normal(scale=1e-3, size=hidden.shape).astype(np.float32)
    sets = {"plain": rng.normal(size=(40, 8)).astype(np.float32), "hidden": hidden}
    raw = asking.answers(asked, sets.items(), [5])
    processed = asking.answers(asked, ((n, whitening.processed(x, 30)) for n, x in sets.items()), [5])
    figures = asking.summaries(asked, raw, [5]) | {"processed": asking.processed(asked, processed, [5], {"width": 30})}
    assert figures["processed"]["width"] == 30
    assert figures["processed"]["item_cf"].keys() == figures["item_cf"].keys()
    table = next(t for t in facts.tables(figures) if t.heading == "Item-CF")
    assert table.head == ["feature set", "features", "hit@5"]
    assert [row[1] for row in table.rows] == ["raw"] * 3 + ["processed"] * 3
    assert (table.rows[0][0], table.rows[3][0]) == ("hidden", "hidden")
    assert table.marks == {(0, 2): "best", (3, 2): "best"}
    assert table.texts == 2


def interactions(rng: np.random.Generator) -> Any:
    """Return users who each buy two items that differ in the last bit, and one other."""
    first = rng.integers(20, size=60) * 2
    item = np.stack([first, first + 1, rng.integers(40, size=60)], axis=1).ravel()
    user = np.repeat(np.arange(60), 3)
    columns = {
        "user_id": pa.array(user, pa.int32()),
        "item_id": pa.array(item, pa.int32()),
        "rating": pa.nulls(180, pa.float32()),
        "timestamp": pa.array(np.arange(180), pa.int64()),
        "split": pa.array(np.zeros(180), pa.int8()),
    }
    return pa.table(columns)


def test_a_headline_has_a_row_for_each_processing_and_a_caveat_its_reason() -> None:
    raw, narrowed = {"hit@20": 0.4}, {"hit@20": 0.3}
    row = {"probe": "item_cf", "measure": "hit@20", "a": "a", "b": "b", "verdict": "better"}
    figures = {
        "zero_shot": {"skipped": "no reason"},
        "item_cf": {"items": 4, "chance": {"hit@20": 0.1}, "a": raw, "b": {"skipped": "it is odd"}},
        "processed": {"width": 7, "item_cf": {"items": 4, "chance": {"hit@20": 0.1}, "a": narrowed}},
        "verdicts": [row],
    }
    table = facts.headline(figures)
    assert table.head == ["feature set", "features", "Item-CF hit@20"]
    assert table.rows == [
        ["chance", "raw", "0.1000"], ["a", "raw", "0.4000"], ["chance", "processed", "0.1000"],
        ["a", "processed", "0.3000"],
    ]  # fmt: skip
    assert table.note == "zero-shot: no reason"
    probed = facts.read(figures)["item_cf"]
    assert (probed.name, probed.remark) == (
        "Item-CF hit@20",
        "Not shown for b: it is odd.",
    )
    assert facts.read(figures)["zero_shot"].remark == "no reason."
