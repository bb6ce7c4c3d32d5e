"""Content encoders: images and texts in, one vector an item out. A kind is a file with a Spec, and an entry here.

A name of `encode.encoders` stands for what section `encoders` of the parameters says: a kind and its settings. A name
that is a kind itself needs no entry there, or one without `kind`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config.base import Section, checked, known, nearest
from pipeline.encode.params import MODALITIES, variant
from pipeline.errors import UserError
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.encode.base import Spec

Encoders = Mapping[str, Mapping[str, Any]]
"""section `encoders`: name -> `kind` and the keys of that kind"""
CONCAT, WHITENED, MASKED = "concat", "whitened", "masked"
CLIP = "clip"
"""the kind that `encode` trains"""
OURS = "beit3"
"""how the kinds begin that read what `pretrain` makes"""
ENCODERS: Registry[Spec[Any]] = Registry(
    "encoders",
    {
        "beit3": "pipeline.encode.beit3:BEIT3",
        "beit3-raw": "pipeline.encode.beit3:RAW",
        "beit3-image-masked": "pipeline.encode.beit3:IMAGE_MASKED",
        "beit3-text-masked": "pipeline.encode.beit3:TEXT_MASKED",
        "beit3-untrained": "pipeline.encode.beit3_untrained:UNTRAINED",
        "minilm": "pipeline.encode.minilm:MINILM",
        "tfidf": "pipeline.encode.tfidf:TFIDF",
        "clip": "pipeline.encode.clip:CLIP",
        "clip-untrained": "pipeline.encode.clip:UNTRAINED",
        "cnn": "pipeline.encode.cnn:CNN_LITE",
        "minilm-cnn": "pipeline.encode.minilm_cnn:MINILM_CNN",
        "huggingface": "pipeline.encode.huggingface:HUGGINGFACE",
        "sentence-transformers": "pipeline.encode.sentence_transformers:SENTENCE_TRANSFORMERS",
        "open_clip": "pipeline.encode.open_clip:OPEN_CLIP",
        "timm": "pipeline.encode.timm:TIMM",
        CONCAT: "pipeline.encode.concat:CONCAT",
        WHITENED: "pipeline.encode.whitened:WHITENED",
        MASKED: "pipeline.encode.masked:MASKED",
    },
)
"""kind -> encoder"""


def definition(encoders: Encoders, name: str) -> Mapping[str, Any]:
    """Return what section `encoders` says of a name; `<set>-image-masked` and `<set>-text-masked` need no entry."""
    if name in encoders or name in ENCODERS:
        return encoders.get(name, {})
    masked = next((modality for modality in MODALITIES if name.endswith(variant("", modality))), None)
    return {"kind": MASKED, "of": name.removesuffix(variant("", masked)), "modality": masked} if masked else {}


def defined(encoders: Encoders, name: str) -> bool:
    """Return whether a name stands for an encoder; else it may be that of an imported set."""
    return kind(encoders, name) in ENCODERS


def kind(encoders: Encoders, name: str) -> str:
    """Return the kind of an encoder."""
    return str(definition(encoders, name).get("kind", name))


def spec(encoders: Encoders, name: str) -> Spec[Any]:
    """Return the kind of an encoder as the registry has it."""
    return ENCODERS[kind(encoders, name)]


def settings(encoders: Encoders, name: str) -> Section:
    """Return an encoder's own settings.

    Raises:
        UserError: a key that it does not read, a value that it refuses, or settings of a variant.
    """
    registered = spec(encoders, name)
    owner = registered.variant_of or name
    given = {key: value for key, value in definition(encoders, owner).items() if key != "kind"}
    if registered.variant_of and encoders.get(name, {}).keys() - {"kind"}:
        raise UserError(f"'encoders.{name}': it takes the settings of {owner}; give them there")
    return checked(registered.params, given, f"encoders.{owner}")


def parts(encoders: Encoders, name: str) -> list[str]:
    """Return the feature sets that another is made of, in order; none for an encoder with a network.

    An `of` of the wrong type is refused with its value when the kind is loaded.
    """
    of = definition(encoders, name).get("of")
    match kind(encoders, name):
        case "concat" if isinstance(of, list):
            return [str(part) for part in of]
        case "whitened" | "masked" if isinstance(of, str):
            return [of]
    return []


def whole(encoders: Encoders, names: Iterable[str]) -> list[str]:
    """Return encoders with all encoders that they are made of, each once, parts first."""
    ordered: list[str] = []
    for name in names:
        of = [part for part in parts(encoders, name) if defined(encoders, part)]  # the others are imported
        ordered += [one for one in (*whole(encoders, of), name) if one not in ordered]
    return ordered


def made_of(encoders: Encoders, name: str, others: Container[str]) -> bool:
    """Return whether a feature set is made of any of `others`, directly or by its parts."""
    return any(part in others or made_of(encoders, part, others) for part in parts(encoders, name))


def is_control(encoders: Encoders, name: str) -> bool:
    """Return whether a set shows what another would be without a step, so that nobody should use it: raw, untrained."""
    return kind(encoders, name).endswith(("-raw", "-untrained"))


def is_partial(encoders: Encoders, name: str) -> bool:
    """Return whether a set is no content of its own: such a control, or another with a modality masked."""
    masked = any(kind(encoders, name).endswith(variant("", modality)) for modality in MODALITIES)
    return masked or kind(encoders, name) == MASKED or is_control(encoders, name)


def check_teacher(encoders: Encoders, name: str, where: str = "pretrain") -> None:
    """Refuse a teacher of pre-training that has no feature map, or settings that its kind refuses; loads the kind.

    Raises:
        UserError: one line, which names the key.
    """
    settings(encoders, name)
    if not spec(encoders, name).feature_map:
        having = ", ".join(kind for kind in ENCODERS if ENCODERS[kind].feature_map)
        raise UserError(f"'{where}.teacher': {name} gives no feature map, only whole vectors; kinds that do: {having}")


def check_names(encoders: Encoders, listed: Sequence[str], imported: Sequence[str] = ()) -> None:
    """Refuse what can be seen without loading a kind: unknown kinds and names, and circles.

    Args:
        encoders: the section.
        listed: `encode.encoders`.
        imported: feature sets that come with a dataset.

    Raises:
        UserError: one line, which names the key.
    """
    for name, given in encoders.items():
        if "kind" not in given and name not in ENCODERS:
            raise UserError(f"'encoders.{name}.kind' is required{nearest(name, ENCODERS)}")
        known([kind(encoders, name)], ENCODERS, f"encoders.{name}.kind")
        if name in ENCODERS and kind(encoders, name) != name:
            raise UserError(f"'encoders.{name}.kind': '{name}' is a kind itself; choose another name")
    names = [*encoders, *(name for name in ENCODERS if name not in encoders)]
    _check_masked(names, listed)
    if twice := next((name for i, name in enumerate(listed) if name in listed[:i]), None):
        raise UserError(f"'encode.encoders': '{twice}' stands there twice; list it once")
    for name in encoders:
        _check_parts(encoders, names, name, [])
        if kind(encoders, name) in (WHITENED, MASKED):
            _check_made(parts(encoders, name), names, [*listed, *imported], f"encoders.{name}.of")


def check_teachers(encoders: Encoders, teacher: str, distill_from: Sequence[str], where: str = "pretrain") -> None:
    """Refuse teachers of pre-training that there are not, or that it makes itself.

    Args:
        encoders: the section.
        teacher: `pretrain.teacher`.
        distill_from: `pretrain.distill_from`.
        where: path of the section that names them.

    Raises:
        UserError: one line, which names the key.
    """
    names = [*encoders, *(name for name in ENCODERS if name not in encoders)]
    known([teacher], names, f"{where}.teacher")
    known(distill_from, names, f"{where}.distill_from")
    for name in whole(encoders, distill_from):
        if kind(encoders, name).startswith(OURS):
            raise UserError(f"'{where}.distill_from': '{name}' is what is trained; name an encoder that exists before")
        if kind(encoders, name).removesuffix("-untrained") == CLIP:
            raise UserError(f"'{where}.distill_from': '{name}' is trained after pre-training; name another encoder")
        if kind(encoders, name) in (WHITENED, MASKED):
            raise UserError(f"'{where}.distill_from': '{name}' is made after pre-training; name what it is of")


def _check_masked(names: Sequence[str], listed: Sequence[str]) -> None:
    """Refuse unknown names of `encode.encoders`, and masked sets of what is not listed there."""
    masked = {variant(name, modality): name for name in names for modality in MODALITIES}
    known(listed, [*names, *masked], "encode.encoders")
    for name in listed:
        if name not in names and masked[name] not in listed:
            raise UserError(f"'encode.encoders': '{name}' is made of '{masked[name]}'; list it there too")


def _check_parts(encoders: Encoders, names: list[str], name: str, outer: list[str]) -> None:
    """Refuse parts that there are not, or that one is itself part of; `outer` are those around it."""
    if name in outer:
        raise UserError(f"'encoders.{name}.of': it is a part of itself, by {' -> '.join([*outer, name])}")
    of = parts(encoders, name)
    if kind(encoders, name) == CONCAT:
        known(of, names, f"encoders.{name}.of")
    for part in of:
        _check_parts(encoders, names, part, [*outer, name])


def _check_made(parts: list[str], names: list[str], made: list[str], where: str) -> None:
    """Refuse parts that `encode` does not write, as a whitened set reads what has been written."""
    for part in parts:
        if part in names and part not in made:
            raise UserError(f"'{where}': '{part}' is not under encode.encoders; list it there too")
    known(parts, made, where)
