"""The cutoff of headline figures, at which epochs and settings are chosen."""

from collections.abc import Sequence

CUTOFF = 20
NEAR = 0.2  # chance level that is reported as high
ALL, COLD = "all items", "cold items alone"  # as in fingerprints; cold items are those of valid, or test, not in train


def bounded_cutoff(n_items: int) -> int:
    return min(CUTOFF, n_items)


def headline_cutoff(ks: Sequence[int]) -> int:
    return CUTOFF if CUTOFF in ks else max(ks)


def chance_note(candidates: int, k: int = CUTOFF) -> str:
    """Return a sentence on a chance level above NEAR, else an empty text."""
    chance = min(1.0, k / candidates)
    text = f"K is {k} of {candidates} candidates, so chance is {chance:.2f} and sets lie near to each other."
    return text if chance > NEAR else ""
