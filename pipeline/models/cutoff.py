"""The cutoff of headline figures, which also selects epochs and settings."""

from collections.abc import Sequence

CUTOFF = 20
MAX_UNNOTED_CHANCE = 0.2  # chance level above which reports show a note
# part of fingerprints; cold items occur in valid or test, but not in train
ALL, COLD = "all items", "cold items alone"


def bounded_cutoff(n_items: int) -> int:
    return min(CUTOFF, n_items)


def headline_cutoff(ks: Sequence[int]) -> int:
    return CUTOFF if CUTOFF in ks else max(ks)


def chance_note(candidates: int, k: int = CUTOFF) -> str:
    chance = min(1.0, k / candidates)
    if chance <= MAX_UNNOTED_CHANCE:
        return ""
    return (
        f"K is {k} of {candidates} candidates, so chance is {chance:.2f} "
        "and sets lie near to each other."
    )
