"""An encoder before it is loaded: its kind, settings and files; and what set.json says of its vectors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.config.base import Section
from alignrec.pipeline.encode.base import Encoder
from alignrec.pipeline.encode.batching import Items
from alignrec.pipeline.encode.folder import ENCODER, Facts, Span
from alignrec.pipeline.encode.hub import Origin, reraise_as_user_error, with_version
from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.encode.registry import ENCODERS, Encoders, kind_of, settings_of
from alignrec.pipeline.images.params import Images


@dataclass(frozen=True)
class Network:
    """An encoder of kind `kind` before it is loaded."""

    name: str  # of its feature set
    kind: str
    settings: Section
    folder: Path  # of what it was fitted to, or of the third-party model
    origin: Origin | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return self.origin.reads if self.origin else ENCODERS[self.kind].reads

    @property
    def packages(self) -> list[str]:
        spec = ENCODERS[self.kind]
        return sorted({spec.library, *spec.packages} - {""})

    def files(self) -> list[Path]:
        return self.origin.files() if self.origin else sorted(p for p in self.folder.glob("*") if p.is_file())

    def moved(self, folder: Path) -> Network:
        """Return it with its files in another folder."""
        return replace(self, folder=folder, origin=self.origin and replace(self.origin, folder=folder))

    def load(self) -> Encoder:
        with self.plainly():
            encoder: Encoder = ENCODERS[self.kind].load(self.origin or self.folder, self.settings)
        return encoder

    def plainly(self) -> AbstractContextManager[None]:
        """Return a context in which whatever a third-party model raises is one line."""
        return reraise_as_user_error(f"encoders.{self.name}") if self.origin else nullcontext()


def find_network(encoders: Encoders, name: str, folder: Path) -> Network:
    """Return an encoder of section `encoders`, a third-party model with its files found and checked; or UserError."""
    kind, settings = kind_of(encoders, name), settings_of(encoders, name)
    find = ENCODERS[kind].origin
    origin = find(f"encoders.{name}", settings) if find else None
    return Network(name, kind, settings, origin.folder if origin else folder / ENCODER, origin)


def settings_facts(network: Network, own: Encode) -> dict[str, Any]:
    """Return the settings that the rows of a set depend on, for their metadata; no paths of folders."""
    batches = {"batch_size": own.batch_size, "shard_rows": own.shard_rows, "seed": own.seed}
    return batches | {"kind": network.kind} | network.settings.model_dump(mode="json") | model_facts(network)


def model_facts(network: Network) -> dict[str, Any]:
    """Return where a third-party model is from; empty for an encoder of this package."""
    if (source := network.origin) is None:
        return {}
    which = {"model": source.model, "revision": source.revision, "library": source.library}
    return which | {"modalities": list(source.reads), "prompt": source.prompt}


def describe(network: Network, own: Encode, items: Items, encoder: Encoder) -> Facts:
    spec, settings = ENCODERS[network.kind], network.settings.model_dump(mode="json")
    stored = image_facts(items)
    halves: dict[str, int] = getattr(encoder, "halves", {})
    space = {k: v for k, v in settings.items() if k != "precision"}
    weights = {"weights": io.digest(network.files())} if spec.fit else {}
    released = network.origin.fingerprint if network.origin else None
    made = dict(released) if released else {"kind": network.kind} | space | model_space(network) | weights
    made |= {name: with_version(name) for name in spec.packages}
    shown = {f"image_{key}": value for key, value in stored.items()} if "image" in network.reads else {}
    return Facts(
        encoder=network.name,
        kind=network.kind,
        reads=list(network.reads),  # type: ignore[arg-type]
        settings=settings,
        weights=network.name if spec.fit else None,
        parts=[],
        packages={package: version(package) for package in spec.packages},
        batch_size=own.batch_size,
        image_size=stored["size"],
        image_quality=stored["quality"],
        fingerprint=made | shown,
        spans=[Span(reads=[modality], width=width) for modality, width in halves.items()],  # type: ignore[list-item]
        model={"kind": network.kind} | model_facts(network) if network.origin else {},
    )


def model_space(network: Network) -> dict[str, Any]:
    return {key: value for key, value in model_facts(network).items() if key != "library"}


def image_facts(items: Items) -> dict[str, int]:
    """Return how the images of a dataset are stored: `size` and `quality`."""
    recorded = io.record(items.images[0]).get("params", {}) if items.images else {}
    return {key: recorded.get(key, getattr(Images(), key)) for key in ("size", "quality")}
