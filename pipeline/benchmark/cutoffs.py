"""Whether the cutoffs of the benchmark fit the catalogue, asked as soon as it is known."""

from __future__ import annotations

from pipeline.benchmark.params import Benchmark
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF


def check(benchmark: Benchmark, items: int) -> None:
    """Raise UserError if a cutoff is larger than the catalogue of so many items."""
    if (largest := max(benchmark.ks)) > items:
        raise UserError(
            f"'benchmark.ks': {largest} is larger than the catalogue, of which {items:,} items are left; "
            "give smaller ones, or lower interactions.item_core"
        )


def check_cold(benchmark: Benchmark, valid: int, test: int) -> None:
    """Raise UserError if so few items are the candidates of valid and of test that figures would say nothing."""
    chosen_at = max(CUTOFF, *benchmark.ks)
    if min(valid, test) <= chosen_at:
        raise UserError(
            f"'interactions.cold_share': {valid:,} items are cold in valid and {test:,} in test, and the largest "
            f"cutoff is {chosen_at}; raise it, give smaller 'benchmark.ks' or more data"
        )
