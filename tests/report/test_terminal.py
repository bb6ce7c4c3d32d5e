"""The terminal's results tables."""

import io

import pyarrow as pa
from rich.console import Console

import schemas
from pipeline.report import terminal
from pipeline.report.table import Table


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
    assert ".1500 ± .0707" in text
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


def test_figures_that_do_not_fit_continue_below_and_none_is_split() -> None:
    head, row = ["features", *(f"probe {i}" for i in range(9))], [f"0.31{i} ± 0.00{i}" for i in range(9)]
    console = Console(width=80, file=io.StringIO())
    console.print(terminal.Drawn(Table("A heading", "", head, [["minilm-cnn", *row]])))
    text = console.file.getvalue()
    assert [text.count(f"0.31{i} ± 0.00{i}") for i in range(9)] == [1] * 9
    assert (text.count("minilm-cnn"), text.count("A heading")) == (2, 1)
    assert max(map(len, text.splitlines())) <= 80
    assert [*terminal.bands([4, 3, 3, 3], 1, 8)] == [[0, 1], [0, 2], [0, 3]]
    assert [*terminal.bands([4, 3, 3, 3], 1, 12)] == [[0, 1, 2], [0, 3]]
    assert [*terminal.bands([4, 90], 1, 8)] == [[0, 1]]
    assert [*terminal.bands([40, 40], 2, 8)] == [[0, 1]]
