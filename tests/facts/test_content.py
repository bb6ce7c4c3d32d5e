"""What items have and lack is counted, and nothing is lost."""

import pyarrow as pa

from pipeline.facts import content


def test_images_are_counted_by_reason_and_rare_reasons_together() -> None:
    many = content.REASONS + 3
    status = pa.chunked_array([["ok"] * 5 + ["http_error"] * many])
    reason = pa.chunked_array([[""] * 5 + [f"status {i}" for i in range(many)]])
    rows = content.quality("Images", status, reason, "").rows
    assert rows[0] == ["ok", "", "5", "17.9%"]
    assert rows[-1] == ["others", "4 more reasons", "4", "14.3%"]
    assert sum(int(r[2]) for r in rows) == 5 + many
