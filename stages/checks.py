"""Settings that cannot work together, found before the first stage runs and by `alignrec plan`; and
those that need more items than there are, found as soon as items are counted.

To add a check of settings, write a function that raises UserError, and list it in CHECKS.
"""

from collections.abc import Callable

from alignrec.pipeline.beit3.params import BEIT3_SETS, IMAGE_TOKENS, BEiT3Sets, Pretrain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Study
from alignrec.pipeline.features import names
from alignrec.pipeline.features.kinds import MASKED
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.cutoff import CUTOFF, chance_note
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.release.params import Publish, resolve_settings
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import require_known
from alignrec.schemas import MODALITIES, variant

OFFICIAL_SET = "beit3-official"


def check_settings(params: Parameters, dataset: str) -> None:
    """Raise UserError if settings contradict each other; `params` are completed for the dataset."""
    for check in CHECKS:
        check(params, dataset)


def check_teachers(params: Parameters, dataset: str) -> None:
    pretrain = params[Pretrain]
    if params[BEiT3Sets].sets and "distill_from" in pretrain.model_fields_set:
        require_known(pretrain.distill_from, params[Encode].encoders, "pretrain.distill_from")


def check_official_weights(params: Parameters, dataset: str) -> None:
    if OFFICIAL_SET in params[BEiT3Sets].sets and not params[Pretrain].init:
        raise UserError(
            f"'beit3.sets': '{OFFICIAL_SET}' is encoded by the weights of pretrain.init; "
            "give that key too"
        )


def check_image_tokens(params: Parameters, dataset: str) -> None:
    encoders = params[Encode].encoders
    absent = [name for name in IMAGE_TOKENS if name not in encoders]
    is_mini = params[BEiT3Sets].sets and params[Pretrain].size == "mini"
    if not is_mini or not absent:
        return
    if not params[Images].pattern and not params.source(dataset).has_images:
        return

    complete = ", ".join([*encoders, *absent])
    raise UserError(
        f"'encode.encoders': pretrain.size mini reads images by {' and '.join(IMAGE_TOKENS)}; "
        f"write encode: {{encoders: [{complete}]}}, or, without BEiT3, beit3: {{sets: []}}"
    )


def check_combinations(params: Parameters, dataset: str) -> None:
    declared = DeclaredSets(params, dataset)
    for name in declared.combined:
        if declared.takes_all(name) and not declared.parts_of(name):
            raise UserError(
                f"'combine.sets.{name}': no encoder to build on; "
                f"write encode: {{encoders: [tfidf]}}, or leave {name} out of combine.sets"
            )
        if names.kind_of(declared.combined, name) is MASKED:
            refuse_mask_of_trained(params, declared, name)


def refuse_mask_of_trained(params: Parameters, declared: DeclaredSets, name: str) -> None:
    trained = [part for part in declared.with_parts(name) if part in params[BEiT3Sets].sets]
    if trained:
        masked = " or ".join(variant(trained[0], modality) for modality in MODALITIES)
        raise UserError(
            f"'combine.sets.{name}': each number of {trained[0]} depends on image and text, so it "
            f"is masked where it is encoded; list {masked} in beit3.sets, and leave {name} out"
        )


def check_mask_modality(params: Parameters, dataset: str) -> None:
    declared = DeclaredSets(params, dataset)
    set_names = declared.names()
    if not params[Study].mask.ratios or names.maskable_sets(set_names):
        return

    where = f"'study.mask': no feature set of {dataset} is also made with each modality masked"
    features = params[TrainSettings].features
    if features not in declared.without_controls():
        raise UserError(f"{where}; leave study.mask out")

    variants = [variant(features, modality) for modality in MODALITIES]
    missing = [name for name in variants if name not in set_names]
    section = "beit3.sets" if missing[0] in BEIT3_SETS else "combine.sets"
    raise UserError(f"{where}; add {' and '.join(missing)} to {section}, or leave study.mask out")


def check_long_tail(params: Parameters, dataset: str) -> None:
    benchmark = params[Benchmark]
    features = params[TrainSettings].features
    is_listed = RELEASED in benchmark.models and features in benchmark.features
    # ablations are compared with the full model, which then runs too
    if params[Study].tail and not is_listed and not benchmark.ablations:
        raise UserError(
            f"'study.tail': it compares {RELEASED} on {features} with other models; add {RELEASED} "
            f"to benchmark.models and {features} to benchmark.features, or leave study.tail out"
        )


def check_release(params: Parameters, dataset: str) -> None:
    resolve_settings(params[Publish], params.source(dataset).licence)


CHECKS: tuple[Callable[[Parameters, str], None], ...] = (
    check_teachers,
    check_official_weights,
    check_image_tokens,
    check_combinations,
    check_mask_modality,
    check_long_tail,
    check_release,
)


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
