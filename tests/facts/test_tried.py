"""The table of what valid chose a feature set from."""

from __future__ import annotations

from pipeline.facts import probes


def row(number: int, score: float) -> dict[str, object]:
    figures = {"warm": score, "cold": score, "score": score}
    return {"number": number, "of": ["tfidf", "cnn"], "power": 0.5, "image": 0.3, "map": "none", **figures}


def test_the_best_is_first_and_the_number_of_candidates_is_told() -> None:
    (table,) = probes.tried_tables({"tried": {"best": [row(0, 0.1), row(1, 0.3), row(2, 0.3), row(3, 0.2)]}})
    assert [cells[-1] for cells in table.rows] == ["0.3000", "0.3000", "0.2000", "0.1000"]
    assert table.rows[0][:4] == ["tfidf, cnn", "0.5", "0.3", "none"]
    assert "4 candidates" in table.note
    assert probes.tried_tables(None) == probes.tried_tables({}) == []
