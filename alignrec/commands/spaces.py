"""`alignrec new --from`: sections of a parameter file that stay in the spaces of a release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.commands.arguments import ROOT
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.encoders.registry import ENCODERS, RELEASED_KIND
from alignrec.pipeline.features.folder import Facts
from alignrec.pipeline.features.kinds import LINEAR
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.encoder import ReleasedEncoders, list_encoders
from alignrec.pipeline.release.read import Release, codebooks_path
from alignrec.pipeline.runtime.section import Section, validate

# settings that vectors depend on, besides those of encoders
SHAPING: Mapping[str, tuple[type[Section], tuple[str, ...]]] = {
    "items": (Items, ("text",)),
    "images": (Images, ("size", "quality")),
}


class Spaces(NamedTuple):
    """What a project takes from a release."""

    encoders: dict[str, dict[str, Any]]  # encoder to run -> what `encoders` declares of it
    combined: dict[str, dict[str, Any]]  # section `combine.sets`
    coded: list[str]  # feature sets whose codebooks are used
    shaping: dict[str, dict[str, Any]]  # sections items and images, without defaults
    release: str  # its folder
    seen: list[str]  # messages for the user

    def names(self) -> list[str]:
        return [*self.encoders, *self.combined]

    def sections(self) -> dict[str, Any]:
        """Return the sections of a parameter file, empty ones included."""
        declared = {name: given for name, given in self.encoders.items() if given}
        sections: dict[str, Any] = {
            "encoders": declared,
            "encode": {"encoders": list(self.encoders), "reuse": True},
            "combine": {"sets": self.combined},
            "beit3": {"sets": []},
        }
        if self.coded:
            sections["semantic_ids"] = {"features": self.coded, "codebooks": self.release}
        return sections


def read_spaces(folder: Path) -> Spaces:
    """Verify a release, and find the encoders, maps and codebooks that a project can use.

    UserError if it carries no encoder, or if the project's own `dvc repro` would replace it.
    """
    if folder.resolve().is_relative_to(ROOT.resolve()):
        raise UserError(f"{folder}: the next `dvc repro` replaces it; copy it out of {ROOT} first")
    release = Release(folder).verify()
    manifest = release.manifest
    names = list_encoders(manifest)
    if not names:
        raise UserError(f"{folder}: this release carries no encoder to keep the space of")

    released = ReleasedEncoders(folder)
    facts_of = {name: released.facts(name) for name in names}
    encoders: dict[str, dict[str, Any]] = {}
    combined: dict[str, dict[str, Any]] = {}
    seen = []
    for name, facts in facts_of.items():
        if facts.network == LINEAR.name:
            combined[name] = {"of": facts.parts, "fitted": str(folder)}
            if name != LINEAR.name:
                combined[name] = {"kind": LINEAR.name, **combined[name]}
        else:
            encoders[name] = _declare_encoder(folder, facts)
    seen.append(
        f"{folder}: {manifest.dataset} {manifest.version}: "
        f"the space of {', '.join(facts_of)} is kept"
    )

    without = [name for name in manifest.sets_with("features") if name not in facts_of]
    if without:
        seen.append(f"{folder}: no encoder of {', '.join(without)}, which is left out")
    listed = {file.path for file in manifest.files}
    with_codes = [name for name in manifest.sets_with("semantic_ids") if name in facts_of]
    coded = [name for name in with_codes if codebooks_path(name) in listed]
    if coded:
        seen.append(f"{folder}: semantic IDs of {', '.join(coded)} are kept")
    elif with_codes:
        seen.append(f"{folder}: no codebooks of {', '.join(with_codes)}, so codes are learned anew")

    shaping = _read_shaping(release)
    return Spaces(encoders, combined, coded, shaping, str(folder), seen)


def _declare_encoder(folder: Path, facts: Facts) -> dict[str, Any]:
    """Return what section `encoders` declares, nothing for a kind with its default settings."""
    is_fitted = facts.weights is not None or facts.parts
    if is_fitted or facts.network not in ENCODERS:
        return {"kind": RELEASED_KIND, "model": str(folder), "encoder": facts.encoder}

    defaults = ENCODERS[facts.network].params().model_dump(mode="json")
    declared = {key: value for key, value in facts.settings.items() if defaults.get(key) != value}
    if facts.network != facts.encoder:
        declared = {"kind": facts.network, **declared}
    return declared


def _read_shaping(release: Release) -> dict[str, dict[str, Any]]:
    sections = {}
    for name, (kind, keys) in SHAPING.items():
        maker = release.manifest.made_by.get(name)
        recorded = {} if maker is None else maker.params
        given = {key: recorded[key] for key in keys if key in recorded}
        validate(kind, given, f"{release.folder}: {name}")
        defaults = kind()
        sections[name] = {
            key: value for key, value in given.items() if value != getattr(defaults, key)
        }
    return sections
