"""What stages recorded of their last run."""

from __future__ import annotations

from typing import Any

from pipeline.facts import content


def _encoded(measured: dict[str, Any]) -> dict[str, Any]:
    return {"rows_in": 1559, "machine": "Linux, abacus, 2 cores", "measured": measured}


def test_a_million_items_cost_hours_watt_hours_and_dollars() -> None:
    notes = {
        "beit3": {"items_per_s": 1000.0},
        "cnn": {"items_per_s": 9.0, "taken_over": 5},
    }
    (table,) = content.cost(_encoded(notes), 300, 2)
    # 1e6 / 1000 = 1000 s = .278 h; x 300 W = 83 Wh; x 2 dollars = .56
    assert table.rows == [["beit3", "1,000", "0.28", "83", "0.56"]]
    assert "300 W" in table.note
    assert "abacus" in table.note


def test_where_nothing_was_encoded_there_is_no_cost() -> None:
    assert list(content.cost({}, 300, 2)) == []
    assert list(content.cost(_encoded({"beit3": {"items_per_s": 0.0}}), 300, 2)) == []
