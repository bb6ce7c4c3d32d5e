"""The cutoff at which epochs are chosen, settings are compared and headline figures are given."""

from __future__ import annotations

from collections.abc import Sequence

CUTOFF = 20


def bounded(n_items: int) -> int:
    """Return CUTOFF, or the size of a catalogue that has fewer items."""
    return min(CUTOFF, n_items)


def headline(ks: Sequence[int]) -> int:
    """Return CUTOFF if it is among the cutoffs, else the largest of them."""
    return CUTOFF if CUTOFF in ks else max(ks)
