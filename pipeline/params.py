"""The whole of params.yaml: the sections, and the settings of each model, encoder and source by its own class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, SerializeAsAny, field_validator

from pipeline.config import (
    Benchmark,
    Download,
    Encode,
    Graph,
    Images,
    Interactions,
    Items,
    Pretrain,
    Probe,
    Publish,
    Range,
    Report,
    Section,
    SemanticIds,
    Study,
    Sweep,
    Train,
    document,
)
from pipeline.config.base import Name, checked, known, nearest
from pipeline.config.judging import RATES, SPACES
from pipeline.config.study import part
from pipeline.config.train import FEATURES
from pipeline.errors import UserError, one_line
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.features import registry as encoders
from pipeline.models import MODELS
from pipeline.semantic_ids.registry import METHODS
from pipeline.sources import registry as sources
from pipeline.sources.base import Downloaded, Source
from pipeline.sources.image_features import FEATURE

if TYPE_CHECKING:
    from pipeline.models.alignrec import AlignRecParams

TEXT = "minilm"
"""the text encoder that imported image features are concatenated with"""
RELEASED = "alignrec"
"""the recommender that is trained for the release, and that ablations are of"""


class Params(Section):
    """The whole of params.yaml."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """what `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    download: Download = Download()
    interactions: Interactions = Interactions()
    items: Items = Items()
    images: Images = Images()
    pretrain: Pretrain = Pretrain()
    encode: Encode = Encode()
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> its kind, a name in pipeline/encode/registry.py or pipeline/features/registry.py, and that kind's keys"""
    graph: Graph = Graph()
    semantic_ids: SemanticIds = SemanticIds()
    train_section: Annotated[dict[str, Any], Field(alias="train")] = {}
    """section `train` as it stands in the file; `train` has it with defaults"""
    probe: Probe = Probe()
    benchmark: Benchmark = Benchmark()
    study: Study = Study()
    sweep: Sweep = Sweep()
    report: Report = Report()
    publish: Publish = Publish()

    @field_validator("sources", mode="before")
    @classmethod
    def _declared(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {name: sources.declared(source, f"sources.{name}") for name, source in raw.items()}

    def source(self, dataset: str) -> Source:
        """Return where `dataset` comes from; an unknown name raises UserError with the nearest known one."""
        if dataset not in self.sources:
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{nearest(dataset, self.sources)}"
            )
        return self.sources[dataset]

    @property
    def train(self) -> AlignRecParams:
        """AlignRec's settings: section `train` with defaults; UserError names a key or value that it refuses."""
        return cast("AlignRecParams", checked(MODELS[RELEASED].Params, self.train_section, "train"))

    @property
    def trained_on(self) -> str:
        """The feature set that the released recommender is trained on; known without loading torch."""
        return str(self.train_section.get("features", FEATURES))

    def released(self, ablation: str = "") -> AlignRecParams:
        """Return AlignRec's settings in the benchmark, see `settings`."""
        return cast("AlignRecParams", self.settings(RELEASED, ablation))

    def feature_sets(self, dataset: str) -> list[str]:
        """Return the feature sets that `encode` makes of a dataset: encoded, imported, controls."""
        source = self.source(dataset)
        files = source.files() if isinstance(source, Downloaded) else {}
        imported = [role.removeprefix(FEATURE) for role in files if role.startswith(FEATURE)]
        beside_text = [f"{TEXT}-{name}" for name in imported if TEXT in self.encode.encoders]
        return [*self.encode.encoders, *imported, *beside_text, *self.encode.controls]

    def fits(self, items: int) -> None:
        """Raise UserError if a cutoff is larger than the catalogue of so many items."""
        if (largest := max(self.benchmark.ks)) > items:
            raise UserError(
                f"'benchmark.ks': {largest} is larger than the catalogue, of which {items:,} items are left; "
                "give smaller ones, or lower interactions.item_core"
            )

    def fits_cold(self, valid: int, test: int) -> None:
        """Raise UserError if so few items are the candidates of valid and of test that figures would say nothing."""
        chosen_at = max(CUTOFF, *self.benchmark.ks)
        if min(valid, test) <= chosen_at:
            raise UserError(
                f"'interactions.cold_share': {valid:,} items are cold in valid and {test:,} in test, and the largest "
                f"cutoff is {chosen_at}; raise it, give smaller 'benchmark.ks' or more data"
            )

    def settings(self, model: str, ablation: str = "") -> Train:
        """Return a model's settings in the benchmark.

        They are the model's own defaults, overridden by its keys in `train`, by `benchmark.overrides` and by the
        ablation. Other keys of `train` are AlignRec's.

        Raises:
            UserError: an override or the ablation has a key that the model does not read, or a value that it refuses.
        """
        kind, benchmark = MODELS[model].Params, self.benchmark
        shared = {key: value for key, value in _explicit(self.train).items() if key in kind.model_fields}
        own = _explicit(checked(kind, benchmark.overrides.get(model, {}), f"benchmark.overrides.{model}"))
        changed = benchmark.ablations[ablation] if ablation else {}
        changed = _explicit(checked(kind, changed, f"benchmark.ablations.{ablation}"))
        return kind.model_validate(shared | own | changed)

    def arm(self, name: str, number: int = 0) -> Params:
        """Return the parameters of one encoder of an arm of pre-training.

        Args:
            name: of `study.arms`, or `recipe`, which is these parameters.
            number: of the encoder, from 0, by which the seed moves on.

        Raises:
            UserError: the arm has a key that `pretrain` has not, or a value that it refuses.
        """
        given = self.pretrain.model_dump(exclude_unset=True) | self.study.arms.get(name, {})
        section = checked(Pretrain, given, f"study.arms.{name}")
        if number:
            section = section.model_copy(update={"seed": section.seed + number})
        return self.model_copy(update={"pretrain": section})

    def at(self, setting: Mapping[str, int | float], where: str) -> Params:
        """Return the parameters at one setting of a sweep; whether AlignRec accepts it, `settings` says.

        Args:
            setting: dotted key -> value.
            where: path of the sweep.

        Raises:
            UserError: `graph` or `pretrain` has no such key, or refuses the value.
        """
        changed = {}
        for name, kind in (("graph", Graph), ("pretrain", Pretrain)):
            given = getattr(self, name).model_dump(exclude_unset=True) | part(setting, name)
            changed[name] = checked(kind, given, f"{where}.{name}")
        return self.model_copy(update=changed).changed(RELEASED, part(setting, "train"))

    def pretrained(self) -> list[Params]:
        """Return parameters of every encoder that the study compares, each once; these come first."""
        arms = [self.arm(name) for name in self.study.arms]
        swept = [self.at(s, f"study.sweeps.{name}") for name in self.study.sweeps for s in self.study.settings(name)]
        encoders: list[Params] = []
        for one in (self, *arms, *swept):
            if one.pretrain not in [other.pretrain for other in encoders]:
                encoders.append(one)
        return encoders

    def ranges(self, model: str) -> dict[str, Range]:
        """Return the ranges of a model's search: of `sweep.spaces`, else its own, else lr and l2 if it reads them."""
        reads = MODELS[model].Params.model_fields
        rates = {key: values for key, values in RATES.items() if key in reads}
        return (SPACES | self.sweep.spaces).get(model, rates)

    def changed(self, model: str, setting: Mapping[str, Any]) -> Params:
        """Return the parameters with some of a model's keys changed in the benchmark, see `settings`."""
        overrides = self.benchmark.overrides
        overrides = overrides | {model: overrides.get(model, {}) | dict(setting)}
        return self.model_copy(update={"benchmark": self.benchmark.model_copy(update={"overrides": overrides})})


def read(path: Path) -> Params:
    """Read a parameter file without loading torch: settings of single models and encoders are not checked.

    Raises:
        UserError: the file is absent or no YAML mapping, has a fault, or names an unknown model or encoder.
    """
    raw = document.read(path)
    try:
        params = checked(Params, raw)
        _names(params)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None
    return params


def check(params: Params, path: Path) -> None:
    """Check the settings of every model and encoder that the parameters name; loads torch.

    Raises:
        UserError: one has a fault; one line, which begins with `path`.
    """
    try:
        for model in dict.fromkeys([RELEASED, *params.benchmark.models, *params.benchmark.overrides]):
            params.settings(model)
        for ablation in params.benchmark.ablations:
            params.settings(RELEASED, ablation)
        _spaces(params)
        for encoder in dict.fromkeys([*params.encode.encoders, *params.encoders]):
            encoders.settings(params.encoders, encoder)
        for method in dict.fromkeys([*params.semantic_ids.methods, *params.semantic_ids.settings]):
            own = params.semantic_ids.settings.get(method, {})
            checked(METHODS[method].Params, own, f"semantic_ids.settings.{method}")
        if params.pretrain.taught:
            encoders.check_teacher(params.encoders, params.pretrain.teacher)
        _studied(params)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def _studied(params: Params) -> None:
    """Refuse teachers of arms that have no feature map, and settings of sweeps that AlignRec does not accept."""
    for arm in params.study.arms:
        if (own := params.arm(arm).pretrain).taught:
            encoders.check_teacher(params.encoders, own.teacher, f"study.arms.{arm}")
    for sweep in params.study.sweeps:
        for setting in params.study.settings(sweep):
            checked(MODELS[RELEASED].Params, part(setting, "train"), f"study.sweeps.{sweep}.train")


def _spaces(params: Params) -> None:
    """Refuse a range whose key the model does not read, or whose ends it refuses."""
    for model, ranges in params.sweep.spaces.items():
        for end in ("low", "high"):
            kind, values = MODELS[model].Params, {name: getattr(values, end) for name, values in ranges.items()}
            checked(kind, values, f"sweep.spaces.{model}")


def load(path: Path) -> Params:
    """Do as `read`, then as `check`."""
    params = read(path)
    check(params, path)
    return params


def _made(params: Params) -> None:
    """Refuse feature sets that the parameters name and that `encode` does not make."""
    benchmark, publish = params.benchmark, params.publish
    named = {"train.features": [params.trained_on] if "features" in params.train_section else []}
    named["semantic_ids.features"] = params.semantic_ids.features
    named["benchmark.features"] = benchmark.features if "features" in benchmark.model_fields_set else []
    for ablation, changed in benchmark.ablations.items():
        named[f"benchmark.ablations.{ablation}.features"] = [str(changed["features"])] if "features" in changed else []
    for dataset in params.datasets:
        for where, names in named.items():
            known(names, params.feature_sets(dataset), where)
    known(publish.semantic_ids or [], METHODS, "publish.semantic_ids")
    if "features" in publish.model_fields_set:  # a release has those of them that its dataset has
        known(publish.features, {n: 0 for d in params.datasets for n in params.feature_sets(d)}, "publish.features")


def _names(params: Params) -> None:
    for dataset in params.datasets:
        params.source(dataset)
    controls = params.encode.controls
    made = dict.fromkeys(name for dataset in params.sources for name in params.feature_sets(dataset))
    encoders.check_names(params.encoders, params.encode.encoders, [name for name in made if name not in controls])
    encoders.check_teachers(params.encoders, params.pretrain.teacher, params.pretrain.distill_from)
    known(params.semantic_ids.methods, METHODS, "semantic_ids.methods")
    known(params.semantic_ids.settings, METHODS, "semantic_ids.settings")
    known(params.study.generative.features, params.semantic_ids.features, "study.generative.features")
    known(params.study.generative.methods, params.semantic_ids.methods, "study.generative.methods")
    known(params.benchmark.models, MODELS, "benchmark.models")
    known(params.benchmark.overrides, MODELS, "benchmark.overrides")
    if params.benchmark.control is not None:
        known([params.benchmark.control], params.benchmark.features, "benchmark.control")
    known(params.sweep.spaces, MODELS, "sweep.spaces")
    _made(params)
    _arms(params)


def _arms(params: Params) -> None:
    """Refuse arms and sweeps that name keys or teachers which there are not, or an encoder that nothing reads."""
    for arm in params.study.arms:
        own = params.arm(arm).pretrain
        encoders.check_teachers(params.encoders, own.teacher, own.distill_from, f"study.arms.{arm}")
    for sweep in params.study.sweeps:
        for setting in params.study.settings(sweep):
            params.at(setting, f"study.sweeps.{sweep}")
        if any(key.startswith("pretrain.") for key in params.study.sweeps[sweep]):
            _reads(params, params.trained_on, f"study.sweeps.{sweep}", "train.features")
    if params.study.arms:
        _reads(params, "beit3", "study.arms", "encode.encoders")


def _reads(params: Params, features: str, where: str, named: str) -> None:
    """Refuse what trains encoders where a feature set is not made by one, or not at all."""
    if features not in params.encode.encoders or not encoders.kind(params.encoders, features).startswith("beit3"):
        raise UserError(f"'{where}': it trains encoders, and '{features}' reads none; name beit3 under {named}")


def _explicit(section: Section) -> dict[str, Any]:
    """Return the keys that are set, not left to defaults; those of a recipe count as set."""
    return section.model_dump(exclude_unset=True)
