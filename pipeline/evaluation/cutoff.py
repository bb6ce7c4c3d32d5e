"""The cutoff of headline figures, which also selects epochs and settings."""

from collections.abc import Sequence

CUTOFF = 20
NEAR = 0.2  # chance level above which reports show a note
ALL, COLD = (
    "all items",
    "cold items alone",
)  # part of fingerprints; cold items occur in valid or test, but not in train


def bounded_cutoff(n_items: int) -> int:
    return min(CUTOFF, n_items)


def headline_cutoff(ks: Sequence[int]) -> int:
    return CUTOFF if CUTOFF in ks else max(ks)


def chance_note(candidates: int, k: int = CUTOFF) -> str:
    chance = min(1.0, k / candidates)
    text = f"K is {k} of {candidates} candidates, so chance is {chance:.2f} and sets lie near to each other."
    return text if chance > NEAR else ""
