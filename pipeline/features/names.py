"""Names, kinds, parts and settings of a dataset's feature sets, derived only from the parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features.params import (
    Combine,
    Concat,
    Derived,
    Leaked,
    Linear,
    Masked,
    Planted,
    Whitened,
)
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import Section, nearest, require_known, validate
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.vectors.formats import FEATURE
from alignrec.schemas import MODALITIES, variant

CONCAT, LINEAR, MAPPED, MASKED = "concat", "linear", "mapped", "masked"
LEAKED, PLANTED = "leaked", "planted"  # upper bounds, named like their kinds
KINDS: dict[str, type[Section]] = {
    CONCAT: Concat,
    "whitened": Whitened,
    LINEAR: Linear,
    MAPPED: Derived,
}
KINDS |= {MASKED: Masked, LEAKED: Leaked, PLANTED: Planted}
CEILINGS = (LEAKED, PLANTED, *(variant(PLANTED, modality) for modality in MODALITIES))
TEXT = "minilm"  # text encoder that is concatenated with imported features of images
NOT_TRAINED = ("-raw", "-untrained", "-official")  # suffixes of sets that only serve as baselines
Sets = Mapping[str, Mapping[str, Any]]  # section `combine.sets`


def definition_of(sets: Sets, name: str) -> Mapping[str, Any]:
    """Return the kind and settings of a combination; `<set>-<modality>-masked` needs no settings."""
    own = sets.get(name, {})
    masked = next(
        (modality for modality in MODALITIES if name.endswith(variant("", modality))), None
    )
    if "kind" in own or name in KINDS or masked is None:
        return {"kind": name} | dict(own)
    return {
        "kind": MASKED,
        "of": name.removesuffix(variant("", masked)),
        "modality": masked,
    } | dict(own)


def kind_of(sets: Sets, name: str) -> str:
    return str(definition_of(sets, name)["kind"])


def settings_of(sets: Sets, name: str) -> Section:
    """Return validated settings; raises UserError for an unknown kind, key or value."""
    given = dict(definition_of(sets, name))
    kind = given.pop("kind")
    if kind not in KINDS:
        if "kind" not in sets.get(name, {}):
            raise UserError(f"'combine.sets.{name}.kind' is required{nearest(name, KINDS)}")
        require_known([kind], KINDS, f"combine.sets.{name}.kind")
    return validate(KINDS[kind], given, f"combine.sets.{name}")


def parts_of(params: Parameters, dataset: str, name: str) -> list[str]:
    if name in sets_with_text(params, dataset):
        return [TEXT, name.removeprefix(f"{TEXT}-")]
    sets = params[Combine].sets
    if name not in sets:
        return []
    if is_of_all(sets, name):
        return [*params[Encode].encoders, *imported_sets(params, dataset)]
    of = getattr(settings_of(sets, name), "of", [])
    return [of] if isinstance(of, str) else list(of)


def is_of_all(sets: Sets, name: str) -> bool:
    """Return whether a set is `linear` over all available encoders."""
    return (
        name in sets
        and kind_of(sets, name) == LINEAR
        and not settings_of(sets, name).model_dump()["of"]
    )


def imported_sets(params: Parameters, dataset: str) -> list[str]:
    source = params.source(dataset)
    files = source.files() if isinstance(source, Downloaded) else {}
    return [role.removeprefix(FEATURE) for role in files if role.startswith(FEATURE)]


def trained_sets(params: Parameters) -> list[str]:
    # read by its name, because the class of the section belongs to package beit3, which imports this one
    sets: list[str] = params.section("beit3").model_dump()["sets"]
    return sets


def encoded_sets(params: Parameters, dataset: str) -> list[str]:
    return [*trained_sets(params), *params[Encode].encoders, *imported_sets(params, dataset)]


def sets_with_text(params: Parameters, dataset: str) -> list[str]:
    """Return the concatenations of MiniLM with imported sets, if MiniLM is encoded."""
    return [
        f"{TEXT}-{name}"
        for name in imported_sets(params, dataset)
        if TEXT in params[Encode].encoders
    ]


def sets_without_controls(params: Parameters, dataset: str) -> list[str]:
    """Return all feature sets but controls, parts first."""
    names = encoded_sets(params, dataset)
    todo = [*sets_with_text(params, dataset), *params[Combine].sets]
    while todo:
        ready = [name for name in todo if not {*parts_of(params, dataset, name)} & {*todo}]
        if not ready:
            raise UserError(
                f"'combine.sets': {' and '.join(todo)} are parts of one another; break the circle"
            )
        names += ready
        todo = [name for name in todo if name not in ready]
    return names


def feature_sets(params: Parameters, dataset: str) -> list[str]:
    return [*sets_without_controls(params, dataset), *params[Combine].controls]


def list_with_parts(params: Parameters, dataset: str, name: str) -> list[str]:
    """Return a set and, recursively, all its parts."""
    return [
        name,
        *(
            one
            for part in parts_of(params, dataset, name)
            for one in list_with_parts(params, dataset, part)
        ),
    ]


def sets_of_imported(params: Parameters, dataset: str, sets: Sets) -> dict[str, dict[str, Any]]:
    """Return the combinations whose parts, recursively, all come with the source."""
    imported = imported_sets(params, dataset)
    ready: dict[str, dict[str, Any]] = {}
    for name, settings in sets.items():
        tree = list_with_parts(params, dataset, name)
        leaves = [part for part in tree if not parts_of(params, dataset, part)]
        if all(leaf in imported for leaf in leaves):
            ready[name] = dict(settings)

    return ready


def is_ceiling(sets: Sets, name: str) -> bool:
    """Return whether a set is an upper bound: leaked, or planted, whole or with a masked modality."""
    own = definition_of(sets, name)
    return own["kind"] in (LEAKED, PLANTED) or (own["kind"] == MASKED and own.get("of") == PLANTED)


def refuse_ceiling(sets: Sets, name: str, where: str) -> None:
    if is_ceiling(sets, name):
        raise UserError(f"'{where}': '{name}' is an upper bound, and no feature; leave it out")


def is_control(sets: Sets, name: str) -> bool:
    whole = name
    for modality in MODALITIES:
        whole = whole.removesuffix(variant("", modality))

    return is_ceiling(sets, name) or whole.endswith(NOT_TRAINED)


def is_partial(sets: Sets, name: str) -> bool:
    masked = name.endswith(tuple(variant("", modality) for modality in MODALITIES))
    return masked or kind_of(sets, name) == MASKED or is_control(sets, name)


def maskable_sets(names: Collection[str]) -> list[str]:
    """Return the feature sets that also exist with each modality masked, without upper bounds."""
    content = [name for name in names if name not in CEILINGS]
    return [
        name for name in content if all(variant(name, modality) in names for modality in MODALITIES)
    ]


def learns_from_train(params: Parameters, dataset: str, name: str) -> bool:
    return any(
        kind_of(params[Combine].sets, one) == MAPPED
        for one in list_with_parts(params, dataset, name)
    )


def can_refit(params: Parameters, dataset: str, name: str) -> bool:
    """Return whether a mapped set can be refitted without some interactions: its parts must not depend on them."""
    is_mapped = kind_of(params[Combine].sets, name) == MAPPED
    return is_mapped and not any(
        learns_from_train(params, dataset, part) for part in parts_of(params, dataset, name)
    )


def check_names(params: Parameters, dataset: str) -> None:
    """Raise UserError for unknown kinds or parts, cycles and duplicate names."""
    sets = params[Combine].sets
    names = [*encoded_sets(params, dataset), *sets_with_text(params, dataset)]
    for i, name in enumerate([*names, *sets, *params[Combine].controls]):
        if name in [*names, *sets][:i]:
            raise UserError(f"'{dataset}': two feature sets are called '{name}'; rename one")
    for name in sets:
        where, parts = f"combine.sets.{name}.of", parts_of(params, dataset, name)
        if (kind := kind_of(sets, name)) in (LEAKED, PLANTED) and name != kind:
            raise UserError(
                f"'combine.sets.{name}': a set of kind '{kind}' is called {kind}; rename it"
            )
        if name in parts:
            raise UserError(f"'{where}': it is a part of itself")
        require_known(parts, [*names, *sets], where)
        for part in parts if kind != MASKED else ():
            refuse_ceiling(sets, part, where)
    sets_without_controls(params, dataset)
