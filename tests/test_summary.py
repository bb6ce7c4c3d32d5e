"""The terminal's results table."""

import io

import pyarrow as pa
from rich.console import Console

import schemas
from pipeline import summary


def test_means_over_seeds_best_first_and_only_what_valid_selected() -> None:
    def row(model: str, seed: int, value: float, selected_by: str = "valid") -> dict[str, object]:
        where = {"dataset": "shop", "features": "none", "protocol": "mmrec", "split": "test"}
        return where | {
            "metric": "recall",
            "k": 20,
            "model": model,
            "seed": seed,
            "selected_by": selected_by,
            "value": value,
        }

    rows = [row("bpr", 0, 0.1), row("bpr", 1, 0.2), row("lightgcn", 0, 0.3), row("bpr", 0, 0.9, "test")]
    console = Console(width=80, file=io.StringIO())
    console.print(*summary.tables(pa.Table.from_pylist(rows, schemas.RESULTS), "shop"))
    text = console.file.getvalue()
    assert "0.1500 ±0.0707" in text
    assert "0.9" not in text
    assert text.index("lightgcn") < text.index("bpr")
