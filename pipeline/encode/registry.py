"""Registry of encoders that are not trained here: a kind is a file with a Spec, and an entry here.

A name in `encode.encoders` refers to section `encoders` of the parameters: a kind and its settings. A name that is a
kind itself needs no entry there, or one without `kind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignrec.pipeline.config.base import Section, checked, known, nearest
from alignrec.pipeline.encode.params import TRAINED
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.registry import Registry

if TYPE_CHECKING:
    from alignrec.pipeline.encode.base import Spec

ENCODERS: Registry[Spec[Any]] = Registry(
    "encoders",
    {
        "minilm": "alignrec.pipeline.encode.minilm:MINILM",
        "tfidf": "alignrec.pipeline.encode.tfidf:TFIDF",
        "cnn": "alignrec.pipeline.encode.cnn:CNN_LITE",
        "descriptors": "alignrec.pipeline.encode.descriptors:DESCRIPTORS",
        "minilm-cnn": "alignrec.pipeline.encode.minilm:MINILM_CNN",
        "huggingface": "alignrec.pipeline.encode.huggingface:HUGGINGFACE",
        "sentence-transformers": "alignrec.pipeline.encode.sentence_transformers:SENTENCE_TRANSFORMERS",
        "open_clip": "alignrec.pipeline.encode.open_clip:OPEN_CLIP",
        "timm": "alignrec.pipeline.encode.timm:TIMM",
        "released": "alignrec.pipeline.release.encoder:RELEASED",
    },
)  # kind -> encoder
Encoders = Mapping[str, Mapping[str, Any]]  # section `encoders`: name -> `kind` and the keys of that kind


def kind_of(encoders: Encoders, name: str) -> str:
    """Return the kind of an encoder; a name without an entry is a kind."""
    return str(encoders.get(name, {}).get("kind", name))


def settings_of(encoders: Encoders, name: str) -> Section:
    """Return the settings of an encoder; UserError for a key or value that its kind refuses."""
    given = {key: value for key, value in encoders.get(name, {}).items() if key != "kind"}
    return checked(ENCODERS[kind_of(encoders, name)].params, given, f"encoders.{name}")


def check_encoders(encoders: Encoders, listed: Sequence[str]) -> None:
    """Raise UserError for unknown kinds and names, and names that are listed twice."""
    for name, given in encoders.items():
        if name in TRAINED:
            raise UserError(f"'encoders.{name}': its settings are those of section beit3; give them there")
        if "kind" not in given and name not in ENCODERS:
            raise UserError(f"'encoders.{name}.kind' is required{nearest(name, ENCODERS)}")
        known([kind_of(encoders, name)], ENCODERS, f"encoders.{name}.kind")
        if name in ENCODERS and kind_of(encoders, name) != name:
            raise UserError(f"'encoders.{name}.kind': '{name}' is a kind itself; choose another name")
    for i, name in enumerate(listed):
        if name in TRAINED:
            raise UserError(f"'encode.encoders': '{name}' is encoded by what `pretrain` makes; list it in beit3.sets")
        if name in listed[:i]:
            raise UserError(f"'encode.encoders': '{name}' is listed twice; list it once")
    known(listed, [*encoders, *ENCODERS], "encode.encoders")
