"""Tables of results in a terminal."""

import io

import pyarrow as pa
from rich.console import Console

from alignrec import schemas
from alignrec.pipeline.report import terminal


def row(model: str, seed: int, value: float, **other: object) -> dict[str, object]:
    run = {"dataset": "shop", "model": model, "features": "none", "ablation": "", "seed": seed}
    how = {"protocol": "mmrec", "fingerprint": "1", "split": "test", "metric": "recall", "k": 20}
    return run | how | {"selected_by": "valid", "value": value} | other


def printed(*rows: dict[str, object], width: int = 100) -> list[str]:
    """Return the text of every table."""
    texts = []
    for table in terminal.tables(pa.Table.from_pylist(list(rows), schemas.RESULTS), "shop"):
        console = Console(width=width, file=io.StringIO())
        console.print(table)
        texts.append(console.file.getvalue())
    return texts


def test_means_over_seeds_best_first_and_nothing_that_test_selected() -> None:
    rows = row("bpr", 0, 0.1), row("bpr", 1, 0.2), row("lightgcn", 0, 0.3), row("bpr", 0, 0.9, selected_by="test")
    (text,) = printed(*rows)
    assert "0.1500 ± 0.0707" in text
    assert ".9" not in text
    assert text.index("lightgcn") < text.index("bpr")


def test_fingerprints_and_ablations_have_tables_of_their_own() -> None:
    one, other = printed(row("bpr", 0, 0.1), row("bpr", 0, 0.7, fingerprint="2"))  # both are called `mmrec`
    assert (".1000" in one, ".7000" in one, ".1000" in other, ".7000" in other) == (True, False, False, True)
    texts = printed(row("alignrec", 0, 0.3), row("alignrec", 0, 0.2, ablation="no-cca"), row("bpr", 0, 0.1),
                  row("alignrec", 0, 0.4, features="random"))  # fmt: skip
    assert "no-cca" not in texts[0]
    assert (".3000" in texts[1], "no-cca" in texts[1]) == (True, True)
    assert not any(other in texts[1] for other in ("bpr", "random"))
