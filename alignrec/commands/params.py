"""Read and validate parameter files, and complete them for a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import create_model, field_validator

from alignrec.pipeline.beit3.params import BEiT3Sets, refuse_encoder_names
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import check_encoders, settings_of
from alignrec.pipeline.evaluation.benchmark.params import SPACES, Benchmark, Search, Study
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, sweep_params
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.features import names
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.features.params import Combine, SemanticIds
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.params import DEFAULT_FEATURE_SET
from alignrec.pipeline.models.settings import params_of
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import Section, require_known, validate
from alignrec.pipeline.runtime.yaml_files import read_extended
from alignrec.pipeline.sources.base import SOURCES, Downloaded, declared_source
from alignrec.stages.checks import check_settings
from alignrec.stages.order import IN_ORDER

if TYPE_CHECKING:
    from alignrec.pipeline.release.read import Release

SECTIONS: dict[str, type[Section]] = {stage.name: stage.params for stage in IN_ORDER} | {
    "search": Search
}
RECORDED = ("interactions", "graph", "train", "benchmark")  # sections that a release records


class _Declared(Parameters):
    @field_validator("sources", mode="before")
    @classmethod
    def _check_kinds(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {name: declared_source(source, f"sources.{name}") for name, source in raw.items()}


Params: type[Parameters] = create_model(
    "Params", __base__=_Declared, **{name: (kind, kind()) for name, kind in SECTIONS.items()}
)  # type: ignore[call-overload]


# in place of the keys of a file without any
NO_DATASET = {"datasets": ["items"], "sources": {"items": {"kind": "sample"}}}


def read(path: Path, dataset: str = "") -> Parameters:
    """Read a parameter file, completed for `dataset` if given; settings of models and encoders are
    left to `check`.
    """
    return parse(read_extended(path), path, dataset)


def read_encoders(path: Path) -> Parameters:
    """Read a parameter file, which may declare encoders only: new items belong to no dataset."""
    raw = read_extended(path)
    if isinstance(raw, dict) and raw.keys().isdisjoint(NO_DATASET):
        raw = NO_DATASET | raw
    return parse(raw, path)


def parse(raw: Any, path: Path, dataset: str = "") -> Parameters:
    try:
        params = validate(Params, raw)
        _check_names(params)
        return for_dataset(params, dataset) if dataset else params
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def for_dataset(params: Parameters, dataset: str) -> Parameters:
    """Return the parameters, with defaults for feature sets that the file does not set."""
    if not has_content(params, dataset):
        params = _without_encoded_sets(params, dataset)

    defaults = _default_features(params, dataset)
    completed = []
    for kind, features in defaults.items():
        section = params[kind]
        if "features" not in section.model_fields_set:
            completed.append(section.model_copy(update={"features": features}))

    return params.with_sections(*completed)


def _without_encoded_sets(params: Parameters, dataset: str) -> Parameters:
    encode = params[Encode].model_copy(update={"encoders": []})
    beit3 = params[BEiT3Sets].model_copy(update={"sets": []})
    params = params.with_sections(encode, beit3)

    # the default sets are made of encoders' vectors
    combine = params[Combine]
    sets: dict[str, dict[str, Any]] = {}
    if "sets" in combine.model_fields_set:
        sets = DeclaredSets(params, dataset).made_of_imported()
    return params.with_sections(combine.model_copy(update={"sets": sets}))


def _default_features(params: Parameters, dataset: str) -> dict[type[Any], Any]:
    """Return the sets to train on, to quantise, to benchmark and to release, by section."""
    combine = params[Combine]
    declared = DeclaredSets(params, dataset)
    candidates = declared.without_controls()
    content = [name for name in candidates if not names.is_partial(combine.sets, name)]
    trained = _choose_trained(params, candidates, content)

    is_partial = trained in candidates and trained not in content
    judged = [trained, *content] if is_partial else content

    # third-party files are released only if named explicitly
    others = [*declared.imported, *declared.with_text]
    ours = [trained, *(name for name in candidates if not names.is_control(name))]
    released = [name for name in dict.fromkeys(ours) if name not in others]

    return {
        TrainSettings: trained,
        SemanticIds: [trained] if judged else [],
        Benchmark: [*judged, *combine.controls],
        Publish: released,
    }


def _choose_trained(params: Parameters, candidates: list[str], content: list[str]) -> str:
    """Return the set to train on: the file's, even a control, or the first of the
    preferred ones.
    """
    train = params[TrainSettings]
    if "features" in train.model_fields_set and train.features in candidates:
        return train.features

    preferred = [name for name in (DEFAULT_FEATURE_SET, names.LINEAR) if name in content]
    by_preference = [*preferred, *content, *candidates, *params[Combine].controls]
    return by_preference[0] if by_preference else DEFAULT_FEATURE_SET


def has_content(params: Parameters, dataset: str) -> bool:
    """Return whether there is something to encode: a file of items, or images named after them."""
    source = params.source(dataset)
    if not isinstance(source, Downloaded):
        return True
    return "metadata" in source.files() or bool(params[Images].pattern)


def of_release(release: Release, path: Path) -> Parameters:
    """Return the parameters of the file if it exists, otherwise those recorded in the release."""
    manifest = release.manifest
    if manifest.kind not in SOURCES:
        raise UserError(
            f"{release.folder}: source '{manifest.kind}' is unknown here; install the package "
            "that has it"
        )
    source = SOURCES[manifest.kind]
    # not validated: a release has no raw files
    declared = {manifest.dataset: source.model_construct(kind=manifest.kind)}
    # the parameter file of a project takes precedence over the release
    if path.exists():
        return read(path).model_copy(update={"sources": declared, "datasets": [manifest.dataset]})

    recorded: dict[str, dict[str, Any]] = {}
    for name in RECORDED:
        if name not in manifest.made_by:
            continue
        fields = SECTIONS[name].model_fields  # others are keys of older versions
        params = manifest.made_by[name].params
        recorded[name] = {key: value for key, value in params.items() if key in fields}

    try:
        return validate(Params, {"datasets": [manifest.dataset], "sources": declared, **recorded})
    except UserError as e:
        raise UserError(
            f"{release.folder}: its parameters are not this alignrec's: {e}; "
            "pass a file by --params"
        ) from None


def check(params: Parameters, path: Path, dataset: str = "") -> None:
    """Raise UserError for settings that no dataset, or `dataset` if given, can be built with."""
    try:
        for name in [dataset] if dataset else params.datasets:
            check_settings(for_dataset(params, name), name)

        # what loads torch comes last
        params[TrainSettings].resolved()
        for encoder in dict.fromkeys([*params.encoders, *params[Encode].encoders]):
            settings_of(params.encoders, encoder)
        _check_models(params)
        _check_spaces(params)
        _check_sweeps(params)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def _check_models(params: Parameters) -> None:
    benchmark = params[Benchmark]
    for model in dict.fromkeys([RELEASED, *benchmark.models, *benchmark.overrides]):
        model_settings(params, model)
    for ablation in benchmark.ablations:
        model_settings(params, RELEASED, ablation)


def _check_spaces(params: Parameters) -> None:
    for model, ranges in params[Search].spaces.items():
        # default ranges are not checked, as some of their corners are invalid
        if ranges == SPACES.get(model):
            continue
        for end in ("low", "high"):
            values = {name: getattr(space, end) for name, space in ranges.items()}
            validate(params_of(model), values, f"search.spaces.{model}")


def _check_sweeps(params: Parameters) -> None:
    study = params[Study]
    for sweep in study.sweeps:
        for setting in study.settings(sweep):
            sweep_params(params, setting, f"study.sweeps.{sweep}")


def load(path: Path, dataset: str = "") -> Parameters:
    params = read(path, dataset)
    check(params, path, dataset)
    return params


def _check_names(params: Parameters) -> None:
    for dataset in params.datasets:
        params.source(dataset)
    refuse_encoder_names(params.encoders, params[Encode].encoders)
    check_encoders(params.encoders, params[Encode].encoders)
    sets: dict[str, list[str]] = {}
    for dataset in params.sources:
        declared = DeclaredSets(params, dataset)
        declared.check()
        sets[dataset] = declared.names()

    benchmark = params[Benchmark]
    require_known(benchmark.models, MODELS, "benchmark.models")
    require_known(benchmark.overrides, MODELS, "benchmark.overrides")
    require_known(params[Search].spaces, MODELS, "search.spaces")
    _check_features(params, sets)


def _check_features(params: Parameters, sets: Mapping[str, list[str]]) -> None:
    """Check the feature sets that sections name, by the key that names them; `sets` are those of
    each source.
    """
    benchmark = params[Benchmark]
    judged = _given_features(benchmark)
    features_by_key = {
        "train.features": _given_features(params[TrainSettings]),
        "semantic_ids.features": params[SemanticIds].features,
        "benchmark.features": judged,
        "probe.features": params[ProbeParams].features or [],
    }
    for ablation, changed in benchmark.ablations.items():
        if "features" in changed:
            features_by_key[f"benchmark.ablations.{ablation}.features"] = [str(changed["features"])]
    for dataset in params.datasets:
        for key, features in features_by_key.items():
            require_known(features, sets[dataset], key)

    if benchmark.control is not None:
        known = judged or list(dict.fromkeys(chain(*sets.values())))
        require_known([benchmark.control], known, "benchmark.control")
    # a release includes those sets that its dataset has
    everywhere = dict.fromkeys(name for dataset in params.datasets for name in sets[dataset])
    require_known(_given_features(params[Publish]), everywhere, "publish.features")


def _given_features(section: Any) -> list[str]:
    """Return the feature sets that a section of the file names; none if it has the default."""
    if "features" not in section.model_fields_set:
        return []
    features: str | list[str] = section.features
    return [features] if isinstance(features, str) else features
