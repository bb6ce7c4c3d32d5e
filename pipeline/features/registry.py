"""Registry of feature sets: a kind of node is a file with a Node, and an entry here.

A name in `encode.encoders` refers to section `encoders` of the parameters: a kind and its settings. A kind is an
encoder (pipeline/encode/registry.py) or one of FEATURES, which derive from other feature sets. A name that is a kind
itself needs no entry there, or one without `kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pipeline.config.base import Section, checked, known, nearest
from pipeline.config.parameters import Parameters
from pipeline.encode.origin import Pretrained, release
from pipeline.encode.params import MODALITIES, Encode, variant
from pipeline.encode.registry import ENCODERS, OURS
from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.sources.base import Downloaded
from pipeline.sources.feature_files import FEATURE

if TYPE_CHECKING:
    from pipeline.features.node import Node

PLANTED, MAPPED = "planted", "mapped"
CEILINGS = (PLANTED, *(variant(PLANTED, modality) for modality in MODALITIES))  # only for generated catalogues
Encoders = Mapping[str, Mapping[str, Any]]  # section `encoders`: name -> `kind` and the keys of that kind
FEATURES: Registry[type[Node]] = Registry(  # kinds that derive from other sets
    "features",
    {
        "concat": "pipeline.features.linear:Joined",
        "whitened": "pipeline.features.linear:Whitened",
        "linear": "pipeline.features.linear:Linear",
        MAPPED: "pipeline.features.mapped:Mapped",
        "masked": "pipeline.features.masked:Masked",
        PLANTED: "pipeline.features.control:Planted",
    },
)
TEXT = "minilm"  # text encoder that imported image features are concatenated with
NOT_TRAINED = ("-untrained", "-official")  # suffixes of kinds that read a network before it is trained here
LINEAR = "linear"  # made of all encoders that are not trained here, by default


def kinds() -> list[str]:
    """Return all kinds that section `encoders` may name."""
    return [*ENCODERS, *FEATURES]


def home(kind: str) -> Registry[Any]:
    return FEATURES if kind in FEATURES else ENCODERS


def definition(encoders: Encoders, name: str) -> Mapping[str, Any]:
    """Return the entry of a name; `<set>-image-masked` and `<set>-text-masked` need none."""
    if name in encoders or name in kinds():
        return encoders.get(name, {})
    masked = next((modality for modality in MODALITIES if name.endswith(variant("", modality))), None)
    return {"kind": "masked", "of": name.removesuffix(variant("", masked)), "modality": masked} if masked else {}


def defined(encoders: Encoders, name: str) -> bool:
    """Return whether a name has a kind; otherwise it may be that of an imported set."""
    return kind(encoders, name) in kinds()


def kind(encoders: Encoders, name: str) -> str:
    return str(definition(encoders, name).get("kind", name))


def settings(encoders: Encoders, name: str) -> Section:
    """Return the settings of a name; UserError for a key or value that its kind refuses."""
    which = kind(encoders, name)
    entry = ENCODERS.get(which)
    params, owner = (entry.params, entry.variant_of or name) if entry else (FEATURES[which].Params, name)
    if owner != name and encoders.get(name, {}).keys() - {"kind"}:
        raise UserError(f"'encoders.{name}': it takes the settings of {owner}; give them there")
    given = {key: value for key, value in definition(encoders, owner).items() if key != "kind"}
    return checked(params, given, f"encoders.{owner}")


def parts(encoders: Encoders, name: str) -> list[str]:
    """Return the parts of a feature set, in order; none for an encoder. Loading the kind checks the type of `of`."""
    if kind(encoders, name) not in FEATURES:
        return []
    of = definition(encoders, name).get("of", [])
    return [str(part) for part in (of if isinstance(of, list) else [of])]


def whole(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return names with all their parts, as `ordered`, without imported sets."""
    return ordered(names, lambda name: [part for part in parts(encoders, name) if defined(encoders, part)])


def ordered(names: Iterable[str], parts: Callable[[str], list[str]]) -> list[str]:
    """Return names with all their parts, each once, parts first."""
    out: list[str] = []
    for name in names:
        out += [one for one in (*ordered(parts(name), parts), name) if one not in out]
    return out


def networks(encoders: Encoders, names: Iterable[str]) -> list[str]:
    return [name for name in names if kind(encoders, name) in ENCODERS]


def gathering(encoders: Encoders, made: Sequence[str]) -> Encoders:
    """Return the section with default parts of `linear`; `made` are a dataset's sets without controls."""
    of = at_hand(encoders, made)
    left_open = [name for name in made if kind(encoders, name) == LINEAR and not parts(encoders, name)]
    return {**encoders, **{name: {**encoders.get(name, {}), "of": of} for name in left_open if of}}


def at_hand(encoders: Encoders, made: Sequence[str]) -> list[str]:
    """Return the sets of pre-trained encoders, words or the source, without concatenations of two others."""
    given = [name for name in made if kind(encoders, name) in ENCODERS or not defined(encoders, name)]
    own = [name for name in given if kind(encoders, name).split("-")[0] != OURS]
    return [name for name in own if "-" not in name or not set(name.split("-")) <= set(own)]


def is_control(encoders: Encoders, name: str) -> bool:
    """Return whether a set only measures others: raw, not trained here, or planted."""
    return is_ceiling(encoders, name) or kind(encoders, name).endswith(("-raw", *NOT_TRAINED))


def is_ceiling(encoders: Encoders, name: str) -> bool:
    """Return whether a set is what the generator of a catalogue planted, whole or with a modality masked."""
    return any(kind(encoders, one) == PLANTED for one in whole(encoders, [name]))


def is_partial(encoders: Encoders, name: str) -> bool:
    """Return whether a set is a control, or another with a modality masked."""
    masked = any(kind(encoders, name).endswith(variant("", modality)) for modality in MODALITIES)
    return masked or kind(encoders, name) == "masked" or is_control(encoders, name)


def check_names(encoders: Encoders, listed: Sequence[str], imported: Sequence[str] = ()) -> None:
    """Raise UserError for unknown kinds and names, circles, and parts that are not written."""
    for name, given in encoders.items():
        if "kind" not in given and name not in kinds():
            raise UserError(f"'encoders.{name}.kind' is required{nearest(name, kinds())}")
        known([kind(encoders, name)], kinds(), f"encoders.{name}.kind")
        if name in kinds() and kind(encoders, name) != name:
            raise UserError(f"'encoders.{name}.kind': '{name}' is a kind itself; choose another name")
    names = _names(encoders)
    masked = {variant(name, modality): name for name in names for modality in MODALITIES}
    known(listed, [*names, *masked], "encode.encoders")
    for i, name in enumerate(listed):
        if name not in names and masked[name] not in listed:
            raise UserError(f"'encode.encoders': '{name}' is made of '{masked[name]}'; list it there too")
        if name in listed[:i]:
            raise UserError(f"'encode.encoders': '{name}' is listed twice; list it once")
    for name in encoders:
        _check_parts(encoders, name, names, [*listed, *imported], [])


def check_teachers(encoders: Encoders, distill_from: Sequence[str], where: str = "pretrain") -> None:
    """Raise UserError for teachers of pre-training that do not exist, or that pre-training itself makes."""
    names = _names(encoders)
    known(distill_from, names, f"{where}.distill_from")
    for name in whole(encoders, distill_from):
        if kind(encoders, name).startswith(OURS):
            raise UserError(f"'{where}.distill_from': '{name}' is what is trained; name an encoder that exists before")
        if _stored(encoders, name):
            raise UserError(f"'{where}.distill_from': '{name}' is made after pre-training; name what it is of")


def _check_parts(encoders: Encoders, name: str, names: list[str], made: list[str], outer: list[str]) -> None:
    """Refuse circles, unknown parts, and for kinds that read stored parts those that `encode` does not write.

    Args:
        names: all sets that the parameters define.
        made: those that `encode` writes or imports.
        outer: sets that `name` is a part of.
    """
    where, of, stored = f"encoders.{name}.of", parts(encoders, name), _stored(encoders, name)
    if name in outer:
        raise UserError(f"'{where}': it is a part of itself, by {' -> '.join([*outer, name])}")
    for part in of:
        _check_parts(encoders, part, names, made, [*outer, name])
        if kind(encoders, part) == PLANTED and kind(encoders, name) != "masked":
            raise UserError(f"'{where}': '{part}' is what the generator knows, and no feature; leave it out")
        if stored and part in names and part not in made:
            raise UserError(f"'{where}': '{part}' is not under encode.encoders; list it there too")
    known(of, made if stored else names, where)


def _names(encoders: Encoders) -> list[str]:
    return [*encoders, *(name for name in kinds() if name not in encoders)]


def _stored(encoders: Encoders, name: str) -> bool:
    which = kind(encoders, name)
    return which in FEATURES and FEATURES[which].stored


def feature_sets(params: Parameters, dataset: str) -> list[str]:
    return [*params[Encode].encoders, *imported(params, dataset), *params[Encode].controls]


def imported(params: Parameters, dataset: str) -> list[str]:
    """Return the feature sets of a dataset's source, and their concatenations with MiniLM."""
    source = params.source(dataset)
    files = source.files() if isinstance(source, Downloaded) else {}
    names = [role.removeprefix(FEATURE) for role in files if role.startswith(FEATURE)]
    return [*names, *(f"{TEXT}-{name}" for name in names if TEXT in params[Encode].encoders)]


class Ingredients(NamedTuple):
    """Inputs of encoders' rows besides the items, for the key of work that resumes."""

    files: list[Path]  # of third-party models in folders here, and source files of other packages' kinds
    facts: list[Any]  # settings, and packages with their releases, JSON
    modules: list[str]  # whose code the rows depend on


def ingredients(encoders: Encoders, names: Sequence[str]) -> Ingredients:
    kinds = list(dict.fromkeys(kind(encoders, name) for name in names))
    foreign = [name for name in networks(encoders, names) if ENCODERS[kind(encoders, name)].origin]
    files = [path for name in foreign for path in cast(Pretrained, settings(encoders, name)).files()]
    given = {n: [kind(encoders, n), settings(encoders, n).model_dump(mode="json")] for n in names}
    files += [path for one in kinds for path in home(one).source_files(one)]
    return Ingredients(files, [given, libraries(encoders, names)], [home(one).module(one) for one in kinds])


def libraries(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return the packages that load encoders or bring their weights, with their releases."""
    specs = [ENCODERS[kind(encoders, name)] for name in networks(encoders, names)]
    return [release(package) for package in sorted({p for s in specs for p in (s.library, *s.packages)} - {""})]


def learns(encoders: Encoders, name: str) -> bool:
    """Return whether a set or a part of it is fitted to train interactions."""
    return any(kind(encoders, one) == MAPPED for one in whole(encoders, [name]))


def relearns(encoders: Encoders, name: str) -> bool:
    """Return whether a set that learns can be fitted again without the interactions of some items: no part learned."""
    return kind(encoders, name) == MAPPED and not any(learns(encoders, part) for part in parts(encoders, name))


def reads_pretrained(encoders: Encoders, names: Iterable[str]) -> bool:
    """Return whether a feature set or a part of it reads the output of `pretrain`; a plugin's kind declares it."""
    which = [kind(encoders, name) for name in whole(encoders, names)]
    plugins = [one for one in which if one in ENCODERS and one not in ENCODERS.built_in]
    return any(ENCODERS[one].pretrained if one in plugins else one.startswith(OURS) for one in which)
