"""AlignRec on the released features, tested against each other run of a benchmark."""

import pyarrow as pa

from alignrec.pipeline.evaluation.evidence import MAIN, Comparison
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.report.results import rows_equal_to
from alignrec.pipeline.report.table import (
    CHANGE,
    FLOORED,
    HEADLINE_RECALL,
    Difference,
    Fields,
    Table,
    Value,
)


def rival_table(comparison: Comparison, tests: pa.Table | None, released: str) -> Table | None:
    """Return what AlignRec on the features `released` has more than each run, best first.

    None without a test.
    """
    columns = {
        "model_a": RELEASED,
        "features_a": released,
        "ablation_a": "",
        "ablation_b": "",
        "fingerprint": comparison.fingerprint,
        "metric": MAIN[0],
    }
    paired = [] if tests is None else tests.filter(rows_equal_to(columns)).to_pylist()
    if not paired:
        return None

    paired.sort(key=lambda row: -row["mean_b"])
    rows = [_rival_row(row) for row in paired]
    note = (
        f"What AlignRec on {released} has more, test {HEADLINE_RECALL} over {paired[0]['n']:,} "
        "users, mean over seeds; p is Holm's, for all comparisons that were declared before "
        f"training. {FLOORED}"
    )
    head = ["model", "features", HEADLINE_RECALL, *CHANGE]
    return Table.of("AlignRec's lead", note, head, rows, texts=2)


def _rival_row(row: Fields) -> tuple[Value, ...]:
    return row["model_b"], row["features_b"], f"{row['mean_b']:.4f}", Difference.of(row)
