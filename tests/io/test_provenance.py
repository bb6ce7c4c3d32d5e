"""Provenance in files of others, which may hold anything."""

from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.io import provenance


def nested(levels: int) -> dict[str, Any]:
    """Return a record whose fingerprint has `levels` levels."""
    inner: dict[str, Any] = {"width": 4}
    for _ in range(levels - 1):
        inner = {"part": inner}
    return {io.FINGERPRINT: inner}


def test_a_fingerprint_that_is_nested_too_deeply_is_none() -> None:
    known = [levels for levels in range(1, 200) if io.fingerprint_of(nested(levels))]
    assert known == [*range(1, len(known) + 1)]
    assert io.fingerprint_of(nested(len(known))) == nested(len(known))[io.FINGERPRINT]
    assert len(known) == provenance.MAX_FINGERPRINT_LEVELS
