"""Read and validate parameter files, and complete them for a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import create_model, field_validator

from alignrec.pipeline.beit3.params import BEiT3Sets, refuse_encoder_names
from alignrec.pipeline.benchmark.params import SPACES, Benchmark, Search, Study
from alignrec.pipeline.benchmark.settings import model_settings, sweep_params
from alignrec.pipeline.checks.settings import check_settings
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import check_encoders, settings_of
from alignrec.pipeline.features import names
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.features.params import Combine, SemanticIds
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.params import FEATURES
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import Section, require_known, validate
from alignrec.pipeline.runtime.yaml_files import read_extended
from alignrec.pipeline.sources.base import SOURCES, Downloaded, Generated, declared_source
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


def read(path: Path, dataset: str = "") -> Parameters:
    """Read a parameter file, completed for `dataset` if given; settings of models and encoders are left to `check`."""
    return parse(read_extended(path), path, dataset)


def parse(raw: Any, path: Path, dataset: str = "") -> Parameters:
    try:
        params = validate(Params, raw)
        _check_names(params)
        return for_dataset(params, dataset) if dataset else params
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def for_dataset(params: Parameters, dataset: str) -> Parameters:
    """Return the parameters, with defaults for feature sets that the file does not set."""
    source, encode, ours, combine = (
        params.source(dataset),
        params[Encode],
        params[BEiT3Sets],
        params[Combine],
    )
    if not has_content(params, dataset):
        encode = encode.model_copy(update={"encoders": []})
        ours = ours.model_copy(update={"sets": []})
        ready: dict[str, dict[str, Any]] = {}
        if "sets" in combine.model_fields_set:  # the default sets are made of encoders' vectors
            ready = DeclaredSets(params.with_sections(encode, ours), dataset).made_of_imported()
        combine = combine.model_copy(update={"sets": ready})
    declared = DeclaredSets(params.with_sections(encode, ours, combine), dataset)
    if not isinstance(source, Generated):
        sets = {
            name: given for name, given in combine.sets.items() if not declared.is_generated(name)
        }
        combine = combine.model_copy(update={"sets": sets})
    params = params.with_sections(encode, ours, combine)
    declared = DeclaredSets(params, dataset)
    made = declared.without_controls()
    content = [name for name in made if not names.is_partial(combine.sets, name)]
    preferred = [name for name in (FEATURES, names.LINEAR) if name in content]
    trained = next(iter([*preferred, *content, *made, *combine.controls]), FEATURES)
    if (
        "features" in params[TrainSettings].model_fields_set
        and (named := params[TrainSettings].features) in made
    ):
        trained = named  # even a control
    judged = content if trained in content or trained not in made else [trained, *content]
    # third-party files are released only if named explicitly
    others = [*declared.imported, *declared.with_text]
    own = [
        name
        for name in made or [trained]
        if name not in others and not names.is_control(combine.sets, name)
    ]
    # defaults of `features`: the set to train on and to quantise, the sets to benchmark and to release
    chosen: dict[type[Any], Any] = {
        TrainSettings: trained,
        SemanticIds: [trained] if judged else [],
        Benchmark: [*judged, *combine.controls],
        Publish: [
            *([] if trained in others else [trained]),
            *(name for name in own if name != trained),
        ],
    }
    absent = [kind for kind in chosen if "features" not in params[kind].model_fields_set]
    return params.with_sections(
        *(params[kind].model_copy(update={"features": chosen[kind]}) for kind in absent)
    )


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
            f"{release.folder}: source '{manifest.kind}' is unknown here; install the package that has it"
        )
    source = SOURCES[manifest.kind]
    # not validated: a release has no raw files
    declared = {manifest.dataset: source.model_construct(kind=manifest.kind)}
    # the parameter file of a project takes precedence over the release
    if path.exists():
        return read(path).model_copy(update={"sources": declared, "datasets": [manifest.dataset]})
    recorded = {  # skip keys of older versions
        name: {
            key: value for key, value in made.params.items() if key in SECTIONS[name].model_fields
        }
        for name, made in manifest.made_by.items()
        if name in RECORDED
    }
    try:
        return validate(Params, {"datasets": [manifest.dataset], "sources": declared, **recorded})
    except UserError as e:
        why = f"its parameters are not this alignrec's: {e}"
        raise UserError(f"{release.folder}: {why}; pass a file by --params") from None


def check(params: Parameters, path: Path, dataset: str = "") -> None:
    """Raise UserError for settings that no dataset, or `dataset` if given, can be built with."""
    try:
        for name in [dataset] if dataset else params.datasets:
            check_settings(for_dataset(params, name), name)

        for model in dict.fromkeys(
            [RELEASED, *params[Benchmark].models, *params[Benchmark].overrides]
        ):
            model_settings(params, model)
        for ablation in params[Benchmark].ablations:
            model_settings(params, RELEASED, ablation)
        # default ranges are not checked, as some of their corners are invalid
        own = {
            model: ranges
            for model, ranges in params[Search].spaces.items()
            if ranges != SPACES.get(model)
        }
        for model, ranges in own.items():
            for end in ("low", "high"):
                values = {name: getattr(space, end) for name, space in ranges.items()}
                validate(MODELS[model].Params, values, f"search.spaces.{model}")
        for encoder in dict.fromkeys([*params[Encode].encoders, *params.encoders]):
            settings_of(params.encoders, encoder)
        for sweep in params[Study].sweeps:
            for setting in params[Study].settings(sweep):
                sweep_params(params, setting, f"study.sweeps.{sweep}")
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def load(path: Path, dataset: str = "") -> Parameters:
    params = read(path, dataset)
    check(params, path, dataset)
    return params


def _check_names(params: Parameters) -> None:
    for dataset in params.datasets:
        params.source(dataset)
    refuse_encoder_names(params.encoders, params[Encode].encoders)
    check_encoders(params.encoders, params[Encode].encoders)
    for dataset in params.sources:
        DeclaredSets(params, dataset).check()
    benchmark, publish = params[Benchmark], params[Publish]
    sets_of = {dataset: DeclaredSets(params, dataset).names() for dataset in params.sources}
    made = dict.fromkeys(name for sets in sets_of.values() for name in sets)
    require_known(benchmark.models, MODELS, "benchmark.models")
    require_known(benchmark.overrides, MODELS, "benchmark.overrides")
    require_known(params[Search].spaces, MODELS, "search.spaces")
    judged = benchmark.features if "features" in benchmark.model_fields_set else []
    if benchmark.control is not None:
        require_known([benchmark.control], judged or made, "benchmark.control")
    train = params[TrainSettings]
    named = {"train.features": [train.features] if "features" in train.model_fields_set else []}
    named |= {"semantic_ids.features": params[SemanticIds].features, "benchmark.features": judged}
    for ablation, changed in benchmark.ablations.items():
        named[f"benchmark.ablations.{ablation}.features"] = (
            [str(changed["features"])] if "features" in changed else []
        )
    for dataset in params.datasets:
        for where, wanted in named.items():
            require_known(wanted, sets_of[dataset], where)
    used = {where: wanted for where, wanted in named.items() if where != "benchmark.features"}
    for where, wanted in (used | {"publish.features": publish.features}).items():
        for name in wanted:
            names.refuse_ceiling(params[Combine].sets, name, where)
    if "features" in publish.model_fields_set:  # a release includes those sets that its dataset has
        everywhere = {name: 0 for dataset in params.datasets for name in sets_of[dataset]}
        require_known(publish.features, everywhere, "publish.features")
