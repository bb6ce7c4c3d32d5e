"""The cutoff at which epochs are chosen, settings are compared and headline figures are given."""

from collections.abc import Sequence

CUTOFF = 20
NEAR = 0.2
"""chance above which K is near to the number of candidates, which is said"""
ALL, COLD = "all items", "cold items alone"
"""cold items are those of valid, or of test, that train lacks"""


def bounded(n_items: int) -> int:
    """Return CUTOFF, or the size of a catalogue that has fewer items."""
    return min(CUTOFF, n_items)


def headline(ks: Sequence[int]) -> int:
    return CUTOFF if CUTOFF in ks else max(ks)


def near(candidates: int, k: int = CUTOFF) -> str:
    """Return a sentence that says that K is near to the number of candidates; empty where it is not."""
    chance = min(1.0, k / candidates)
    if chance <= NEAR:
        return ""
    return f"K is {k} of {candidates} candidates, so chance is {chance:.2f} and sets lie near to each other."
