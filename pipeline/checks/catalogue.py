"""Settings that need more items than there are, found as soon as items are counted."""

from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.cutoff import CUTOFF, chance_note
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.params import Parameters


def check_catalogue(params: Parameters, items: int) -> None:
    """Raise UserError if a setting needs more items than the catalogue has."""
    largest = max(params[Benchmark].ks)
    if largest > items:
        raise UserError(
            f"'benchmark.ks': {largest} is larger than the catalogue of {items:,} items; "
            "give smaller ones, or lower interactions.item_core"
        )

    semantic_ids = params[SemanticIds]
    codes = semantic_ids.for_items(items).codes
    is_learned = semantic_ids.features and semantic_ids.codebooks is None
    if is_learned and codes > items:
        raise UserError(
            f"'semantic_ids.codes': {codes:,} is more than the catalogue's {items:,} items; "
            "give fewer"
        )


def check_cold_items(params: Parameters, valid: int, test: int) -> str:
    """Raise UserError for too few cold items in valid or test; return a note if chance is high."""
    largest = max(CUTOFF, *params[Benchmark].ks)
    if min(valid, test) <= largest:
        raise UserError(
            f"'interactions.cold_share': {valid:,} items are cold in valid and {test:,} in test, "
            f"and the largest cutoff is {largest}; raise it, give smaller 'benchmark.ks' or more "
            "data"
        )
    return chance_note(min(valid, test))
