"""Semantic IDs: collisions, and neighbours kept together."""

from collections.abc import Mapping

from pipeline.report.table import Table

HEADING = "Semantic IDs"
KEYS = ("collide", "neighbours")


def tables(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return the figures of each feature set's codes and of the control, see pipeline/semantic_ids/judge.py."""
    note = (
        "Collide: share of items that have all codes of another, which a suffix separates. Neighbours: how often an "
        "item and a nearest neighbour share the first code. Useful codes must beat random ones in the latter."
    )
    rows = [
        [f"{name}, random codes" if method == "random" else name, *(f"{figures[key]:.1%}" for key in KEYS)]
        for name, methods in quality.items()
        for method, figures in methods.items()
    ]
    return [Table(HEADING, note, ["codes", *KEYS], rows, texts=1)] if rows else []
