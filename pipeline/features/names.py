"""Feature sets that parameters declare for a dataset: names, kinds, parts, and what each may be
used for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features.kinds import CONCAT, IMPORTED, KINDS, MASKED, NAMED_KINDS, SetKind
from alignrec.pipeline.features.kinds.base import KindSettings
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import nearest, require_known, validate
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.vectors.formats import FEATURE
from alignrec.schemas import MODALITIES, variant

TEXT = "minilm"  # text encoder that is concatenated with imported features of images
NOT_TRAINED = ("-raw", "-untrained", "-official")  # suffixes of sets that only serve as baselines
MASKS = tuple(variant("", modality) for modality in MODALITIES)  # suffixes of masked sets
LINEAR = "linear"  # the kind whose set is called like it
Definitions = Mapping[str, Mapping[str, Any]]  # section `combine.sets`


def definition_of(definitions: Definitions, name: str) -> Mapping[str, Any]:
    """Return the kind and settings of a combination.

    `<set>-<modality>-masked` needs no settings.
    """
    declared = definitions.get(name, {})
    if "kind" not in declared and name not in KINDS:
        for modality in MODALITIES:
            if name.endswith(variant("", modality)):
                whole = name.removesuffix(variant("", modality))
                return {"kind": MASKED.name, "of": whole, "modality": modality, **declared}

    return {"kind": name, **declared}


def kind_of(definitions: Definitions, name: str) -> SetKind | None:
    """Return the kind of a combination or control; None for other sets."""
    return NAMED_KINDS.get(str(definition_of(definitions, name)["kind"]))


def settings_of(definitions: Definitions, name: str) -> KindSettings:
    """Return validated settings; raises UserError for an unknown kind, key or value."""
    settings = dict(definition_of(definitions, name))
    kind = str(settings.pop("kind"))
    if kind not in KINDS:
        if "kind" not in definitions.get(name, {}):
            raise UserError(f"'combine.sets.{name}.kind' is required{nearest(name, KINDS)}")
        require_known([kind], KINDS, f"combine.sets.{name}.kind")
    return validate(KINDS[kind].params, settings, f"combine.sets.{name}")


def is_control(name: str) -> bool:
    whole = name
    for mask in MASKS:
        whole = whole.removesuffix(mask)
    return whole.endswith(NOT_TRAINED)


def is_partial(definitions: Definitions, name: str) -> bool:
    is_masked = name.endswith(MASKS) or kind_of(definitions, name) is MASKED
    return is_masked or is_control(name)


def maskable_sets(names: Collection[str]) -> list[str]:
    """Return the feature sets that also exist with each modality masked."""
    return [name for name in names if all(f"{name}{mask}" in names for mask in MASKS)]


def trained_sets(params: Parameters) -> list[str]:
    # read by its name, because the class of the section belongs to package beit3, which imports
    # this one
    sets: list[str] = params.section("beit3").model_dump()["sets"]
    return sets


class DeclaredSets:
    """The feature sets that parameters declare for a dataset."""

    def __init__(self, params: Parameters, dataset: str) -> None:
        source = params.source(dataset)
        roles = source.files() if isinstance(source, Downloaded) else {}
        self.dataset = dataset
        self.encoders = params[Encode].encoders
        self.imported = [r.removeprefix(FEATURE) for r in roles if r.startswith(FEATURE)]
        self.encoded = [*trained_sets(params), *self.encoders, *self.imported]
        # concatenations of MiniLM with imported sets
        self.with_text: list[str] = []
        if TEXT in self.encoders:
            self.with_text = [f"{TEXT}-{name}" for name in self.imported]
        self.combined: Definitions = params[Combine].sets
        self.controls = params[Combine].controls

    def names(self) -> list[str]:
        return [*self.without_controls(), *self.controls]

    def without_controls(self) -> list[str]:
        """Return all feature sets but controls, parts first."""
        names = list(self.encoded)
        pending = [*self.with_text, *self.combined]
        while pending:
            ready = [name for name in pending if not {*self.parts_of(name)} & {*pending}]
            if not ready:
                circle = " and ".join(pending)
                raise UserError(
                    f"'combine.sets': {circle} are parts of one another; break the circle"
                )
            names += ready
            pending = [name for name in pending if name not in ready]
        return names

    def definition_of(self, name: str) -> Mapping[str, Any]:
        if name in self.imported:
            return {"kind": IMPORTED.name}
        if name in self.with_text:
            return {"kind": CONCAT.name, "of": self.parts_of(name)}
        return definition_of(self.combined, name)

    def parts_of(self, name: str) -> list[str]:
        if name in self.with_text:
            return [TEXT, name.removeprefix(f"{TEXT}-")]
        if name not in self.combined:
            return []
        if self.takes_all(name):
            return [*self.encoders, *self.imported]
        return settings_of(self.combined, name).parts()

    def takes_all(self, name: str) -> bool:
        """Return whether a set is derived from all available encoders."""
        if name not in self.combined:
            return False
        kind = kind_of(self.combined, name)
        is_open = kind is not None and kind.takes_all
        return is_open and not settings_of(self.combined, name).parts()

    def with_parts(self, name: str) -> list[str]:
        """Return a set and, recursively, all its parts."""
        names = [name]
        for part in self.parts_of(name):
            names += self.with_parts(part)
        return names

    def made_of_imported(self) -> dict[str, dict[str, Any]]:
        """Return the combinations whose parts, recursively, all come with the source."""
        ready = {}
        for name, definition in self.combined.items():
            leaves = [part for part in self.with_parts(name) if not self.parts_of(part)]
            if all(leaf in self.imported for leaf in leaves):
                ready[name] = dict(definition)
        return ready

    def check(self) -> None:
        """Raise UserError for unknown kinds or parts, cycles and duplicate names."""
        encoded_sets = [*self.encoded, *self.with_text]
        parts = [*encoded_sets, *self.combined]
        for position, name in enumerate([*parts, *self.controls]):
            if name in parts[:position]:
                raise UserError(
                    f"'{self.dataset}': two feature sets are called '{name}'; rename one"
                )

        for name in self.combined:
            self._check_combination(name, parts)
        self.without_controls()  # raises for a circle

    def _check_combination(self, name: str, known_parts: list[str]) -> None:
        where = f"combine.sets.{name}.of"
        parts = self.parts_of(name)
        if name in parts:
            raise UserError(f"'{where}': it is a part of itself")

        require_known(parts, known_parts, where)
